//! The Panels that people run, each as it mints its links and as it takes them back: every endpoint
//! through all of them.

use std::fs;

use serde_json::json;

use crate::client::{Answer, Client, get};
use crate::control::{bearer, exchange, request, status_of};
use crate::harness::{BACKUP, KEY, Node, OTHER_SERVER, SERVER, Server, pattern};
use crate::mint::{MD5_JTI, Panel, Token, USER};

const LENGTH: usize = 300_000;
/// What a link that names a folder gets, and what one gets that names some of it.
const FORMATS: [&str; 2] = ["zip", "tar"];

/// A node with something at each endpoint, and a control socket for the Panel's calls.
fn node() -> Node {
    let node = Node::new().with_state().winglet("control: unix:control.sock");
    node.file("world/level.dat", &pattern(LENGTH));
    node.file("world/region/r.0.0.mca", &pattern(LENGTH));
    // As Calagopus' links find it, and everybody else's.
    fs::write(node.backups().join(format!("{BACKUP}.tar.gz")), pattern(LENGTH)).unwrap();
    node
}

/// A fresh link of `panel` for each endpoint, folders in both formats.
fn links(panel: Panel) -> Vec<(String, Token, &'static str)> {
    let mut links = vec![
        ("file".to_owned(), panel.file("world/level.dat"), ""),
        ("backup".to_owned(), panel.backup(), ""),
    ];
    for format in FORMATS {
        let fresh = [panel.directory("world"), panel.files("world", &["level.dat", "region"])];
        links.extend(fresh.map(|token| (format!("{format} {}", token.endpoint()), token, format)));
    }
    links
}

fn target(token: &Token, format: &str) -> String {
    match format {
        "" => token.target(),
        format => format!("{}&archive_format={format}", token.target()),
    }
}

fn head(server: &Server, target: &str) -> Answer {
    let mut client = Client::connect(server.address());
    client.request("HEAD", target, "");
    client.bodiless_answer()
}

/// Calls the control listener as a Panel does, through whatever proxy is in front.
fn call(node: &Node, path: &str, body: &str) -> u16 {
    let fields = format!("{}Content-Type: application/json\r\n", bearer(KEY));
    status_of(&exchange(node, &request("POST", path, &fields, body)))
}

#[test]
fn every_endpoint_serves_the_links_of_every_panel() {
    let node = node();
    let server = node.start();
    let mut delivered = 0;
    for panel in Panel::ALL {
        for (name, token, format) in links(panel) {
            let target = target(&token, format);
            let asked = head(&server, &target);
            assert_eq!(asked.status, 200, "{panel:?} {name}: {}", asked.raw);
            let length = usize::try_from(asked.length().unwrap()).unwrap();
            let mut cut = Client::connect(server.address());
            let first = cut.get_part(&target, "", length / 2);
            drop(cut);
            let range = format!("Range: bytes={}-\r\n", length / 2);
            let validator = format!("If-Range: {}\r\n", asked.field("ETag").unwrap());
            let mut client = Client::connect(server.address());
            let rest = client.get_with(&target, &(range + &validator));
            assert_eq!((first.status, rest.status), (200, 206), "{panel:?} {name}: {}", rest.raw);
            let whole = [first.body, rest.body].concat();
            if format.is_empty() {
                assert!(whole == pattern(LENGTH), "{panel:?} {name}");
            } else {
                let end = format!(".{format}\"");
                assert!(asked.field("Content-Disposition").unwrap().ends_with(&end), "{name}");
                assert!(whole.len() == length && length > LENGTH, "{panel:?} {name}");
            }
            delivered += 1;
            drop(client);
            server.wait_for_logs(delivered, " part delivered");
        }
    }
}

#[test]
fn what_each_panel_calls_ends_the_links_of_that_user_on_that_server() {
    for panel in Panel::ALL {
        let node = node();
        let server = node.start();
        let links = links(panel);
        let status = |link: &(String, Token, &str)| head(&server, &target(&link.1, link.2)).status;
        let elsewhere = OTHER_SERVER;
        let (path, body) = panel.revocation();
        let other_user = body.replace(USER, elsewhere).replace(MD5_JTI, &MD5_JTI.replace('d', "e"));
        assert_eq!(call(&node, &path, &other_user), 204, "{path} {other_user}");
        for link in &links {
            assert_eq!(status(link), 200, "{panel:?} {}", link.0);
        }
        let (other_path, other_body) =
            (path.replace(SERVER, elsewhere), body.replace(SERVER, elsewhere));
        assert_eq!(call(&node, &other_path, &other_body), 204, "{other_path} {other_body}");
        for link in &links {
            // One that names no server may be for any.
            let ended = panel == Panel::Calagopus && link.0 == "backup";
            assert_eq!(status(link), if ended { 401 } else { 200 }, "{panel:?} {}", link.0);
        }
        assert_eq!(call(&node, &path, &body), 204, "{panel:?}");
        for link in &links {
            assert_eq!(status(link), 401, "{panel:?} {}", link.0);
        }
        assert!(get(server.address(), &links[0].1.target()).text().contains("was revoked"));
        // A new link works once the Panel gives one: it never does so for who may no longer.
        let later = panel.file("world/level.dat").with("iat", crate::mint::now() + 120);
        assert_eq!(head(&server, &later.target()).status, 200, "{panel:?}");
    }
}

