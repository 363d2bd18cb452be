//! Everything at once for a while: hostile clients of all kinds beside real downloads, every byte
//! of which is compared. `SOAK_SECONDS` says how long (60), and `SOAK_SEED` repeats what an earlier
//! run printed.

use std::io::Write;
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Client, connect_from};
use crate::crowd::Crowd;
use crate::harness::{Node, Server, descriptors_for, may_take, pattern};
use crate::mint::Token;

/// Threads of each kind.
const DOWNLOADERS: u64 = 3;
const ATTACKERS: u64 = 3;
/// Lengths of the files, from nothing to more than the kernel buffers.
const LENGTHS: [usize; 7] = [0, 1, 1000, 65_536, 300_000, 2_500_000, 9_000_001];
/// Resident memory may grow by this much between a third of the time and the end, in KiB.
const SLACK_KIB: u64 = 12 * 1024;

/// Random numbers (xorshift64*), good enough to mix with.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

struct Soak<'a> {
    server: &'a Server,
    content: &'a [u8],
    over: AtomicBool,
    downloads: AtomicU64,
    bytes: AtomicU64,
    attacks: AtomicU64,
}

impl Soak<'_> {
    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    /// One legitimate client: whole files, resumed ones, slow ones, several on one connection.
    fn download(&self, random: &mut Random, source: &str) {
        let mut client = Client::connect_from(source, self.server.address());
        for _ in 0..=random.below(3) {
            let length = LENGTHS[random.below(LENGTHS.len() as u64) as usize];
            let target = Token::file(&length.to_string()).target();
            let wanted = &self.content[..length];
            match random.below(4) {
                0 if length > 1 => {
                    self.resume(random, source, &target, wanted);
                    // The old one may have been idle for too long meanwhile.
                    client = Client::connect_from(source, self.server.address());
                }
                1 => self.read_with_pauses(random, &mut client, &target, wanted),
                _ => {
                    let answer = client.get(&target);
                    assert_eq!(answer.status, 200, "{}", answer.raw);
                    assert!(answer.body == wanted, "wrong bytes");
                }
            }
            self.downloads.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(length as u64, Ordering::Relaxed);
        }
    }

    /// A connection that breaks, and another that fetches the rest.
    fn resume(&self, random: &mut Random, source: &str, target: &str, wanted: &[u8]) {
        let half = 1 + random.below(wanted.len() as u64 - 1) as usize;
        let mut broken = Client::connect_from(source, self.server.address());
        broken.request("GET", target, "");
        assert_eq!(broken.head().unwrap().status, 200);
        assert!(broken.read_some(half) == wanted[..half], "wrong bytes");
        broken.reset();
        let mut client = Client::connect_from(source, self.server.address());
        let answer = client.get_with(target, &format!("Range: bytes={half}-\r\n"));
        // A small file may have been taken whole before the reset.
        if answer.status != 401 {
            assert_eq!(answer.status, 206, "{}", answer.raw);
            assert!(answer.body == wanted[half..], "wrong bytes");
        }
    }

    fn read_with_pauses(
        &self,
        random: &mut Random,
        client: &mut Client,
        target: &str,
        wanted: &[u8],
    ) {
        client.request("GET", target, "");
        assert_eq!(client.head().unwrap().status, 200);
        for piece in wanted.chunks(wanted.len() / 5 + 1) {
            thread::sleep(Duration::from_millis(random.below(100)));
            assert!(client.read_some(piece.len()) == piece, "wrong bytes");
        }
    }

    /// One hostile act.
    fn attack(&self, random: &mut Random, source: &str) {
        let address = self.server.address();
        let receive_buffer = (random.below(2) == 0).then_some(4096);
        let mut client = Client::over(connect_from(source, address, receive_buffer));
        client.stream().set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        client.stream().set_write_timeout(Some(Duration::from_millis(200))).unwrap();
        let large = Token::file("9000001").target();
        let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: n\r\n\r\n");
        let bytes: Vec<u8> = match random.below(9) {
            0 => (0..random.below(3000)).map(|_| random.below(256) as u8).collect(),
            1 => b"GET / HTTP/1.1\r\nContent-Length: 1125899906842624\r\n\r\n".to_vec(),
            2 => vec![b'a'; 300_000],
            3 => get("/download/file?token=x").repeat(200).into_bytes(),
            4 => get("/health").repeat(1000).into_bytes(),
            5 => get(&large).as_bytes()[..50].to_vec(),
            6 => get(&large).into_bytes(),
            7 => [get(&large), get(&large)].concat().into_bytes(),
            _ => get(&Token::file("1000").target()).repeat(3).into_bytes(),
        };
        let _ = client.try_send(&bytes);
        match random.below(5) {
            0 => drop(client.head()),
            1 => drop(client.stream().shutdown(Shutdown::Write)),
            2 => thread::sleep(Duration::from_millis(random.below(300))),
            _ => {}
        }
        if random.below(2) == 0 {
            client.reset();
        }
        if random.below(40) == 0 {
            let mut crowd = Crowd::gather(address, 200, 40, b"GET /health HTTP/1.1\r\nX: ");
            thread::sleep(Duration::from_millis(random.below(500)));
            crowd.drip(b"x");
        }
        self.attacks.fetch_add(1, Ordering::Relaxed);
    }

    /// Runs both kinds for `time`; returns the resident memory after a third of it.
    fn run(&self, time: Duration, seed: u64) -> u64 {
        thread::scope(|scope| {
            let end = OnDrop(&self.over);
            for number in 0..DOWNLOADERS {
                scope.spawn(move || {
                    let mut random = Random(seed + number);
                    while self.goes_on() {
                        self.download(&mut random, &format!("127.0.1.{}", number + 1));
                    }
                });
            }
            for number in 0..ATTACKERS {
                scope.spawn(move || {
                    let mut random = Random(seed + 1000 + number);
                    while self.goes_on() {
                        let host = random.below(20);
                        self.attack(&mut random, &format!("127.0.{}.{}", 2 + number, host + 1));
                    }
                });
            }
            thread::sleep(time / 3);
            let memory = self.server.resident_kib();
            thread::sleep(time * 2 / 3);
            drop(end);
            memory
        })
    }
}

