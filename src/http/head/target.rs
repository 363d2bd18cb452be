//! Request targets (RFC 9112 §3.2): the route, the query and its parameters, and what a host is.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use percent_encoding::percent_decode_str;

use super::{Control, Place, Route};
use crate::archive::Format;
use crate::http::refusal::Refusal;
use crate::link::Uuid;
use crate::link::token::Endpoint;

const MALFORMED: Refusal = Refusal::Malformed("the request's target is malformed");

/// The route and the query, without its question mark, of a target in printable ASCII.
pub(super) fn parse<'a>(
    method: &str,
    target: &'a str,
    place: Place,
) -> Result<(Route, &'a str), Refusal> {
    if method == "CONNECT" || (method == "OPTIONS" && target == "*") {
        return Ok((Route::Asterisk, ""));
    }
    let origin = if target.starts_with('/') { target } else { without_authority(target)? };
    // A fragment is the client's own business and never sent.
    if target.contains('#') {
        return Err(MALFORMED);
    }
    let (path, query) = origin.split_once('?').unwrap_or((origin, ""));
    let path = percent_decode_str(path).decode_utf8().unwrap_or_default();
    let route = match path.as_ref() {
        // A method of the server, whatever the path (RFC 9110 §9.3.8).
        _ if method == "TRACE" => Route::Asterisk,
        // Neither place has anything of the other.
        path if place == Place::Control => control(path),
        "/download/file" => Route::Download(Endpoint::File),
        "/download/backup" => Route::Download(Endpoint::Backup),
        "/download/directory" => Route::Download(Endpoint::Directory),
        "/download/files" => Route::Download(Endpoint::Files),
        "/health" => Route::Health,
        _ => Route::Unknown,
    };
    Ok((route, query))
}

fn control(path: &str) -> Route {
    let plain = [Control::Status, Control::Metrics, Control::Revoke, Control::Deauthorize];
    let found = plain.into_iter().find(|control| control.path() == path);
    let found = found.or_else(|| denied(path).map(Control::Deny));
    found.map_or(Route::Unknown, Route::Control)
}

fn denied(path: &str) -> Option<Uuid> {
    path.strip_prefix("/api/servers/")?.strip_suffix("/ws/deny")?.parse().ok()
}

/// What follows the authority of a target in absolute-form.
fn without_authority(target: &str) -> Result<&str, Refusal> {
    let (scheme, rest) = target.split_once("://").ok_or(MALFORMED)?;
    let known = ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    let (authority, origin) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    // A user name before the host is refused with it (RFC 9110 §4.2.4).
    if !known || authority.is_empty() || !is_host(authority) {
        return Err(MALFORMED);
    }
    Ok(origin)
}

/// The address of the request in `head` (a valid one) with `https://`, for a client that has asked
/// without the s. `None` if it names no host.
#[cfg(feature = "tls")]
pub fn secure_address(head: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(head).ok()?;
    let mut lines = text.trim_start_matches("\r\n").split("\r\n");
    let target = lines.next()?.split(' ').nth(1).filter(|target| target.starts_with('/'))?;
    let host = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(':'))
        .find_map(|(name, value)| name.eq_ignore_ascii_case("host").then_some(value.trim()))?;
    let valid = !host.is_empty() && is_host(host) && target.bytes().all(|b| b.is_ascii_graphic());
    valid.then(|| format!("https://{host}{target}"))
}

/// Whether `text` is a valid value of `Host`: empty, or a host with an optional port (RFC 9110
/// §7.2, RFC 3986 §3.2.2). A comma is refused, although the grammar has it, because it is also how
/// a proxy joins two lines.
pub(super) fn is_host(text: &str) -> bool {
    let (valid, port) = match text.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((address, port))) => (address.parse::<Ipv6Addr>().is_ok(), port),
        Some(None) => (false, ""),
        None => {
            let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            (is_reg_name(name) && (!name.is_empty() || text.is_empty()), port)
        }
    };
    let digits = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    valid && (port.is_empty() || port.strip_prefix(':').is_some_and(digits))
}

fn is_reg_name(name: &str) -> bool {
    let mut parts = name.split('%');
    let plain = |part: &str| {
        part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=".contains(&byte))
    };
    // Each part but the first follows a percent sign.
    parts.next().is_some_and(plain)
        && parts.all(|part| {
            part.get(..2).is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
                && plain(part)
        })
}

/// The parameters of a query, as they were sent. A link that was copied out of HTML has `&amp;`
/// between them.
pub(super) fn parameters(query: &str) -> impl Iterator<Item = &str> {
    query.split('&').map(|parameter| parameter.strip_prefix("amp;").unwrap_or(parameter))
}

/// Returns true if `parameter` asks for the landing page.
pub(super) fn is_page(parameter: &str) -> bool {
    let name = parameter.split_once('=').map_or(parameter, |(name, _)| name);
    word(name) == "page"
}

/// The value of the first parameter of this name, decoded.
fn value_of<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    parameters(query).find_map(|parameter| {
        let (found, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        percent_decode_str(found).eq(name.bytes()).then(|| word(value))
    })
}

/// `text`, decoded, up to the first character that neither base64url nor a token's full stops have:
/// what a chat or a mail appends to a link (a bracket, a comma, the rest of a sentence) does no harm.
/// The full stop that ends a sentence goes, too.
fn word(text: &str) -> Cow<'_, str> {
    let is_good = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    let decoded = Cow::from(percent_decode_str(text));
    let good = decoded.iter().take_while(|byte| is_good(byte)).count();
    let end = decoded[..good].iter().rposition(|byte| *byte != b'.').map_or(0, |last| last + 1);
    match decoded {
        // Nothing was decoded: the two are alike.
        Cow::Borrowed(_) => Cow::Borrowed(&text[..end]),
        Cow::Owned(bytes) => String::from_utf8_lossy(&bytes[..end]).into_owned().into(),
    }
}

