//! The bodies of orders to the control listener: which links are to be revoked.

use serde::Deserialize;

use crate::config::Config;
use crate::link::Uuid;
use crate::link::token::{TokenFault, Verifier};
use crate::replay::{AFTERLIFE, Key, Revocation, Target, key_of, user_key};

/// The body of `POST /revoke`: one link, by its token or by what `/status` calls it, or the links of
/// a server, of a user, of both, or all.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Revoke {
    token: Option<String>,
    link: Option<String>,
    server: Option<Uuid>,
    user: Option<String>,
    all: bool,
}

/// The body of `POST /api/deauthorize-user`, as a Panel sends it to Wings.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Deauthorize {
    Plain(Deauthorized),
    /// As Pelican sends it.
    Below {
        json: Deauthorized,
    },
}

#[derive(Debug, Deserialize)]
struct Deauthorized {
    user: String,
    /// None means all.
    #[serde(default)]
    servers: Vec<Uuid>,
}

/// The body of `POST /api/servers/UUID/ws/deny`.
#[derive(Debug, Deserialize)]
struct Deny {
    jtis: Vec<String>,
}

/// What is to be revoked, and what the log calls it.
pub type Order = (Target, Revocation, String);

/// Why an order cannot be carried out: what is wrong with it.
pub type Mistake = &'static str;

/// The order in `body` of `POST /revoke` at `now`.
///
/// # Errors
/// If the body is no such order, or its token was not signed with this node's key.
pub fn revoke(
    body: &[u8],
    config: &Config,
    verifier: &Verifier,
    now: u64,
) -> Result<Order, Mistake> {
    const SHAPE: Mistake = "the body has to be JSON with one of token, link, server, user (with or without server) and all";
    let order: Revoke = serde_json::from_slice(body).map_err(|_| SHAPE)?;
    let known = known(config, now);
    match order {
        Revoke { token: Some(token), link: None, server: None, user: None, all: false } => {
            let (identity, expires) = identify(&token, verifier)?;
            Ok(one(key_of(&identity), expires, &known))
        }
        Revoke { token: None, link: Some(link), server: None, user: None, all: false } => {
            let digits = Some(link).filter(|link| link.len() == 32 && !link.starts_with('+'));
            let link = digits.and_then(|link| u128::from_str_radix(&link, 16).ok());
            let link = link.ok_or("a link is named by the 32 hexadecimal digits of /status")?;
            Ok(one(link.to_be_bytes(), 0, &known))
        }
        Revoke { token: None, link: None, server: None, user: None, all: true } => {
            Ok((Target::default(), known, "all links".to_owned()))
        }
        Revoke { token: None, link: None, server, user, all: false } => match (server, user) {
            (None, None) => Err(SHAPE),
            (server, user) => Ok(some(server, user.as_deref(), known)),
        },
        _ => Err(SHAPE),
    }
}

/// The orders in `body` of `POST /api/deauthorize-user` at `now`.
///
/// # Errors
/// If the body is no such order.
pub fn deauthorize(body: &[u8], config: &Config, now: u64) -> Result<Vec<Order>, Mistake> {
    let order: Deauthorize = serde_json::from_slice(body)
        .map_err(|_| "the body has to be JSON with user and servers, a list of UUIDs")?;
    let (Deauthorize::Plain(order) | Deauthorize::Below { json: order }) = order;
    let (user, known) = (Some(order.user.as_str()), known(config, now));
    Ok(match order.servers.as_slice() {
        [] => vec![some(None, user, known)],
        servers => servers.iter().map(|server| some(Some(*server), user, known)).collect(),
    })
}

/// The orders in `body` of `POST /api/servers/UUID/ws/deny` for `server` at `now`. Wings ends consoles
/// by it. Links have the same `jti`: of the user on that server with Pterodactyl before 1.12, of the
/// user with Calagopus.
///
/// # Errors
/// If the body is no such order.
pub fn deny(body: &[u8], server: Uuid, config: &Config, now: u64) -> Result<Vec<Order>, Mistake> {
    let order: Deny = serde_json::from_slice(body)
        .map_err(|_| "the body has to be JSON with jtis, a list of strings")?;
    let known = known(config, now);
    Ok(order.jtis.iter().map(|jti| some(Some(server), Some(jti), known)).collect())
}

