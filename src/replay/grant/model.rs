//! Runs the real grant against simulated downloaders, and counts what no rule can have both of: how
//! often a client that still lacks bytes is refused, and how often a finished link stays open.
//!
//! A client reads from a receive buffer that its kernel fills and acknowledges by itself. Connections
//! break, processes are suspended or killed and come back later, and what lay unread in a buffer is
//! then lost. Bytes are counted in units, time in seconds.

use super::*;

const RUNS: usize = 8000;
const SETTLE: u64 = 600;
/// Everything acknowledged and silent for this long is the client's own end; else cut after this.
const IDLE: u64 = 15;
const STALL: u64 = 60;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Style {
    /// One connection, resumed where it broke or begun anew.
    Single,
    /// As aria2: several connections with an end each, split as they finish.
    Segments,
    /// The same without ends: each is closed where the next one began.
    OpenEnded,
}

/// A small deterministic generator (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    fn chance(&mut self, per_thousand: u64) -> bool {
        self.next() % 1000 < per_thousand
    }

    /// How long a client stays away or still: mostly moments, now and then longer than a link waits.
    fn absence(&mut self) -> u64 {
        match self.next() % 100 {
            0..75 => self.within(1..IDLE),
            75..90 => self.within(IDLE..STALL),
            90..98 => self.within(STALL..SETTLE),
            _ => self.within(SETTLE..4000),
        }
    }
}

struct Connection {
    flow: Arc<Flow>,
    start: u64,
    /// Where what was asked for ends, and where the client means to stop.
    asked: u64,
    stop: u64,
    /// Positions in the file: acknowledged by the kernel, and read by the program.
    acknowledged: u64,
    read: u64,
}

#[derive(Debug, Default)]
struct Tally {
    refused: usize,
    finished: usize,
    /// Finished, the last byte not reset and no acknowledgement lost; and of those spent.
    plain: usize,
    plain_spent: usize,
    spent_at_once: usize,
    /// Finished otherwise; and of those spent.
    other_spent: usize,
}

struct Run<'a> {
    random: &'a mut Random,
    style: Style,
    file: FileVersion,
    buffer: u64,
    /// Without a proxy between.
    direct: bool,
    /// A client whose kernel resets each connection that it closes.
    resets: bool,
    grant: Grant,
    now: u64,
    spent: bool,
    have: Vec<bool>,
    connections: Vec<Connection>,
    /// The client reset a stream that it had read to the end, or has what the server never saw
    /// acknowledged.
    plain: bool,
}

