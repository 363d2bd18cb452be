//! Tables and properties of head screening.

use super::*;
use proptest::prelude::*;

fn status(head: &[u8]) -> Result<Box<Head>, u16> {
    match screen(head, 0, Place::Public) {
        Screened::Ready(head, _) => Ok(head),
        Screened::Refused(_, refusal) => Err(refusal.status()),
        Screened::Incomplete => Err(0),
    }
}

/// A valid head with `fields` added.
fn with(fields: &str) -> Vec<u8> {
    format!("GET /download/file?token=x HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes()
}

#[test]
fn valid_heads_in_every_form_of_target() {
    let table: &[(&str, Route, &str)] = &[
        ("/download/file?token=a", Route::Download(Endpoint::File), "token=a"),
        ("/download/backup", Route::Download(Endpoint::Backup), ""),
        ("/download/directory?a", Route::Download(Endpoint::Directory), "a"),
        ("/download/files", Route::Download(Endpoint::Files), ""),
        ("/download/%66ile?token=a?b", Route::Download(Endpoint::File), "token=a?b"),
        ("http://h/download/file?a=b", Route::Download(Endpoint::File), "a=b"),
        ("HTTPS://h:1/health", Route::Health, ""),
        ("http://[::1]:80/health", Route::Health, ""),
        ("http://h?x", Route::Unknown, "x"),
        ("http://h", Route::Unknown, ""),
        ("/health", Route::Health, ""),
        ("/health/", Route::Unknown, ""),
        ("/", Route::Unknown, ""),
        ("//download/file", Route::Unknown, ""),
        ("/download/../health", Route::Unknown, ""),
        ("/%00", Route::Unknown, ""),
    ];
    for (target, route, query) in table {
        let head = status(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
        assert_eq!((head.route, &*head.query), (*route, *query), "{target}");
    }
    for head in ["TRACE /nothing", "CONNECT h:443", "OPTIONS *"] {
        let head = status(format!("{head} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
        assert_eq!(head.route, Route::Asterisk);
    }
}

#[test]
fn a_later_minor_version_is_http_1_1() {
    for minor in 1..=9 {
        let head = format!("GET /health HTTP/1.{minor}\r\nHost: a\r\n\r\n");
        let head = status(head.as_bytes()).unwrap();
        assert!(!head.http10 && head.keep_alive);
    }
}

#[test]
fn the_link_to_the_file_is_the_query_without_page() {
    let table = [
        ("page&token=a", true, "?token=a"),
        ("token=a&page", true, "?token=a"),
        ("token=a%2Eb&page=1&x=y&p%61ge&&z", true, "?token=a%2Eb&x=y&&z"),
        ("token=a&pages=1", false, "?token=a&pages=1"),
        ("", false, "?"),
    ];
    for (query, page, link) in table {
        let head = format!("GET /download/file?{query} HTTP/1.1\r\nHost: a\r\n\r\n");
        let head = status(head.as_bytes()).unwrap();
        assert_eq!((head.wants_page(), head.download_link().as_str()), (page, link), "{query}");
    }
}

#[test]
fn refusals_of_the_request_line() {
    let table: &[(&[u8], u16)] = &[
        (b"GET /\r\n\r\n", 400),
        (b"GET\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\n", 400),
        (b"GET / HTTP/1.1 \r\n", 400),
        (b" GET / HTTP/1.1\r\n", 400),
        (b"GET /a b HTTP/1.1\r\n", 400),
        (b"GET /\xc3\xa9 HTTP/1.1\r\n", 400),
        (b"GET /\0 HTTP/1.1\r\n", 400),
        (b"GET / HTTP/1.1\n", 400),
        (b"GET / HTTP/1.1\rX: y\r\n", 400),
        (b"GET /\tx HTTP/1.1\r\n", 400),
        (b"GET / http/1.1\r\n", 400),
        (b"GET / HTTP/1.1x\r\n", 400),
        (b"GET / HTTP/11.1\r\n", 400),
        (b"GET / HTTP/2.0\r\n", 505),
        (b"GET / HTTP/3.1\r\n", 505),
        (b"GET / HTTP/0.9\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),
        (b"GET example.com:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET ftp://h/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET http://u@b/health HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET http://[/health HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET http://:80/health HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /health#x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET http://h#x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (b"get / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (b"G\"T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ];
    for (head, expected) in table {
        assert_eq!(status(head).map(|_| ()), Err(*expected), "{}", head.escape_ascii());
    }
}

#[test]
fn refusals_of_the_header_section() {
    let table: &[(&str, u16)] = &[
        ("Content-Length: -1\r\n", 400),
        ("Content-Length: +1\r\n", 400),
        ("Content-Length: 1,1\r\n", 400),
        ("Content-Length: 0x10\r\n", 400),
        ("Content-Length: 1 1\r\n", 400),
        ("Content-Length:\r\n", 400),
        ("Content-Length: 0\r\nContent-Length: 0\r\n", 400),
        ("Content-Length: 5\r\nContent-Length: 6\r\n", 400),
        ("Content-Length: 1125899906842624\r\n", 413),
        ("Content-Length: 9223372036854775807\r\n", 413),
        ("Content-Length: 18446744073709551615\r\n", 413),
        ("Content-Length: 18446744073709551616\r\n", 413),
        ("Content-Length: 999999999999999999999\r\n", 400),
        ("Content-Length: 1\r\n", 413),
        ("Transfer-Encoding: chunked\r\n", 413),
        ("Transfer-Encoding: Chunked\r\n", 413),
        ("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", 400),
        ("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Transfer-Encoding: identity\r\n", 501),
        ("Transfer-Encoding: gzip, chunked\r\n", 501),
        ("Transfer-Encoding: xchunked\r\n", 501),
        ("Transfer-Encoding: chunked, identity\r\n", 501),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 501),
        ("Transfer-Encoding: \"chunked\"\r\n", 501),
        ("Transfer-Encoding:\x0bchunked\r\n", 400),
        ("Transfer-Encoding : chunked\r\n", 400),
        (" Transfer-Encoding: chunked\r\n", 400),
        ("X: y\r\n Transfer-Encoding: chunked\r\n", 400),
        ("X: y\r\n\tfolded\r\n", 400),
        ("Transfer_Encoding: chunked\r\n", 200),
        ("Expect: 100-continue\r\n", 200),
        ("Expect: 200-maybe\r\n", 417),
        ("Host: b\r\n", 400),
        ("Upgrade: h2c\r\nConnection: Upgrade\r\n", 200),
        ("TE: chunked\r\n", 200),
        ("X-Text: caf\u{e9}\r\n", 200),
        ("No colon\r\n", 400),
        (": no name\r\n", 400),
        ("Bad(name): x\r\n", 400),
    ];
    for (fields, expected) in table {
        let outcome = status(&with(fields)).map_or_else(|refusal| refusal, |_| 200);
        assert_eq!(outcome, *expected, "{fields:?}");
    }
    for host in ["Host: a/b", "Host: a b", "Host: a, b", "Host: u@a", "Host: a^b", "X: y"] {
        let head = format!("GET / HTTP/1.1\r\n{host}\r\n\r\n");
        assert_eq!(status(head.as_bytes()).map(|_| ()), Err(400), "{host}");
    }
    assert!(status(b"GET / HTTP/1.0\r\n\r\n").is_ok());
    assert_eq!(
        status(b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").map(|_| ()),
        Err(400)
    );
}

#[test]
fn sizes_at_the_bound() {
    let line = format!("GET /{}", "a".repeat(MAX_HEAD_BYTES));
    assert_eq!(status(line.as_bytes()).map(|_| ()), Err(414));
    let fields = format!("X: {}\r\n", "a".repeat(MAX_HEAD_BYTES));
    assert_eq!(status(&with(&fields)).map(|_| ()), Err(431));
    assert_eq!(status(&with(&"X: y\r\n".repeat(MAX_FIELDS))).map(|_| ()), Err(431));
    assert!(status(&with(&"X: y\r\n".repeat(MAX_FIELDS - 1))).is_ok());
    let base = with("X: \r\n").len();
    let exact = with(&format!("X: {}\r\n", "a".repeat(MAX_HEAD_BYTES - base)));
    assert_eq!(exact.len(), MAX_HEAD_BYTES);
    assert!(status(&exact).is_ok());
    let over = with(&format!("X: {}\r\n", "a".repeat(MAX_HEAD_BYTES - base + 1)));
    assert_eq!(status(&over).map(|_| ()), Err(431));
}

#[test]
fn keep_alive_as_each_version_has_it() {
    let kept = |version: &str, fields: &str| {
        let head = format!("GET /health HTTP/{version}\r\nHost: a\r\n{fields}\r\n");
        status(head.as_bytes()).unwrap().keep_alive
    };
    assert!(kept("1.1", ""));
    assert!(!kept("1.1", "Connection: close\r\n"));
    assert!(!kept("1.1", "Connection: x, CLOSE\r\n"));
    assert!(!kept("1.0", ""));
    assert!(kept("1.0", "Connection: Keep-Alive\r\n"));
}

#[test]
fn a_repeated_field_has_no_single_value() {
    let head = status(&with(
        "Range: bytes=0-1\r\nRange: \u{e9}\r\nIf-Range: x\r\nAccept: a\r\nAccept: text/HTML;q=1\r\n",
    ))
    .unwrap();
    assert_eq!((head.field(Field::Range), head.field(Field::IfRange)), (None, Some("x")));
    assert!(head.prefers_html());
}

#[test]
fn forwarded_entries_come_nearest_first_whatever_their_bytes() {
    let mut bytes = with("");
    bytes.truncate(bytes.len() - 2);
    bytes.extend(b"X-Forwarded-For: \xff, a\r\nX: y\r\nx-forwarded-for: b,,c\r\n\r\n");
    let head = status(&bytes).unwrap();
    let entries: Vec<&[u8]> = head.forwarded().map(<[u8]>::trim_ascii).collect();
    assert_eq!(entries, [b"c".as_slice(), b"", b"b", b"a", b"\xff"]);
}

/// One byte at a time, a head must come to the same end as in one piece.
fn drip(bytes: &[u8]) -> Screened {
    for end in 1..=bytes.len() {
        match screen(&bytes[..end], end - 1, Place::Public) {
            Screened::Incomplete => {}
            done => return done,
        }
    }
    Screened::Incomplete
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000), seen in 0usize..2000) {
        let _ = screen(&bytes, seen.min(bytes.len()), Place::Public);
    }

    #[test]
    fn nearly_http_never_panics_and_what_passes_is_clean(
        method in "(GET|HEAD|OPTIONS|POST|[A-Z]{1,4})",
        target in "(/download/file|/|\\*|http://)[ -~]{0,30}",
        fields in prop::collection::vec("(Host|Content-Length|Transfer-Encoding|Expect|Connection|X)[ ]?:[ -~]{0,12}(\r\n|\n|\r\n )", 0..6),
    ) {
        let bytes = format!("{method} {target} HTTP/1.1\r\nHost: a\r\n{}\r\n", fields.concat());
        if let Screened::Ready(head, length) = screen(bytes.as_bytes(), 0, Place::Public) {
            prop_assert!(length <= bytes.len());
            prop_assert!(head.query.bytes().all(|byte| (0x21..=0x7e).contains(&byte)));
        }
    }

    #[test]
    fn slow_bytes_come_to_the_same_end(fields in prop::collection::vec("[A-Za-z]{1,5}: [ -~]{0,9}\r?\n", 0..4), lead in "(\r\n){0,2}") {
        let bytes = format!("{lead}GET /health HTTP/1.1\r\nHost: a\r\n{}\r\n", fields.concat());
        match (screen(bytes.as_bytes(), 0, Place::Public), drip(bytes.as_bytes())) {
            (Screened::Ready(_, a), Screened::Ready(_, b)) => prop_assert_eq!(a, b),
            (Screened::Refused(_, a), Screened::Refused(_, b)) => prop_assert_eq!(a.status(), b.status()),
            (Screened::Incomplete, Screened::Incomplete) => {}
            (whole, dripped) => prop_assert!(false, "{whole:?} {dripped:?}"),
        }
    }
}

#[test]
fn each_place_knows_its_own_paths_and_control_alone_has_bodies() {
    let route = |head: &str, place| match screen(head.as_bytes(), 0, place) {
        Screened::Ready(head, length) => Ok((head.route, head.body, length)),
        Screened::Refused(_, refusal) => Err(refusal),
        Screened::Incomplete => panic!("{head:?}"),
    };
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: n\r\n\r\n");
    for path in ["/status", "/metrics", "/revoke", "/api/deauthorize-user", "/%73tatus"] {
        let (found, ..) = route(&get(path), Place::Control).unwrap();
        assert!(matches!(found, Route::Control(_)), "{path}");
        assert_eq!(route(&get(path), Place::Public).unwrap().0, Route::Unknown, "{path}");
    }
    for path in ["/download/file?token=a", "/download/backup", "/health", "/status/", "/"] {
        assert_eq!(route(&get(path), Place::Control).unwrap().0, Route::Unknown, "{path}");
    }
    let post = |path: &str, length: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: n\r\nContent-Length: {length}\r\n\r\n")
    };
    let head = post("/revoke", "5");
    let expected = (Route::Control(Control::Revoke), 5, head.len());
    assert_eq!(route(&head, Place::Control), Ok(expected));
    assert_eq!(route(&head, Place::Public), Err(Refusal::UnknownPath));
    for length in ["16385", "99999999999999999999"] {
        assert_eq!(route(&post("/revoke", length), Place::Control), Err(Refusal::BodyTooLong));
    }
    assert_eq!(route(&post("/nothing", "1"), Place::Control), Err(Refusal::UnknownPath));
    let secret = "GET /status HTTP/1.1\r\nHost: n\r\nAuthorization: Bearer x\r\n\r\n";
    for (place, kept) in [(Place::Public, None), (Place::Control, Some("Bearer x"))] {
        let Screened::Ready(head, _) = screen(secret.as_bytes(), 0, place) else { panic!() };
        assert_eq!(head.field(Field::Authorization), kept);
    }
}
