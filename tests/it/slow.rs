//! Slow clients: those that mean it are cut and cost nobody else anything, those that cannot do
//! better are served to the end.

use std::io::Read;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Client, connect_from};
use crate::crowd::Crowd;
use crate::harness::{Node, Server, descriptors_for, have, may_take, pattern};
use crate::mint::Token;

/// Waiting connections of the large attack.
const CROWD: usize = 5000;

/// Requests `target` and reads `rate` bytes a second in small steps, for `time` or to the end.
/// Returns the bytes that came, head included, and whether the server had hung up by then.
fn read_slowly(stream: &TcpStream, target: &str, rate: usize, time: Duration) -> (usize, bool) {
    const STEPS: u32 = 20;
    let mut client = Client::over(stream.try_clone().unwrap());
    client.request("GET", target, "");
    let mut piece = vec![0; rate / STEPS as usize];
    let (began, mut came) = (Instant::now(), 0);
    for step in 1u32.. {
        match Read::read(&mut &*stream, &mut piece) {
            Ok(0) | Err(_) => return (came, true),
            Ok(count) => came += count,
        }
        let due = Duration::from_secs(1) * step / STEPS;
        if due >= time {
            break;
        }
        thread::sleep(due.saturating_sub(began.elapsed()));
    }
    (came, false)
}

#[test]
fn slower_than_the_minimum_is_cut_and_ten_times_the_minimum_is_not() {
    let node = Node::new().winglet("min_rate: 20000\ntimeouts: { stall: 3s }");
    node.sparse("large", 64 << 20);
    let server = node.start();
    let read = |rate, seconds| {
        // On loopback a window opens only when the whole of a small buffer is free: it has to
        // be read within `stall` at both rates.
        let stream = connect_from("127.0.0.1", server.address(), Some(2300));
        let target = Token::file("large").target();
        read_slowly(&stream, &target, rate, Duration::from_secs(seconds))
    };
    thread::scope(|scope| {
        let below = scope.spawn(|| read(10_000, 30));
        let above = scope.spawn(|| read(200_000, 8));
        assert!(below.join().unwrap().1, "a reader below min_rate was never cut");
        let (came, ended) = above.join().unwrap();
        assert!(!ended, "a reader at ten times min_rate was cut after {came} bytes");
    });
    server.wait_for_log("interrupted: stall: slower than min_rate");
}

#[test]
fn a_reader_that_stops_is_cut() {
    let node = Node::new().winglet("threads: 1\ntimeouts: { stall: 1s }");
    let content = pattern(12 << 20);
    node.file("large", &content);
    node.file("small", b"small");
    let server = node.start();
    // Once while a worker still writes, and once when all is in the kernel's hands.
    for size in [content.len(), 50_000] {
        let stream = connect_from("127.0.0.2", server.address(), Some(4096));
        let mut stopped = Client::over(stream);
        let range = format!("Range: bytes=0-{}\r\n", size - 1);
        stopped.request("GET", &Token::file("large").target(), &range);
        assert_eq!(stopped.head().unwrap().status, 206);
        let mut next = Client::connect(server.address());
        assert_eq!(next.get(&Token::file("small").target()).text(), "small");
        server.wait_for_log(&format!("/{size} "));
        // It is closed now: what is still on the way ends.
        assert!(stopped.read_to_end().len() < size);
    }
    server.wait_for_logs(2, "interrupted: stall: nothing acknowledged in time");
}

/// The kernel's buffers hide a slow reader's progress from whoever watches writes only.
#[test]
fn a_slow_and_steady_reader_is_not_cut() {
    if !may_take("25 s") {
        return;
    }
    // On loopback a segment has 64 KiB, and the window opens in steps of that: every 3 s at this
    // rate.
    let node = Node::new().winglet("timeouts: { stall: 10s }");
    node.sparse("large", 256 << 20);
    let server = node.start();
    let stream = TcpStream::connect(server.address()).unwrap();
    let target = Token::file("large").target();
    let (came, ended) = read_slowly(&stream, &target, 40_000, Duration::from_secs(25));
    assert!(!ended, "cut after {came} bytes");
}

/// A download from `source`, whose content is checked.
fn download(server: &Server, source: &str, content: &[u8]) {
    let mut client = Client::connect_from(source, server.address());
    let answer = client.get(&Token::file("large").target());
    assert!(answer.status == 200 && answer.body == content, "{}", answer.raw);
}

/// A link of a client that comes while the attack is on.
fn newcomer(server: &Server, source: &str) {
    let mut client = Client::connect_from(source, server.address());
    assert_eq!(client.get(&Token::file("small").target()).text(), "small");
}

/// How little others notice is measured by `contrib/test/attack.py`.
#[test]
fn five_thousand_waiting_connections_keep_nobody_from_being_served() {
    let count = descriptors_for(CROWD);
    let node = Node::new()
        .winglet("max_connections: 6000\nmin_rate: 0\ntimeouts: { head: 10m, stall: 10m }");
    let content = pattern(48 << 20);
    node.file("large", &content);
    node.file("small", b"small");
    let server = node.start();
    if !server.shows_descriptors() {
        return;
    }
    // This one is under way when the attack begins.
    let mut under_way = Client::connect_from("127.0.0.3", server.address());
    under_way.request("GET", &Token::file("large").target(), "");
    under_way.head().unwrap();
    assert!(under_way.read_some(1 << 20) == content[..1 << 20]);
    let memory = server.resident_kib();
    let mut crowd = Crowd::gather(server.address(), count, 1, b"GET /health HTTP/1.1\r\nX: ");
    server.wait_until("all are waiting", |server| server.descriptors() >= count);
    let grown = server.resident_kib().saturating_sub(memory);
    println!("{count} connections, {grown} KiB");
    assert!(grown / (count as u64 / 1000).max(1) < 8 * 1024, "{grown} KiB");
    for _ in 0..3 {
        crowd.drip(b"x");
        download(&server, "127.0.0.2", &content);
        newcomer(&server, "127.0.0.4");
    }
    assert!(under_way.read_some(content.len() - (1 << 20)) == content[1 << 20..]);
    assert_eq!(crowd.open(), count, "waiting connections were closed");
    drop(crowd);
    server.wait_until("the crowd is gone", |server| server.descriptors() < 100);
}

/// The known tool: heads, bodies and readings that never end.
#[test]
fn slowhttptest_keeps_nobody_from_being_served() {
    if !may_take("15 s") || !have("slowhttptest") {
        return;
    }
    descriptors_for(1000);
    let node = Node::new().winglet(
        "max_connections: 1500\nmax_connections_per_address: 1200\nreuse: unlimited\n\
         timeouts: { stall: 5s }",
    );
    let content = pattern(8 << 20);
    node.file("large", &content);
    node.file("small", b"small");
    let server = node.start();
    let link = format!("{}{}", server.base(), Token::file("large").target());
    for mode in ["-H", "-B", "-X"] {
        let options = ["-c", "1000", "-r", "400", "-l", "5", "-i", "1", "-p", "3", "-k", "3"];
        let mut attack = Command::new("slowhttptest")
            .arg(mode)
            .args(options)
            .args(["-w", "512", "-y", "1024", "-n", "1", "-z", "32", "-u", &link])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while attack.try_wait().unwrap().is_none() {
            download(&server, "127.0.0.2", &content);
            newcomer(&server, "127.0.0.3");
            thread::sleep(Duration::from_millis(100));
        }
    }
    server.wait_until("all is over", |server| server.descriptors() < 100);
}
