//! What `check` and `explain` say of the state that several front ends share.

use redis::RedisError;

use super::{IN_PROGRESS, Lines};
use crate::config::{Config, Finding, Reuse, WhenDown};
use crate::http::refusal::{Busy, Refusal};
use crate::link::token::{Claims, TokenFault, Used};
use crate::replay;
use crate::replay::shared::{Agreement, Owner, Redis};

const KEY: &str = "winglet.shared_state";
/// The oldest Redis that has all commands that are used (`SET … KEEPTTL`).
const OLDEST: u32 = 6;

/// Tries to reach the shared state, and says what it is.
pub(super) fn check(
    config: &Config,
    findings: &mut Vec<Finding>,
) -> Option<(&'static str, String)> {
    let redis = match Redis::to_ask(config).transpose()? {
        Ok(redis) => redis,
        Err(error) => {
            findings.push(Finding::error(error.key.unwrap_or(KEY), error.message));
            return None;
        }
    };
    let info = match redis.info() {
        Ok(info) => info,
        Err(error) => {
            findings.push(problem(&error, config));
            return None;
        }
    };
    let fact = |name: &str| {
        let mut lines = info.lines().map(|line| line.split_once(':').unwrap_or((line, "")));
        lines.find(|(key, _)| *key == name).map(|(_, value)| value.trim())
    };
    let version = fact("valkey_version").or(fact("redis_version")).unwrap_or("of no version");
    let major = fact("redis_version").and_then(|version| version.split('.').next()?.parse().ok());
    if major.is_none_or(|major: u32| major < OLDEST) {
        let message = format!("is version {version}; Redis {OLDEST} or Valkey is needed");
        findings.push(Finding::error(KEY, message));
    }
    if fact("role") == Some("slave") {
        let message = "is a replica, which takes no claims; name the one that it follows";
        findings.push(Finding::error(KEY, message));
    }
    let evicts = fact("maxmemory_policy").is_some_and(|policy| policy != "noeviction");
    if evicts && fact("maxmemory").is_some_and(|bytes| bytes != "0") {
        let message = "forgets keys when it is full, and a link could be used twice; set maxmemory-policy noeviction";
        findings.push(Finding::warning(KEY, message));
    }
    let node = Some(redis.name()).filter(|node| !node.is_empty()).unwrap_or("not named yet");
    Some(("shared state", format!("version {version}; this front end is {node}")))
}

/// What an error means to whoever wrote the configuration.
fn problem(error: &RedisError, config: &Config) -> Finding {
    let new_links = match config.shared_state_down {
        WhenDown::Refuse => "until it does, new links get 503",
        WhenDown::Serve => "until it does, a link may be used at each front end",
    };
    match error.code() {
        Some("NOAUTH") => {
            return Finding::error(
                KEY,
                "wants a password; write one in the URL or in shared_state_password_file",
            );
        }
        Some("WRONGPASS") => return Finding::error(KEY, "does not take this user and password"),
        Some(_) => return Finding::error(KEY, format!("refuses: {error}")),
        None => {}
    }
    let text = error.to_string();
    let tls = config.shared_state.as_ref().is_some_and(|shared| shared.tls);
    if error.is_timeout() {
        let remedy = if tls { " (it may not speak TLS: then write redis://)" } else { "" };
        let message = format!("does not answer within a second{remedy}; {new_links}");
        return Finding::warning(KEY, message);
    }
    if error.is_connection_refusal() {
        return Finding::warning(KEY, format!("connection refused; {new_links}"));
    }
    let remedy = match tls {
        true if text.contains("certificate") => {
            "; TLS: name the authority of its certificate in shared_state_ca"
        }
        true => "; it may not speak TLS: then write redis://",
        false => "; it may be no Redis, or one that wants TLS, rediss://",
    };
    Finding::error(KEY, format!("cannot be used: {text}{remedy}"))
}

/// Says who has the link, and what that makes of `refusal`, which is what this front end alone would
/// answer.
pub(super) fn judge(
    config: &Config,
    claims: &Claims,
    refusal: Option<Refusal>,
    lines: &mut Lines,
) -> Option<Refusal> {
    let (Some(unique_id), true) = (&claims.unique_id, config.reuse != Reuse::Unlimited) else {
        return refusal;
    };
    let Some(redis) = Redis::to_ask(config).transpose() else { return refusal };
    let owner = redis.map_err(|error| error.to_string()).and_then(|redis| {
        let owner = redis.owner(&replay::key_of(unique_id)).map_err(|error| error.to_string())?;
        Ok((owner, redis.name().to_owned()))
    });
    let (text, refusal) = match owner {
        Err(error) => {
            // A link in use goes on at the front end that has it.
            let new = !lines.iter().any(|(_, text)| text.starts_with(IN_PROGRESS));
            let down = new && config.shared_state_down == WhenDown::Refuse;
            let away = Refusal::Busy(Busy::SharedState);
            (format!("cannot be found out: {error}"), refusal.or(down.then_some(away)))
        }
        Ok((Owner::Nobody, _)) => ("no front end".to_owned(), refusal),
        Ok((Owner::Spent, _)) => {
            let spent = Refusal::Token(TokenFault::Used(Used::Spent));
            ("spent at one of the front ends".to_owned(), Some(refusal.unwrap_or(spent)))
        }
        Ok((Owner::Node(owner, _), node)) if owner == node => {
            (format!("this front end, {owner}"), refusal)
        }
        Ok((Owner::Node(owner, true), _)) => {
            let location = config.front_end(&owner).map(str::to_owned);
            let text = match &location {
                Some(base) => format!("the front end {owner}, at {base}"),
                None => format!("the front end {owner}, which is not among front_ends"),
            };
            (text, Some(Refusal::Elsewhere { owner: owner.into(), location }))
        }
        Ok((Owner::Node(owner, false), _)) => {
            let text =
                format!("the front end {owner}, which is gone: whoever is asked takes it over");
            // It is good beyond its token's `exp`, as any link that was used.
            (text, refusal.filter(|refusal| *refusal != Refusal::Token(TokenFault::Expired)))
        }
    };
    lines.push(("owned by", text));
    refusal
}
