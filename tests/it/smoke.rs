//! The shortest way through everything.

use crate::client::{Client, get};
use crate::harness::{Node, pattern};
use crate::mint::Token;

#[test]
fn a_file_and_a_backup_arrive_whole_and_once() {
    let node = Node::new();
    let (file, backup) = (pattern(100_000), pattern(300_000));
    node.file("logs/latest.log", &file);
    node.backup(&backup);
    let server = node.start();
    let links = [(Token::file("logs/latest.log"), &file), (Token::backup(), &backup)];
    for (count, (token, content)) in (1..).zip(links) {
        let mut client = Client::connect(server.address());
        let answer = client.get(&token.target());
        assert_eq!(answer.status, 200, "{}", answer.raw);
        assert!(answer.body == *content);
        drop(client);
        server.wait_for_logs(count, "delivered");
        let again = get(server.address(), &token.target());
        assert_eq!((again.status, again.text().contains("already used")), (401, true));
    }
}
