//! A disk that stands still holds its own requests, and nobody else's.

use std::thread;

use crate::client::{Client, get};
use crate::harness::Node;
use crate::mint::Token;
use crate::stalled::Stalled;

#[test]
fn a_stalled_disk_holds_its_own_requests_only() {
    // The sandbox knows the directories as they were at the start, without what is mounted later.
    let node = Node::new()
        .winglet("threads: 4\nsandbox: false\ntimeouts: { queue: 1s }\ncontrol: unix:control.sock");
    node.file("file", b"file");
    node.backup(b"backup");
    let mut server = node.start();
    server.may_log_errors();
    let address = server.address();
    let Some(volumes) = Stalled::over(node.volume().parent().unwrap()) else { return };
    thread::scope(|scope| {
        let stuck: Vec<_> = (1..=8)
            .map(|host| {
                let mut client = Client::connect_from(&format!("127.0.0.{host}"), address);
                client.request("GET", &Token::file("file").target(), "");
                scope.spawn(move || client.answer().status)
            })
            .collect();
        // What found no worker is told so; two are left for the other directory.
        server.wait_for_logs(6, "refused: queue: no worker became free in time");
        for _ in 0..20 {
            assert_eq!(get(address, &Token::backup().target()).body, b"backup");
            assert_eq!(get(address, "/health").status, 200);
        }
        let backups = Stalled::over(&node.backups()).unwrap();
        let stuck_too: Vec<_> = (11..=14)
            .map(|host| {
                let mut client = Client::connect_from(&format!("127.0.0.{host}"), address);
                client.request("GET", &Token::backup().target(), "");
                scope.spawn(move || client.answer().status)
            })
            .collect();
        server.wait_until("health says so", |_| {
            let answer = get(address, "/health");
            answer.status == 503 && answer.text() == r#"{"status":"disk stalled"}"#
        });
        assert_eq!(get(address, &Token::backup().target()).status, 503);
        // Who wants to know why is told, and can act.
        server.wait_until("the status says so", |_| {
            let workers = &crate::control::status(&node)["workers"];
            (workers["busy"].as_u64(), workers["stuck"].as_bool()) == (Some(4), Some(true))
        });
        drop((volumes, backups));
        let statuses: Vec<u16> =
            stuck.into_iter().chain(stuck_too).map(|one| one.join().unwrap()).collect();
        // Who had found a worker may have been told of an error, or find what lies beneath.
        let is_told = |status: &u16| matches!(status, 200 | 404 | 500 | 503);
        assert!(statuses.iter().all(is_told), "{statuses:?}");
    });
    // The disk is back, and so is everything else.
    assert_eq!(get(address, &Token::file("file").target()).body, b"file");
    assert_eq!(get(address, "/health").status, 200);
}