/// Ends the soak, even if the test fails.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A number from the environment.
fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}: {text:?} is not a number")))
}

#[test]
fn hostile_and_legitimate_clients_side_by_side() {
    let Some(seconds) = setting("SOAK_SECONDS").or_else(|| may_take("a minute").then_some(60))
    else {
        return;
    };
    let seed = setting("SOAK_SEED")
        .unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().unwrap().as_micros() as u64);
    // Not `eprintln!`, which a test that passes, or is killed, keeps to itself.
    let _ = writeln!(std::io::stderr(), "soak: SOAK_SEED={seed} SOAK_SECONDS={seconds}");
    descriptors_for(1000);
    let node = Node::new().winglet("timeouts: { head: 3s, idle: 3s, stall: 10s, queue: 30s }");
    let content = pattern(LENGTHS[6]);
    for length in LENGTHS {
        node.file(&length.to_string(), &content[..length]);
    }
    let server = node.start();
    let descriptors = server.shows_descriptors().then(|| server.descriptors());
    let threads = server.threads();
    let soak = Soak {
        server: &server,
        content: &content,
        over: AtomicBool::new(false),
        downloads: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        attacks: AtomicU64::new(0),
    };
    let began = Instant::now();
    let early = soak.run(Duration::from_secs(seconds), seed);
    println!(
        "{} downloads of {} MB verified during {} attacks in {:?}",
        soak.downloads.into_inner(),
        soak.bytes.into_inner() / 1_000_000,
        soak.attacks.into_inner(),
        began.elapsed(),
    );
    if let Some(descriptors) = descriptors {
        server.wait_until("descriptors as at the start", |s| s.descriptors() == descriptors);
    }
    // tiny_http's spare threads end some time after the start.
    server.wait_until("threads as at the start", |s| s.threads() <= threads);
    server.wait_until("memory as before", |s| s.resident_kib() < early + SLACK_KIB);
    println!("resident: {early} KiB early, {} KiB at the end", server.resident_kib());
    server.wait_until_asleep();
}