/// The first `token` parameter of a query, decoded, without what may have been appended to it.
pub fn token_of(query: &str) -> Option<Cow<'_, str>> {
    value_of(query, "token")
}

/// The format that the first `archive_format` parameter of a query names; zip if there is none.
/// Calagopus' compressed tars (`tar_gz`, its default, and five others) become a plain one.
///
/// # Errors
/// [`Refusal::ArchiveFormat`] if it is another one.
pub fn format_of(query: &str) -> Result<Format, Refusal> {
    match value_of(query, "archive_format").as_deref() {
        None => Ok(Format::default()),
        Some("zip") => Ok(Format::Zip),
        Some("tar") => Ok(Format::Tar),
        Some(name) if name.starts_with("tar_") => Ok(Format::Tar),
        Some(_) => Err(Refusal::ArchiveFormat),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_token_parameter_counts() {
        let table = [
            ("", None),
            ("token", Some("")),
            ("token=", Some("")),
            ("token=a", Some("a")),
            ("a=b&token=c&token=d", Some("c")),
            ("tokens=a", None),
            ("Token=a", None),
            ("%74oken=a%2Eb", Some("a.b")),
            ("token=%ff", Some("")),
            ("token=a=b", Some("a")),
            ("x&amp;token=a", Some("a")),
            ("token=a.b.c-_)", Some("a.b.c-_")),
            ("token=a.b.c.", Some("a.b.c")),
            ("token=a.b.c...", Some("a.b.c")),
            ("token=a.b.c.,", Some("a.b.c")),
            ("token=a.b.c%20and", Some("a.b.c")),
            ("token=a.b.c%0D%0Aand", Some("a.b.c")),
            ("token=a.b.c>", Some("a.b.c")),
            ("token=a.b.c%3E", Some("a.b.c")),
            ("token=a%2Eb.c%2E%E3%80%82", Some("a.b.c")),
            ("token=...", Some("")),
        ];
        for (query, expected) in table {
            assert_eq!(token_of(query).as_deref(), expected, "{query}");
        }
    }

    #[test]
    fn an_archive_is_a_zip_or_a_tar() {
        for (query, expected) in [
            ("token=a", Ok(Format::Zip)),
            ("archive_format=zip", Ok(Format::Zip)),
            ("a&archive%5fformat=t%61r&archive_format=zip", Ok(Format::Tar)),
            ("a&amp;archive_format=tar", Ok(Format::Tar)),
            ("archive_format=tar)", Ok(Format::Tar)),
            ("archive_format=tar_gz", Ok(Format::Tar)),
            ("archive_format=tar_zstd", Ok(Format::Tar)),
            ("archive_format", Err(Refusal::ArchiveFormat)),
            ("archive_format=tarball", Err(Refusal::ArchiveFormat)),
            ("archive_format=itaf", Err(Refusal::ArchiveFormat)),
            ("archive_format=7z", Err(Refusal::ArchiveFormat)),
            ("archive_format=ZIP", Err(Refusal::ArchiveFormat)),
        ] {
            assert_eq!(format_of(query), expected, "{query}");
        }
    }

    #[test]
    #[cfg(feature = "tls")]
    fn the_same_address_with_https() {
        let of = |head: &str| secure_address(head.as_bytes());
        let head =
            "GET /download/file?token=a.b HTTP/1.1\r\nAccept: */*\r\nhost: n.example:8443\r\n\r\n";
        assert_eq!(of(head).as_deref(), Some("https://n.example:8443/download/file?token=a.b"));
        for head in [
            "GET / HTTP/1.0\r\n\r\n",
            "GET / HTTP/1.0\r\n\r\nHost: n\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: \r\n\r\n",
            "GET / HTTP/1.1\r\nHost: n/x\r\n\r\n",
            "GET http://n/ HTTP/1.1\r\nHost: n\r\n\r\n",
            "GET",
        ] {
            assert_eq!(of(head), None, "{head}");
        }
    }

    #[test]
    fn a_page_parameter_is_known_by_its_name() {
        for page in ["page", "page=", "page=0", "p%61ge", "page)", "page.", "page%29,", "page,="] {
            assert!(is_page(page), "{page}");
        }
        for other in ["", "pages", "Page", "x=page", "page-1", ".page"] {
            assert!(!is_page(other), "{other}");
        }
    }

    #[test]
    fn hosts() {
        let valid = [
            "",
            "a",
            "a.b:80",
            "a:",
            "a_b",
            "127.0.0.1",
            "[::1]",
            "[2001:db8::1]:8080",
            "%41.b",
            "xn--e1a",
            "a!$&'()*+;=~",
            "a:99999",
        ];
        for host in valid {
            assert!(is_host(host), "{host}");
        }
        let invalid = [
            "[::1",
            "a:x",
            "a^b",
            "%zz",
            "a:80:80",
            "%4",
            "%",
            ":80",
            "[",
            "[]",
            "::1",
            "[::1]x",
            "[::1]80",
            "[127.0.0.1]",
            "[fe80::1%25eth0]",
            "a,b",
            "u@a",
            "a/b",
            "a b",
            "a\\b",
            "é",
            "a%c",
            "a\"",
            "a]",
        ];
        for host in invalid {
            assert!(!is_host(host), "{host}");
        }
    }
}