#[test]
fn the_operator_can_name_the_user_of_every_panel() {
    for panel in Panel::ALL {
        let node = node();
        let server = node.start();
        let token = panel.file("world/level.dat");
        assert_eq!(head(&server, &token.target()).status, 200);
        let output = node.run(&["revoke", "--config", "config.yml", "--user", USER]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(head(&server, &token.target()).status, 401, "{panel:?}");
    }
}

#[test]
fn an_order_that_is_refused_is_in_the_log() {
    let node = node();
    let server = node.start();
    for (path, body) in [
        ("/api/deauthorize-user", json!({"user": USER, "servers": "all"})),
        ("/api/deauthorize-user", json!({"json": {"user": USER, "servers": ["x"]}})),
        ("/api/servers/8d1f3c52-6a0e-4a7b-9f3e-2c5b7e1a9d40/ws/deny", json!({"jti": USER})),
    ] {
        assert_eq!(call(&node, path, &body.to_string()), 400, "{path} {body}");
    }
    let lines = server.wait_for_logs(2, "orders: /api/deauthorize-user refused with 400: the body");
    assert!(lines[0].contains(" WARN "), "{}", lines[0]);
    server.wait_for_log("orders: /api/servers/…/ws/deny refused with 400: the body");
    let unknown = format!("/api/servers/{SERVER}x/ws/deny");
    assert_eq!(call(&node, &unknown, "{}"), 404);
    let (path, body) = Panel::Pelican.revocation();
    let unsigned = exchange(&node, &request("POST", &path, "", &body));
    assert_eq!(status_of(&unsigned), 401);
    server.wait_for_log("orders: /api/deauthorize-user refused with 401");
}

#[test]
fn a_backup_without_a_server_is_found_in_the_directory_of_all() {
    let node = Node::new();
    let mine = node.backup(b"in the server's directory");
    let server = node.start();
    assert_eq!(get(server.address(), &Panel::Calagopus.backup().target()).status, 404);
    assert_eq!(get(server.address(), &Panel::Pelican.backup().target()).status, 200);
    fs::remove_file(mine).unwrap();
    for name in [format!("{BACKUP}.tar.gz"), format!("backup-{BACKUP}.tar.gz")] {
        let path = node.backups().join(name);
        fs::write(&path, b"content").unwrap();
        let answer = get(server.address(), &Panel::Calagopus.backup().target());
        assert_eq!((answer.status, answer.body.as_slice()), (200, b"content".as_slice()));
        fs::remove_file(path).unwrap();
    }
    server.wait_for_logs(2, &format!(" GET backup 200 backup={BACKUP} bytes=7/7 "));
}

#[test]
fn the_backup_of_a_database_is_refused_with_its_reason_in_the_log() {
    let node = node();
    let server = node.start();
    let with = |database: serde_json::Value| Panel::Calagopus.backup().with("database", database);
    for token in [with(json!(true)), with(json!("postgres")), with(json!(1))] {
        let answer = get(server.address(), &token.target());
        assert_eq!(answer.status, 401, "{}", token.claims);
        let line = server.wait_for_log(&format!("id={}", answer.field("X-Request-Id").unwrap()));
        assert!(line.contains("token is for the backup of a database"), "{line}");
    }
    assert_eq!(get(server.address(), &with(json!(false)).target()).status, 200);
}

#[test]
fn every_tar_of_the_menu_is_a_plain_one() {
    let node = node();
    let server = node.start();
    let plain = get(server.address(), &target(&Panel::Calagopus.directory("world"), "tar"));
    for format in ["tar_gz", "tar_xz", "tar_lzip", "tar_bz2", "tar_lz4", "tar_zstd"] {
        let answer = get(server.address(), &target(&Panel::Calagopus.directory("world"), format));
        assert!(answer.status == 200 && answer.body == plain.body, "{format}: {}", answer.raw);
        let name = "attachment; filename=\"world.tar\"";
        assert_eq!(answer.field("Content-Disposition"), Some(name), "{format}");
    }
    for format in ["7z", "itaf", "itaf_gz", "tgz"] {
        let answer = get(server.address(), &target(&Panel::Calagopus.directory("world"), format));
        assert_eq!(answer.status, 400, "{format}");
        assert!(answer.text().contains("archive_format is zip or tar"), "{}", answer.text());
    }
    // Its links to files and backups say it, too.
    for token in [Panel::Calagopus.file("world/level.dat"), Panel::Calagopus.backup()] {
        let answer = get(server.address(), &target(&token, "tar_gz"));
        assert!(answer.status == 200 && answer.body == pattern(LENGTH));
    }
}

/// `count` names of 46 characters.
fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{number:0>42}.dat")).collect()
}

