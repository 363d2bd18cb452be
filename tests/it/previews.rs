//! Previews of chats and scanners: whoever only peeks leaves the link to the person.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Answer, Client, connect_from};
use crate::delivery::node;
use crate::harness::PATIENCE;
use crate::mint::Token;

const LENGTH: usize = 2 << 20;
/// Who has acknowledged less than this has only peeked.
const PEEK: usize = 256 << 10;

fn first(bytes: usize) -> String {
    format!("Range: bytes=0-{}\r\n", bytes - 1)
}

/// Asks from `source`, as soon as the one before it has acknowledged its own bytes.
fn ask(source: &str, address: SocketAddr, target: &str, fields: &str) -> (Client, Answer) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut client = Client::connect_from(source, address);
        let answer = client.get_with(target, fields);
        if answer.status != 503 || Instant::now() > deadline {
            return (client, answer);
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// A connection from `source` that has fetched the first `bytes`.
fn preview(source: &str, address: SocketAddr, target: &str, bytes: usize) -> Client {
    let (client, answer) = ask(source, address, target, &first(bytes));
    assert_eq!(answer.status, 206, "{source}: {}", answer.text());
    client
}

fn head(source: &str, address: SocketAddr, target: &str) -> Client {
    let mut client = Client::connect_from(source, address);
    client.request("HEAD", target, "");
    assert_eq!(client.bodiless_answer().status, 200, "{source}");
    client
}

/// A GET that is cut before `PEEK` bytes have come.
fn cut(source: &str, address: SocketAddr, target: &str) {
    // As soon as the one before it has acknowledged its own bytes.
    drop(preview(source, address, target, 1));
    let mut client = Client::over(connect_from(source, address, Some(2048)));
    client.request("GET", target, "");
    assert_eq!(client.head().unwrap().status, 200);
    let mut other = Client::connect_from("127.0.0.99", address);
    assert_eq!(other.get(target).status, 503, "something is on its way");
    client.read_some(20_000);
    client.reset();
}

#[test]
fn each_leaves_the_link_to_the_person() {
    let (node, content) = node(LENGTH);
    let server = node.start();
    let address = server.address();
    type Preview = fn(SocketAddr, &str) -> Vec<Client>;
    let previews: [(&str, Preview); 6] = [
        ("HEAD", |address, target| {
            drop(head("127.0.0.2", address, target));
            Vec::new()
        }),
        ("0-0", |address, target| {
            drop(preview("127.0.0.2", address, target, 1));
            Vec::new()
        }),
        ("64 KiB", |address, target| {
            drop(preview("127.0.0.2", address, target, 64 << 10));
            Vec::new()
        }),
        ("cut", |address, target| {
            cut("127.0.0.2", address, target);
            Vec::new()
        }),
        ("kept alive", |address, target| vec![preview("127.0.0.2", address, target, 64 << 10)]),
        ("several", |address, target| {
            let asked = head("127.0.0.2", address, target);
            let kept = preview("127.0.0.3", address, target, 1);
            drop(preview("127.0.0.4", address, target, 64 << 10));
            cut("127.0.0.5", address, target);
            vec![asked, kept, preview("127.0.0.6", address, target, 64 << 10)]
        }),
    ];
    for (number, (name, preview)) in previews.into_iter().enumerate() {
        let target = Token::file("file").target();
        let kept = preview(address, &target);
        let (person, answer) = ask("127.0.0.7", address, &target, "");
        assert!(answer.status == 200 && answer.body == content, "{name}: {}", answer.raw);
        drop(person);
        server.wait_for_logs(number + 1, "bytes=2097152/2097152 link=2097152/2097152");
        for source in ["127.0.0.2", "127.0.0.7"] {
            let mut again = Client::connect_from(source, address);
            assert_eq!(again.get(&target).status, 401, "{name}: {source}");
        }
        drop(kept);
    }
}

#[test]
fn who_has_more_than_a_peek_is_not_robbed() {
    let (node, content) = node(LENGTH);
    let node = node.with_state();
    let server = node.start();
    let token = Token::file("file");
    let target = token.target();
    let explained = || {
        let output = node.run(&["explain", &token.sign(), "--from", "127.0.0.2"]);
        String::from_utf8(output.stdout).unwrap()
    };
    let mut person = preview("127.0.0.1", server.address(), &target, PEEK - 1);
    drop(person);
    server.wait_for_log("delivered");
    assert!(explained().contains("it would be served"), "{}", explained());
    person = Client::connect(server.address());
    assert_eq!(person.get_with(&target, "Range: bytes=262143-262143\r\n").status, 206);
    server.wait_until("the last byte", |_| explained().contains("in use from another address"));
    let mut stranger = Client::connect_from("127.0.0.2", server.address());
    let refused = stranger.get(&target);
    assert_eq!(refused.status, 503);
    assert!(refused.text().contains("in use from another address"), "{}", refused.text());
    let rest = person.get_with(&target, "Range: bytes=262144-\r\n");
    assert!(rest.body == content[PEEK..]);
}

#[test]
fn twenty_addresses_that_take_turns_stay_within_the_budget() {
    const PART: usize = 255 << 10;
    let (node, _) = node(LENGTH);
    let server = node.start();
    let target = Token::file("file").target();
    let budget = 3 * LENGTH + (64 << 20);
    let mut bytes = 0;
    let deadline = Instant::now() + PATIENCE;
    'turns: loop {
        for number in 2..22 {
            let mut client = Client::connect_from(&format!("127.0.0.{number}"), server.address());
            client.request("GET", &target, &first(PART));
            match client.try_answer() {
                Ok(answer) if answer.status == 206 => bytes += PART,
                Ok(answer) if answer.text().contains("in use from another address") => {
                    assert!(Instant::now() < deadline, "refused after {bytes} bytes");
                    thread::sleep(Duration::from_millis(5));
                }
                // Used up, or cut where the budget ends.
                _ => break 'turns,
            }
            assert!(bytes <= budget, "{bytes} of {budget}");
        }
    }
    println!("{bytes} of {budget} bytes");
    assert!(bytes > budget / 2, "{bytes} of {budget}");
    assert_eq!(Client::connect(server.address()).get(&target).status, 401);
}
