//! URLs: the Panel's, other origins', and what links begin with.

use super::written::{Document, Written};
use super::yaml::Value;
use super::{Config, Listen};

/// The Panel's URL, without a slash at its end.
pub(super) fn remote(remote: &Written<'_>) -> Option<String> {
    let url = remote.text()?.trim_end_matches('/').to_owned();
    if !url.starts_with("http://") && !url.starts_with("https://") {
        // No error: Wings alone cannot work with it, we only know no origin by it.
        remote.warning(format!(
            "is the text {url:?}; write the Panel's URL, such as https://panel.example.com"
        ));
    }
    Some(url)
}

/// Origins, without a slash at their end.
pub(super) fn origins(origins: &Written<'_>) -> Vec<String> {
    let list = origins.list("\"https://shop.example.com\"");
    if let Some(pattern) = list.iter().find(|origin| origin.len() > 1 && origin.contains('*')) {
        origins.warning(format!(
            "{pattern:?} matches nothing; write each origin in full, such as https://shop.example.com, or \"*\" for all"
        ));
    }
    list.into_iter().map(|origin| origin.trim_end_matches('/').to_owned()).collect()
}

/// What links begin with.
pub(super) fn base_url(base: &Written<'_>) -> Option<String> {
    parse_base_url(&base.text()?).map_err(|message| base.error(message)).ok()
}

/// What a link can begin with, without a slash at its end. `/download/file` and the like, as in a link
/// that was copied, are taken off.
///
/// # Errors
/// What is wrong with it, and an example.
pub fn parse_base_url(text: &str) -> Result<String, String> {
    let wrong = |what: &str| {
        Err(format!("{what}; write the address of the node, such as https://node.example.com:8080"))
    };
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let host = rest.unwrap_or_default().split('/').next().unwrap_or_default();
    let port = host.rsplit_once(':').map(|(_, port)| port).filter(|port| !port.ends_with(']'));
    if host.is_empty() {
        return wrong("does not begin with http:// or https:// and a host");
    }
    if text.contains(['?', '#']) {
        return wrong("has a query of its own, and the link's comes after it");
    }
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return wrong("has a port that is no number up to 65535");
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>\\@".contains(&byte)) {
        return wrong("has a character that an address does not have");
    }
    let text = text.trim_end_matches('/');
    let endpoint = text.rsplit_once("/download/").filter(|(_, name)| !name.contains('/'));
    let base = endpoint.map(|(base, _)| base).or(text.strip_suffix("/download")).unwrap_or(text);
    Ok(base.trim_end_matches('/').to_owned())
}

/// Warns of links that would not work as the Panel makes them. Behind a proxy, the proxy speaks TLS.
pub(super) fn must_fit(config: &Config, document: &Document<'_>) {
    const REMEDY: &str = "set up TLS, or name the proxy in front in api.trusted_proxies";
    let notes = &document.notes;
    let no_tls = !config.listen.iter().any(Listen::is_tls) && config.trusted_proxies.is_empty();
    let open = config.listen.iter().find(|listen| !listen.is_local()).filter(|_| no_tls);
    let enabled = document.value("api.ssl.enabled");
    if let (Some(open), Some(Value::Switch(true))) = (open, enabled) {
        let message = format!("{open} is plain HTTP, and api.ssl.enabled is true; {REMEDY}");
        return notes.warning("winglet.listen", message);
    }
    let blocked = "the Panel is on https: browsers block such links";
    let https = config.remote.as_ref().is_some_and(|remote| remote.starts_with("https://"));
    match (&config.base_url, open) {
        (Some(base), _) if https && base.starts_with("http://") => {
            notes.warning(
                "winglet.base_url",
                format!("begins with http, and {blocked}; write https"),
            );
        }
        (None, Some(open)) if https => {
            notes.warning(
                "winglet.listen",
                format!("{open} is plain HTTP, and {blocked}; {REMEDY}"),
            );
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Node;
    use super::*;

    #[test]
    fn what_a_link_can_begin_with() {
        for (text, base) in [
            ("https://a", "https://a"),
            ("http://a:8080/", "http://a:8080"),
            ("https://[::1]:8080/prefix//", "https://[::1]:8080/prefix"),
            ("https://[::1]", "https://[::1]"),
            ("https://a/download/file", "https://a"),
            ("https://a/p/download/backup/", "https://a/p"),
            ("https://a/download", "https://a"),
            ("https://a/download/x/y", "https://a/download/x/y"),
        ] {
            assert_eq!(parse_base_url(text).as_deref(), Ok(base), "{text}");
        }
        for text in ["", "a", "ftp://a", "https://", "https:///x", "https://a:x", "https://a:65536"]
        {
            assert!(parse_base_url(text).is_err(), "{text}");
        }
        for text in
            ["https://a\r\nX: y", "https://a?b", "https://a#b", "https://a b", "https://me@a"]
        {
            assert!(parse_base_url(text).is_err(), "{text}");
        }
        let (config, findings) = Node::new().load("winglet: {base_url: 'https://a/download/file'}");
        assert_eq!((config.unwrap().base_url.as_deref(), &*findings), (Some("https://a"), ""));
        let (config, findings) = Node::new().load("winglet: {base_url: node.example.com}");
        let told =
            "error: winglet.base_url: does not begin with http:// or https:// and a host; write";
        assert!(config.is_none() && findings.starts_with(told), "{findings}");
    }

    #[test]
    fn links_that_a_browser_blocks_are_warned_of() {
        const PANEL: &str = "remote: https://panel.example.com\n";
        let plain =
            "warning: winglet.listen: 0.0.0.0:8080 is plain HTTP, and the Panel is on https";
        let ssl = "warning: winglet.listen: 0.0.0.0:81 is plain HTTP, and api.ssl.enabled is true";
        for (rest, told) in [
            ("", plain),
            ("winglet: {listen: ['127.0.0.1:1']}", ""),
            ("winglet: {listen: ['unix:w']}", ""),
            ("api: {trusted_proxies: ['10.0.0.1']}", ""),
            ("winglet: {base_url: 'https://a'}", ""),
            (
                "winglet: {base_url: 'http://a', listen: ['unix:w']}",
                "warning: winglet.base_url: begins with http, and the Panel is on https",
            ),
            ("api: {ssl: {enabled: true}}\nwinglet: {listen: ['0.0.0.0:81']}", ssl),
            ("api: {ssl: {enabled: true}}\nwinglet: {listen: ['127.0.0.1:81']}", ""),
        ] {
            let (config, findings) = Node::new().load(&format!("{PANEL}{rest}"));
            assert!(config.is_some(), "{findings}");
            assert!(
                findings.starts_with(told) && findings.is_empty() == told.is_empty(),
                "{rest}: {findings}"
            );
        }
        assert_eq!(Node::new().load("remote: http://panel.example.com").1, "");
        let (_, findings) =
            Node::new().load("api: {ssl: {enabled: true}}\nwinglet: {listen: ['0.0.0.0:81']}");
        assert!(findings.starts_with(ssl), "{findings}");
    }

    #[test]
    fn a_pattern_is_no_origin() {
        let (config, findings) = Node::new().load("allowed_origins: ['*.example.com']");
        assert!(config.is_some());
        let told = "warning: allowed_origins: \"*.example.com\" matches nothing; write each origin in full";
        assert!(findings.starts_with(told), "{findings}");
        assert_eq!(Node::new().load("allowed_origins: ['*']").1, "");
    }
}
