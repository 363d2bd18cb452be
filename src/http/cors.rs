//! Cross-origin answers: the Panel's pages may read what Winglet says (Fetch standard, "CORS
//! protocol").
//!
//! Wings allows its `remote` and `allowed_origins`; so does this. Credentials are never allowed:
//! the link is the credential.

use crate::config::Config;
use crate::http::head::{Field, Head, Method};

/// The header lines for an answer to `head`, each with its CR LF; empty if there are none.
pub fn lines(head: &Head, config: &Config) -> String {
    if config.remote.is_none() && config.allowed_origins.is_empty() {
        return String::new();
    }
    // The answer depends on Origin even if the request has none, and caches must know.
    let mut lines = String::from("Vary: Origin\r\n");
    let Some(origin) = head.field(Field::Origin).filter(|origin| allowed(origin, config)) else {
        return lines;
    };
    lines.push_str("Access-Control-Allow-Origin: ");
    lines.push_str(origin);
    lines.push_str("\r\n");
    if head.method == Method::Options {
        lines.push_str("Access-Control-Allow-Methods: GET, HEAD, OPTIONS\r\n");
        lines.push_str("Access-Control-Allow-Headers: Range, If-Range, If-Match, If-None-Match, If-Modified-Since, If-Unmodified-Since\r\n");
        lines.push_str("Access-Control-Max-Age: 7200\r\n");
    } else {
        lines.push_str("Access-Control-Expose-Headers: Accept-Ranges, Content-Disposition, Content-Length, Content-Range, ETag, Last-Modified, Retry-After, X-Request-Id\r\n");
    }
    lines
}

fn allowed(origin: &str, config: &Config) -> bool {
    // An origin is printable ASCII; anything else could break out of its line.
    origin.bytes().all(|byte| (0x21..=0x7e).contains(&byte))
        && (config.allowed_origins.iter().any(|allowed| allowed == "*" || same(allowed, origin))
            || config.remote.as_deref().is_some_and(|remote| same(remote, origin)))
}

/// Whether a configured URL has this origin: scheme, host and port, case aside.
fn same(url: &str, origin: &str) -> bool {
    let end = url.find("://").map(|scheme| scheme + 3);
    let authority = end.and_then(|start| url[start..].find('/').map(|slash| start + slash));
    url[..authority.unwrap_or(url.len())].eq_ignore_ascii_case(origin)
}

#[cfg(test)]
mod tests {
    use super::same;

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        assert!(same("https://panel.example", "https://panel.example"));
        assert!(same("https://panel.example/base/", "https://PANEL.example"));
        assert!(!same("https://panel.example", "http://panel.example"));
        assert!(!same("https://panel.example", "https://panel.example:8443"));
        assert!(!same("https://panel.example", "https://panel.example.evil.test"));
        assert!(!same("https://panel.example", "null"));
    }
}
