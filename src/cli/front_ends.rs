//! What `check` and `explain` say of the state that several front ends share.

use redis::RedisError;

use super::{IN_PROGRESS, Lines};
use crate::config::{Config, Finding, Reuse, WhenDown};
use crate::http::refusal::{Busy, Refusal};
use crate::link::token::{Claims, TokenFault};
use crate::net::address::ClientKey;
use crate::replay::shared::{Agreement, Place, Redis, Wish};
use crate::replay::{self, ClaimError};

const KEY: &str = "winglet.shared_state";
/// The oldest Redis that is tested. One older than 5 takes no writes of a script that has asked for
/// the time.
const OLDEST: u32 = 6;

/// Tries to reach the shared state, and says what it is.
pub(super) fn check(
    config: &Config,
    findings: &mut Vec<Finding>,
) -> Option<(&'static str, String)> {
    let redis = match Redis::for_query(config).transpose()? {
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
/// answer to `client`; without one, to the client that holds the link.
pub(super) fn judge(
    config: &Config,
    claims: &Claims,
    client: Option<ClientKey>,
    refusal: Option<Refusal>,
    lines: &mut Lines,
) -> Option<Refusal> {
    let (Some(unique_id), true) = (&claims.unique_id, config.reuse != Reuse::Unlimited) else {
        return refusal;
    };
    let known = lines.iter().any(|(_, text)| text.starts_with(IN_PROGRESS));
    let wish = Wish {
        key: replay::key_of(unique_id),
        seconds: 0,
        now: 0,
        once: config.reuse == Reuse::Once,
        expired: claims.expired,
        client,
        bind: config.bind_address && client.is_some(),
        known: known.then_some(0),
    };
    let Some(redis) = Redis::for_query(config).transpose() else { return refusal };
    let found = redis.map_err(|error| error.to_string()).and_then(|redis| {
        let found = redis.find(&wish).map_err(|error| error.to_string())?;
        Ok((found, redis.name().to_owned()))
    });
    let ((place, error), node) = match found {
        Ok(found) => found,
        Err(error) => {
            lines.push(("owned by", format!("cannot be found out: {error}")));
            // A link in use goes on at the front end that has it.
            let down = !known && config.shared_state_down == WhenDown::Refuse;
            return refusal.or(down.then_some(Refusal::Busy(Busy::SharedState)));
        }
    };
    lines.push(("owned by", describe(&place, &node, config)));
    match (place, error) {
        (Place::Nobody, _) => refusal,
        (Place::At(owner), None) if owner == node => refusal,
        (_, Some(ClaimError::Elsewhere(owner))) => {
            let location = config.front_end(&owner).map(str::to_owned);
            Some(Refusal::Elsewhere { owner, location })
        }
        (_, Some(error)) => Some(error.into()),
        // It is good beyond its token's `exp`, as any link that was used.
        (_, None) => refusal.filter(|refusal| *refusal != Refusal::Token(TokenFault::Expired)),
    }
}

/// Says where a link is to a front end that is called `node`.
fn describe(place: &Place, node: &str, config: &Config) -> String {
    match place {
        Place::Nobody => "no front end".into(),
        Place::Spent => "spent at one of the front ends".into(),
        Place::At(owner) if owner == node => format!("this front end, {owner}"),
        Place::At(owner) => match config.front_end(owner) {
            Some(base) => format!("the front end {owner}, at {base}"),
            None => format!("the front end {owner}, which is not among front_ends"),
        },
        Place::Left(owner) => format!(
            "the front end {owner}, which has stopped or is gone: another one takes the link over for the address that holds it at once, and for others after ten seconds"
        ),
    }
}