#[test]
fn as_many_files_can_be_chosen_as_a_head_has_room_for() {
    let node = node();
    let server = node.start();
    for name in names(180) {
        node.file(&format!("world/{name}"), name.as_bytes());
    }
    let of = |count| {
        let names = names(count);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        Panel::Calagopus.files("world", &names).target()
    };
    for count in [120, 180] {
        let answer = get(server.address(), &of(count));
        assert_eq!(answer.status, 200, "{count}: {}", answer.text());
    }
    for fields in ["", "Accept: text/html\r\n"] {
        let answer = Client::connect(server.address()).get_with(&of(400), fields);
        assert_eq!(answer.status, 414, "{}", answer.text());
        let said = if fields.is_empty() { "choose their folder" } else { "too long" };
        assert!(answer.text().contains(said), "{}", answer.text());
    }
    let long = Panel::Calagopus.file(&"x".repeat(7000)).target();
    for fields in ["", "Accept: text/html\r\n"] {
        let answer = Client::connect(server.address()).get_with(&long, fields);
        assert_eq!(answer.status, 414, "{}", answer.text());
        assert_eq!(answer.field("WWW-Authenticate"), None);
    }
    // What is long is the rest of the head.
    let field = format!("X-Y: {}\r\n", "x".repeat(16 << 10));
    let mut client = Client::connect(server.address());
    client.request("GET", &of(1), &field);
    assert_eq!(client.answer().status, 431);
}

#[test]
fn what_a_chat_appends_to_a_link_does_no_harm() {
    let node = node();
    let server = node.start();
    for after in [")", ",", ".", ">", ").", "...", "%20", "%0D%0A", "%3E", "%E2%80%9D", "]", "%22,"]
    {
        let target = Panel::Pelican.file("world/level.dat").target() + after;
        assert_eq!(get(server.address(), &target).status, 200, "{after}");
        let page = format!("{}&page{after}", Panel::Pelican.file("world/level.dat").target());
        let answer = get(server.address(), &page);
        assert!(answer.status == 200 && answer.text().contains("<h1>level.dat</h1>"), "{after}");
    }
    let target = Panel::Pelican.file("world/level.dat").target();
    let answer = get(server.address(), &format!("{target}&amp;page"));
    assert!(answer.text().contains("<h1>level.dat</h1>"), "{}", answer.raw);
    let answer = get(server.address(), &format!("/download/file?x&amp;{}", &target[15..]));
    assert_eq!(answer.status, 200, "{}", answer.raw);
}

#[test]
fn a_proxy_that_is_not_trusted_is_warned_of() {
    for (fields, said) in [
        ("X-Forwarded-For: 192.0.2.1\r\n", "127.0.0.1 sends X-Forwarded-For: if it is your proxy"),
        (
            "CF-Connecting-IP: 192.0.2.1\r\nX-Forwarded-For: 192.0.2.1\r\n",
            "127.0.0.1 sends CF-Connecting-IP, as Cloudflare does",
        ),
    ] {
        for trusted in [false, true] {
            let node = node();
            let node =
                if trusted { node.top_level("api: {trusted_proxies: [127.0.0.1]}") } else { node };
            let server = node.start();
            for _ in 0..3 {
                let target = Panel::Pelican.file("world/level.dat").target();
                let answer = Client::connect(server.address()).get_with(&target, fields);
                assert_eq!(answer.status, 200, "{}", answer.raw);
            }
            server.wait_for_logs(3, " delivered");
            let lines: Vec<_> = server
                .log()
                .lines()
                .filter(|line| line.contains(said) && line.contains("api.trusted_proxies"))
                .map(str::to_owned)
                .collect();
            assert_eq!(lines.len(), usize::from(!trusted), "{}", server.log());
        }
    }
}