/// What a token names that goes with `body`, so that it is good for nothing else.
pub fn seal(body: &[u8]) -> String {
    let hash = hmac_sha256::Hash::hash(body);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is meant by everything that exists at `now`, and for how long.
fn known(config: &Config, now: u64) -> Revocation {
    let issued = now.saturating_add(config.clock_skew.as_secs());
    // A token lives so long, and a link that is in use by now may outlive its own.
    let token = issued.saturating_add(config.max_token_lifetime.as_secs());
    let grant = now.saturating_add(config.resume_window.as_secs());
    Revocation { issued, end: token.max(grant).saturating_add(AFTERLIFE) }
}

/// What tells the link of `token` from others, and when it expires.
fn identify(token: &str, verifier: &Verifier) -> Result<(String, u64), Mistake> {
    verifier.identify(token).map_err(|fault| match fault {
        TokenFault::Signature => "the token's signature is wrong: it is no link of this node",
        _ => "this is no link: it has no token that could be read",
    })
}

/// One link, whenever it was made: it is this one that is meant.
fn one(link: Key, expires: u64, known: &Revocation) -> Order {
    let target = Target { link: Some(link), ..Target::default() };
    let end = expires.saturating_add(AFTERLIFE).max(known.end);
    let what = format!("link {:032x}", u128::from_be_bytes(link));
    (target, Revocation { issued: u64::MAX, end }, what)
}

fn some(server: Option<Uuid>, user: Option<&str>, known: Revocation) -> Order {
    let target = Target {
        link: None,
        server: server.map(|server| key_of(&server.to_string())),
        user: user.map(user_key),
    };
    let mut what = "links".to_owned();
    if let Some(user) = user {
        what += &format!(" of user {}", crate::logging::escape(user));
    }
    if let Some(server) = server {
        what += &format!(" of server {server}");
    }
    (target, known, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    const SERVER: &str = "8d1f3c52-6a0e-4a7b-9f3e-2c5b7e1a9d40";

    fn config() -> Config {
        let loaded = config::load(
            &[std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config.yml")],
            &[],
            &|_| None,
            &[],
        );
        loaded.config.unwrap()
    }

    #[test]
    fn nothing_but_an_order_is_one() {
        let config = config();
        let verifier = Verifier::new(&config);
        let read = |body: &str| revoke(body.as_bytes(), &config, &verifier, 1000);
        for body in [
            "",
            "{}",
            "null",
            "[]",
            r#"{"all":false}"#,
            r#"{"all":"yes"}"#,
            r#"{"all":true,"server":"8d1f3c52-6a0e-4a7b-9f3e-2c5b7e1a9d40"}"#,
            r#"{"server":"../x"}"#,
            r#"{"sever":"8d1f3c52-6a0e-4a7b-9f3e-2c5b7e1a9d40"}"#,
            r#"{"token":"a.b.c"}"#,
            r#"{"token":"x","all":true}"#,
            r#"{"link":"0123456789abcdef"}"#,
            r#"{"link":"+123456789abcdef0123456789abcdef"}"#,
            r#"{"link":"0123456789abcdef0123456789abcdef","all":true}"#,
        ] {
            assert!(read(body).is_err(), "{body}");
        }
        let (target, known, what) = read(r#"{"all":true}"#).unwrap();
        assert!(target.is_all() && what == "all links");
        assert_eq!((known.issued, known.end), (1060, 1060 + 86_400 + 3600));
        let (target, known, what) = read(r#"{"link":"0123456789abcdef0123456789ABCDEF"}"#).unwrap();
        assert_eq!(what, "link 0123456789abcdef0123456789abcdef");
        assert_eq!(target.link.map(u128::from_be_bytes), Some(0x0123456789abcdef0123456789abcdef));
        assert_eq!((known.issued, known.end), (u64::MAX, 1060 + 86_400 + 3600));
        let (target, _, what) = read(&format!(r#"{{"server":"{SERVER}","user":"A\n"}}"#)).unwrap();
        assert_eq!((target.server, target.user), (Some(key_of(SERVER)), Some(user_key("a\n"))));
        assert_eq!(what, format!("links of user A\\n of server {SERVER}"));
    }

    #[test]
    fn the_panels_call_is_about_a_user_on_some_servers_or_all() {
        let config = config();
        let read = |body: &str| deauthorize(body.as_bytes(), &config, 1000);
        let orders = read(&format!(r#"{{"user":"u","servers":["{SERVER}"],"x":1}}"#)).unwrap();
        assert_eq!((orders.len(), orders[0].0.server), (1, Some(key_of(SERVER))));
        let orders = read(r#"{"user":"u","servers":[]}"#).unwrap();
        assert_eq!((orders.len(), orders[0].0.server, orders[0].0.is_all()), (1, None, false));
        let below = read(&format!(r#"{{"json":{{"user":"u","servers":["{SERVER}"]}}}}"#)).unwrap();
        assert_eq!((below.len(), below[0].0.server), (1, Some(key_of(SERVER))));
        for body in [
            r#"{"servers":[]}"#,
            r#"{"user":"u","servers":[5]}"#,
            r#"{"json":{}}"#,
            r#"{"json":[{"user":"u","servers":[]}]}"#,
        ] {
            assert!(read(body).is_err(), "{body}");
        }
    }

    #[test]
    fn a_denied_jti_is_a_user_on_one_server() {
        let (config, server) = (config(), SERVER.parse().unwrap());
        let read = |body: &str| deny(body.as_bytes(), server, &config, 1000);
        let orders = read(r#"{"jtis":["A","b"]}"#).unwrap();
        let targets: Vec<_> =
            orders.iter().map(|(target, ..)| (target.server, target.user)).collect();
        let server = Some(key_of(SERVER));
        assert_eq!(targets, [(server, Some(user_key("a"))), (server, Some(user_key("b")))]);
        assert!(read(r#"{"jtis":[]}"#).unwrap().is_empty());
        assert!(read("{}").is_err() && read(r#"{"jtis":"a"}"#).is_err());
    }
}