impl Run<'_> {
    fn end(&mut self, connection: &Connection, known: u64, by: EndedBy) {
        let acknowledged = known - connection.start;
        let end = StreamEnd { sent: connection.asked - connection.start, acknowledged, by };
        self.spent |= self.grant.finish(&connection.flow, &end, self.now);
        let all = connection.read == connection.asked;
        self.plain &= !(all && by == EndedBy::Reset) && known >= connection.read;
    }

    /// Asks for `start..asked`. `false` if the link is refused.
    fn connect(&mut self, start: u64, stop: u64) -> bool {
        if self.spent || self.grant.is_settled(SETTLE, self.now) {
            return false;
        }
        let asked = if self.style == Style::Segments { stop } else { self.file.length };
        let flow = self.grant.start(&self.file, &(start..asked));
        let (acknowledged, read) = (start, start);
        self.connections.push(Connection { flow, start, asked, stop, acknowledged, read });
        true
    }

    /// Asks for everything that is missing. `false` if it is refused.
    fn connect_all(&mut self) -> bool {
        let (length, most) = match self.style {
            Style::Single => (self.file.length, 1),
            _ => (self.file.length / self.random.within(2..9) + 1, 8),
        };
        let mut at = 0;
        while at < self.file.length && self.connections.len() < most {
            if self.have[at as usize] {
                at += 1;
                continue;
            }
            let end = (at..self.file.length.min(at + length)).find(|&i| self.have[i as usize]);
            let end = end.unwrap_or(self.file.length.min(at + length));
            if !self.connect(at, end) {
                return false;
            }
            at = end;
        }
        true
    }

    /// One second of transfer on every connection; closes those that have what they were for.
    /// `false` if a further one is refused.
    fn transfer(&mut self) -> bool {
        for mut connection in std::mem::take(&mut self.connections) {
            let sent = connection.acknowledged + self.random.within(1..60);
            let held = connection.read + self.buffer;
            connection.acknowledged =
                sent.min(held).min(connection.asked).max(connection.acknowledged);
            let read = (connection.read + self.random.within(0..60)).min(connection.acknowledged);
            self.have[connection.read as usize..read as usize].fill(true);
            connection.read = read;
            if read < connection.stop {
                self.connections.push(connection);
                continue;
            }
            let by = match read == connection.asked {
                true if !self.resets && self.direct => EndedBy::Client,
                true if !self.resets => EndedBy::Other,
                _ => EndedBy::Reset,
            };
            self.end(&connection, connection.acknowledged, by);
            if self.style != Style::Single && !self.split() {
                return false;
            }
        }
        true
    }

    /// Takes over half of what another connection still has to do.
    fn split(&mut self) -> bool {
        let longest = self.connections.iter_mut().max_by_key(|other| other.stop - other.read);
        let Some(other) = longest.filter(|other| other.stop - other.read > 40) else { return true };
        let (middle, stop) = (other.read + (other.stop - other.read) / 2, other.stop);
        other.stop = middle;
        self.connect(middle, stop)
    }

    /// One connection breaks, on its way or at its end.
    fn break_one(&mut self) {
        let index = self.random.next() as usize % self.connections.len();
        let connection = self.connections.swap_remove(index);
        let by = if self.random.chance(500) { EndedBy::Other } else { EndedBy::Reset };
        let mut known = connection.acknowledged;
        if self.random.chance(100) {
            // The last acknowledgements went down with it.
            known = known.saturating_sub(self.random.within(0..20)).max(connection.start);
        }
        let mut connection = connection;
        if self.random.chance(500) {
            // What was in the buffer can still be read.
            let read = connection.acknowledged.min(connection.stop);
            self.have[connection.read as usize..read as usize].fill(true);
            connection.read = read.max(connection.read);
        }
        self.end(&connection, known, by);
    }

    /// The process dies: buffers are lost, and perhaps what it had not written down.
    fn kill(&mut self) {
        for connection in std::mem::take(&mut self.connections) {
            self.end(&connection, connection.acknowledged, EndedBy::Reset);
            let forgotten = self.random.within(0..100).min(connection.read - connection.start);
            if self.style != Style::Single {
                let from = connection.read - forgotten;
                self.have[from as usize..connection.read as usize].fill(false);
            }
        }
        if self.style == Style::Single && self.random.chance(200) {
            self.have.fill(false);
        }
        self.now += self.random.absence();
    }

    /// The process stands still while its kernel goes on.
    fn pause(&mut self) {
        let (began, time) = (self.now, self.random.absence());
        for mut connection in std::mem::take(&mut self.connections) {
            let held = connection.read + self.buffer;
            connection.acknowledged = held.min(connection.asked).max(connection.acknowledged);
            let (whole, known) =
                (connection.acknowledged == connection.asked, connection.acknowledged);
            if whole && time >= IDLE {
                self.now = began + IDLE;
                let by = if self.direct { EndedBy::Client } else { EndedBy::Other };
                self.end(&connection, known, by);
            } else if time >= STALL {
                self.now = began + STALL;
                self.end(&connection, known, EndedBy::Other);
            } else {
                self.connections.push(connection);
                continue;
            }
            // It may find what was left in the buffer, unless it is killed first.
            if self.random.chance(700) {
                let (from, to) = (connection.read, known.min(connection.stop).max(connection.read));
                self.have[from as usize..to as usize].fill(true);
            }
        }
        self.now = began + time;
        if self.random.chance(100) {
            self.kill();
        }
    }

    /// Runs until the client has everything; `false` if it is refused before.
    fn finish(&mut self) -> bool {
        while self.have.contains(&false) {
            let going = !self.connections.is_empty() || self.connect_all();
            if !going || !self.transfer() {
                return !self.have.contains(&false);
            }
            self.now += 1;
            if !self.connections.is_empty() && self.random.chance(15) {
                self.break_one();
                self.now += self.random.absence() * u64::from(self.connections.is_empty());
            }
            match self.random.next() % 1000 {
                0..4 => self.kill(),
                4..8 => self.pause(),
                _ => {}
            }
        }
        for connection in std::mem::take(&mut self.connections) {
            self.end(&connection, connection.acknowledged, EndedBy::Reset);
        }
        true
    }
}

fn run(random: &mut Random, style: Style, tally: &mut Tally) {
    let length = random.within(300..2500);
    let (buffer, direct, resets) = (random.within(20..401), random.chance(600), random.chance(100));
    let mut run = Run {
        random,
        style,
        file: FileVersion { tag: 1, length },
        buffer,
        direct,
        resets,
        grant: Grant::default(),
        now: 1_000_000,
        spent: false,
        have: vec![false; length as usize],
        connections: Vec::new(),
        plain: true,
    };
    if !run.finish() {
        tally.refused += 1;
        return;
    }
    let settled = run.spent || run.grant.is_settled(SETTLE, run.now + SETTLE);
    tally.finished += 1;
    tally.spent_at_once += usize::from(run.spent);
    tally.plain += usize::from(run.plain);
    tally.plain_spent += usize::from(run.plain && settled);
    tally.other_spent += usize::from(!run.plain && settled);
}

#[test]
fn clients_that_lack_bytes_are_served_and_finished_links_spent() {
    let mut random = Random(11);
    println!(
        "style, runs: refused while lacking; finished: spent at once; plain: spent; other: spent"
    );
    let (mut refused, mut runs) = (0, 0);
    for style in [Style::Single, Style::Segments, Style::OpenEnded] {
        let mut tally = Tally::default();
        (0..RUNS).for_each(|_| run(&mut random, style, &mut tally));
        let Tally { finished, plain, plain_spent, spent_at_once, other_spent, .. } = tally;
        let rate = tally.refused as f64 * 100.0 / RUNS as f64;
        println!(
            "{style:?}, {RUNS}: {rate:.2} %; {finished}: {spent_at_once}; {plain}: {plain_spent}; {}: {other_spent}",
            finished - plain
        );
        assert_eq!(plain_spent, plain, "{style:?}: a finished link stays open");
        assert!(rate <= 0.6, "{style:?}: {rate:.2} % were refused");
        (refused, runs) = (refused + tally.refused, runs + RUNS);
    }
    println!("in all: {:.2} % refused", refused as f64 * 100.0 / runs as f64);
}
