//! What people see: pages that say what to do, and the landing page of a link.

use std::process::Command;

use crate::client::{Answer, Client, get};
use crate::harness::{KEY, Node, OTHER_SERVER, SERVER, Server, have};
use crate::mint::{Token, now};

const BROWSER: &str = "Accept: text/html,application/xhtml+xml;q=0.9,*/*;q=0.8\r\n";

fn ask(server: &Server, target: &str) -> Answer {
    Client::connect(server.address()).get_with(target, BROWSER)
}

/// Every page is self-contained, without script, strict, not indexed, and tells no secrets.
fn check_page(node: &Node, answer: &Answer) -> String {
    assert_eq!(answer.field("Content-Type"), Some("text/html; charset=utf-8"), "{}", answer.raw);
    let policy = answer.field("Content-Security-Policy").unwrap();
    for directive in ["default-src 'none';", "base-uri 'none';", "frame-ancestors 'none'"] {
        assert!(policy.contains(directive), "{policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains("script-src"), "{policy}");
    assert_eq!(answer.field("X-Robots-Tag"), Some("noindex"));
    assert_eq!(answer.field("Cache-Control"), Some("no-store"));
    assert_eq!(answer.field("Referrer-Policy"), Some("no-referrer"));
    let text = answer.text();
    for wrong in ["<script", "src=", "style=\"", "http-equiv", "volumes", KEY, "os error"] {
        assert!(!text.contains(wrong), "{wrong:?} in {text}");
    }
    assert!(!text.contains(&node.path().display().to_string()));
    text
}

/// Links that are refused, with the words of their page.
fn refused(server: &Server) -> [(Token, u16, &'static str); 6] {
    let used = Token::file("a");
    assert_eq!(get(server.address(), &used.target()).status, 200);
    server.wait_for_log("delivered");
    let bound = Token::file("a");
    let mut elsewhere = Client::connect_from("127.0.0.9", server.address());
    assert_eq!(elsewhere.get_with(&bound.target(), "Range: bytes=0-499999\r\n").status, 206);
    let missing = Token::backup().with("backup_uuid", OTHER_SERVER);
    [
        (used, 401, "<h1>This link was already used</h1>"),
        (bound, 503, "It works where the download was begun, and elsewhere once that has stopped"),
        (Token::file("a").with("exp", now() - 1), 401, "<h1>This link has expired</h1>"),
        (Token::file("a").signed_with(b"another key of good length"), 401, "does not work"),
        (Token::file("secret-name"), 404, "This file does not exist"),
        (missing, 404, "It may be stored elsewhere"),
    ]
}

fn node() -> Node {
    let node = Node::new();
    node.file("a", &[b'a'; 1_000_000]);
    node
}

#[test]
fn a_person_is_told_what_to_do_in_the_panel() {
    let node = node().top_level("remote: https://panel.example/");
    let server = node.start();
    for (token, status, words) in refused(&server) {
        let answer = ask(&server, &token.target());
        assert_eq!(answer.status, status, "{}", answer.raw);
        let vary: Vec<_> = answer.fields.iter().filter(|(name, _)| name == "Vary").collect();
        assert_eq!(vary.len(), 2, "{}", answer.raw);
        let text = check_page(&node, &answer);
        assert!(text.contains(words), "{words:?} not in {text}");
        assert!(text.contains("<a href=\"https://panel.example\">"), "{text}");
        assert!(text.contains("panel and press Download") || text.contains("panel, reload"));
        assert!(text.contains(answer.field("X-Request-Id").unwrap()));
    }
}

#[test]
fn without_a_panel_a_person_is_told_to_ask_for_another_link() {
    let node = node();
    let server = node.start();
    for (token, status, words) in refused(&server) {
        let answer = ask(&server, &token.target());
        assert_eq!((answer.status, answer.field("Vary")), (status, Some("Accept")));
        let text = check_page(&node, &answer);
        assert!(text.contains(words), "{words:?} not in {text}");
        let remedy = match status {
            503 => "wait ten seconds and try the same link again.",
            _ => "sk whoever sent you the link for a new one.",
        };
        assert!(text.contains(remedy), "{text}");
        assert!(!text.contains("anel") && !text.contains("<a "), "{text}");
    }
}

/// The two ways in which a link can be used already are told apart in JSON too.
#[test]
fn in_use_elsewhere_and_already_used_are_two_messages() {
    let node = node();
    let server = node.start();
    let [(used, ..), (bound, ..), ..] = refused(&server);
    assert!(get(server.address(), &used.target()).text().contains("this link was already used"));
    let text = get(server.address(), &bound.target()).text();
    assert!(text.contains("in use from another address; it works where"), "{text}");
}

/// Where the button of a landing page leads, as a browser resolves it.
fn button(page: &str, target: &str) -> String {
    let link = page.split("href=\"").nth(1).unwrap().split('"').next().unwrap();
    let path = target.split('?').next().unwrap();
    format!("{path}{}", link.replace("&amp;", "&"))
}

#[test]
fn a_landing_page_spends_nothing_and_its_button_downloads() {
    for reuse in ["once", "resume", "unlimited"] {
        let node = node().winglet(&format!("reuse: {reuse}"));
        node.backup(&[b'b'; 1234]);
        let server = node.start();
        let table = [
            (Token::file("a"), "<h1>a</h1>", "1.0 MB.", 1_000_000),
            (Token::backup(), ".tar.gz</h1>", "1.2 kB.", 1234),
        ];
        for (token, name, size, length) in table {
            let target = format!("{}&x=1&page", token.target());
            // Previews from other addresses, in every way that they ask.
            for (source, fields) in [
                ("127.0.0.2", ""),
                ("127.0.0.3", BROWSER),
                ("127.0.0.4", "Range: bytes=0-0\r\n"),
                ("127.0.0.5", "If-None-Match: *\r\n"),
            ] {
                let mut preview = Client::connect_from(source, server.address());
                let answer = preview.get_with(&target, fields);
                assert_eq!(answer.status, 200, "{}", answer.raw);
                let page = check_page(&node, &answer);
                assert!(page.contains(name) && page.contains(size), "{page}");
                assert!(page.contains("The link works for another 1"), "{page}");
                preview.request("HEAD", &target, fields);
                let head = preview.bodiless_answer();
                assert_eq!((head.status, head.length()), (200, answer.length()));
            }
            let page = ask(&server, &target).text();
            let button = button(&page, &target);
            assert_eq!(button, format!("{}&x=1", token.target()));
            let answer = get(server.address(), &button);
            assert_eq!((answer.status, answer.body.len()), (200, length));
        }
        server.wait_for_logs(2, " delivered");
    }
}

/// What chats show of a link, they ask for under their own names.
#[test]
fn a_preview_gets_the_page_of_any_valid_link() {
    let node = node().winglet("reuse: once");
    node.file("world/\"b\"", b"content");
    let server = node.start();
    let agents = [
        "Mozilla/5.0 (compatible; Discordbot/2.0; +https://discordapp.com)",
        "WhatsApp/2.23.20.0",
        "TelegramBot (like TwitterBot)",
        "Mastodon/4.2.0 (http.rb/5.1.1; +https://mastodon.example/)",
    ];
    for token in [Token::file("world/\"b\""), Token::directory("world")] {
        let file = token.endpoint() == "file";
        for (number, agent) in agents.iter().enumerate() {
            let source = format!("127.0.0.{}", number + 2);
            let mut preview = Client::connect_from(&source, server.address());
            let fields = format!("User-Agent: {agent}\r\n");
            let page = check_page(&node, &preview.get_with(&token.target(), &fields));
            let name = if file { "&quot;b&quot;" } else { "world.zip" };
            let title = format!("<meta property=\"og:title\" content=\"{name}\">");
            assert!(page.contains(&title), "{page}");
            let size = if file { "7 bytes, until " } else { " bytes, until " };
            assert!(page.contains("property=\"og:description\"") && page.contains(size), "{page}");
            assert!(page.contains(" UTC\">"), "{page}");
            assert_eq!(button(&page, &token.target()), token.target());
        }
        let person = get(server.address(), &token.target());
        assert_eq!(person.status, 200);
        assert!(person.field("Content-Disposition").is_some(), "{}", person.raw);
    }
    let expired = Token::file("a").with("exp", now() - 1);
    let fields = format!("User-Agent: {}\r\n", agents[0]);
    assert_eq!(Client::connect(server.address()).get_with(&expired.target(), &fields).status, 401);
    // A person's browser inside such a program downloads.
    let inside = "User-Agent: Mozilla/5.0 AppleWebKit/537.36 discord/1.0.9 Electron/22\r\n";
    let answer = Client::connect(server.address()).get_with(&Token::file("a").target(), inside);
    assert!(answer.field("Content-Disposition").is_some(), "{}", answer.raw);
}

#[test]
fn a_prefetch_spends_nothing() {
    let node = node().winglet("reuse: once");
    let server = node.start();
    let token = Token::file("a");
    for fields in [
        "Sec-Purpose: prefetch\r\n",
        "Sec-Purpose: prefetch;prerender\r\nPurpose: prefetch\r\n",
        "Purpose: prefetch\r\n",
        "X-Moz: prefetch\r\n",
    ] {
        let mut client = Client::connect(server.address());
        let answer = client.get_with(&token.target(), fields);
        assert_eq!(answer.status, 503, "{fields}");
        assert!(answer.field("Retry-After").is_some(), "{}", answer.raw);
        let line = server.wait_for_log(&format!("id={}", answer.field("X-Request-Id").unwrap()));
        assert!(line.contains("a prefetch"), "{line}");
    }
    assert_eq!(get(server.address(), &token.target()).status, 200);
}

#[test]
fn a_link_that_does_not_work_has_no_landing_page() {
    let node = node();
    let server = node.start();
    for (token, status, words) in refused(&server) {
        let answer = ask(&server, &format!("{}&page=1", token.target()));
        assert_eq!(answer.status, status, "{}", answer.raw);
        assert!(check_page(&node, &answer).contains(words));
    }
}

#[test]
fn sign_prints_links_to_the_landing_page() {
    let node = node();
    let server = node.start();
    let arguments = ["sign", "file", "--server", SERVER, "--path", "a", "--page"];
    let signed = node.run(&[&arguments[..], &["--base-url", "http://node"]].concat());
    let url = String::from_utf8(signed.stdout).unwrap();
    let target = url.trim_end().strip_prefix("http://node").unwrap();
    assert!(check_page(&node, &ask(&server, target)).contains("<h1>a</h1>"), "{url}");
}

#[test]
fn a_text_browser_shows_the_landing_page() {
    if !have("lynx") {
        return;
    }
    let node = node().top_level("remote: https://panel.example");
    let server = node.start();
    let url = format!("{}{}&page", server.base(), Token::file("a").target());
    let lynx = Command::new("lynx").args(["-dump", "-width=80", &url]).output().unwrap();
    let text = String::from_utf8_lossy(&lynx.stdout).into_owned();
    assert!(text.contains("1.0 MB. The link works for another 1"), "{text}");
    assert!(text.contains("]Download\n") && !text.contains("color-scheme"), "{text}");
}
