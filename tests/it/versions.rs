//! A file that changes under its link: two versions are never joined.

use std::fs;
use std::process::{Command, Output};
use std::time::Duration;

use crate::client::Client;
use crate::clients::Download;
use crate::delivery::{node, range};
use crate::harness::have;
use crate::mint::Token;
use crate::proxy::{Cut, Plan, Proxy};

const MIB: usize = 1 << 20;

/// A file that was rewritten twice within a second has one date for two versions, and one from the
/// future has none.
#[test]
fn a_date_is_no_validator_where_the_server_knows_better() {
    let (node, content) = node(1000);
    let server = node.start();
    let target = Token::file("file").target();
    let mut client = Client::connect(server.address());
    let old = client.get_with(&target, &range(0, 600));
    let (date, tag) = (old.field("Last-Modified").unwrap(), old.field("ETag").unwrap());
    let path = node.volume().join("file");
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    let changed: Vec<u8> = content.iter().rev().copied().collect();
    node.file("new", &changed);
    let file = fs::File::open(node.volume().join("new")).unwrap();
    file.set_modified(time).unwrap();
    fs::rename(node.volume().join("new"), &path).unwrap();
    let new = client.get_with(&target, &format!("{}If-Range: {date}\r\n", range(600, 1000)));
    assert_eq!((new.status, new.body), (200, changed.clone()));
    // Two lines that differ say nothing.
    let target = Token::file("file").target();
    let new_tag = client.get_with(&target, &range(0, 1)).field("ETag").unwrap().to_owned();
    let both = format!("{}If-Range: {new_tag}\r\nIf-Range: {tag}\r\n", range(600, 1000));
    assert_eq!(client.get_with(&target, &both).status, 200);
    file.set_modified(time + Duration::from_secs(100_000)).unwrap();
    let target = Token::file("file").target();
    let part = client.get_with(&target, &range(0, 600));
    let date = part.field("Last-Modified").unwrap();
    assert_eq!(part.field("Date"), Some(date), "{}", part.raw);
    let rest = format!("{}If-Unmodified-Since: {date}\r\n", range(600, 1000));
    assert_eq!(client.get_with(&target, &rest).status, 206);
}

/// wget's own retry names no version. It took the whole of the changed file, appended its tail to the
/// old half, and exited with 0.
#[test]
fn wget_joins_no_two_versions() {
    if !have("wget") {
        return;
    }
    const LENGTH: usize = 4 * MIB;
    let (node, content) = node(LENGTH);
    let server = node.start();
    let target = Token::file("file").target();
    let changed: Vec<u8> = content.iter().rev().copied().collect();
    let (volume, address, link) = (node.volume(), server.address(), target.clone());
    let new = changed.clone();
    let before = Box::new(move |number: usize| {
        if number == 1 {
            fs::write(volume.join("new"), &new).unwrap();
            fs::rename(volume.join("new"), volume.join("file")).unwrap();
            // Another client of the link fetches the new version whole, in parts.
            let mut other = Client::connect(address);
            for part in [0..LENGTH / 2, LENGTH / 2..LENGTH] {
                let fields = range(part.start, part.end);
                let tag = other.get_with(&link, &range(0, 1)).field("ETag").unwrap().to_owned();
                let answer = other.get_with(&link, &format!("{fields}If-Match: {tag}\r\n"));
                assert!(answer.status == 206 && answer.body == new[part]);
            }
        }
    });
    let plan = Plan { cuts: vec![Cut::Reset(LENGTH / 2)], before, ..Plan::default() };
    let proxy = Proxy::with(address, plan);
    let download = Download::new();
    let mut wget = Command::new("wget");
    wget.args(["--tries=3", "--waitretry=1", "--no-hsts", "-O"]).arg(download.path());
    let Output { status, stderr, .. } = wget.arg(proxy.base() + &target).output().unwrap();
    let said = String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(8), "{said}");
    assert!(said.contains("412"), "{said}");
    assert!(content.starts_with(&download.content()));
}
