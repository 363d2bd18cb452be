//! A simulated downloader, against the real rules.
//!
//! It reads from a receive buffer that its kernel fills and acknowledges by itself. Connections
//! break, the process is suspended or killed and comes back later, and what lay unread in a buffer is
//! then lost. Its address changes with each connection, or for good. Bytes are counted in units, time
//! in seconds.

use super::*;
use crate::config::Reuse;
use crate::link::token::Used;
use crate::replay::entry::{ClaimError, ClaimRequest, Entry, Rules};
use crate::replay::tests::live_of;

const SETTLE: u64 = 600;
/// Everything acknowledged and silent for this long ends a stream; else it is cut after that.
const IDLE: u64 = 15;
const STALL: u64 = 60;
/// Bytes of a unit: a client has more than a peek after 32 of them.
const UNIT: u64 = 8192;
/// When the link is opened, and when its token expires.
const START: u64 = 1_000_000;
const EXPIRES: u64 = START + 900;
const RULES: Rules =
    Rules { reuse: Reuse::Resume, window: 86_400, settle: SETTLE, bind: true, alone: false };

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Style {
    /// One connection, resumed where it broke or begun anew.
    Single,
    /// As aria2: several connections with an end each, split as they finish.
    Segments,
    /// The same without ends: each is closed where the next one began.
    OpenEnded,
}

/// From where a client comes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Place {
    /// Always one address.
    Home,
    /// One out of so many addresses, for each connection anew.
    Pool(u64),
    /// An address that changes for good now and then, with all that runs.
    OnTheRoad,
}

/// A small deterministic generator (splitmix64).
pub(super) struct Random(pub(super) u64);

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
    live: Arc<Live>,
    start: u64,
    /// Where what was asked for ends, and where the client means to stop.
    asked: u64,
    stop: u64,
    /// Positions in the file: acknowledged by the kernel, and read by the program.
    acknowledged: u64,
    read: u64,
}

/// How a run ended for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It has everything.
    Whole,
    /// It lacks bytes, and is refused whatever its address is.
    Refused,
    /// It lacks bytes that it had acknowledged and lost, and comes from an address that never held the
    /// link, which counts as delivered.
    Stranger,
    /// Its token has expired, and it comes from an address that never held the link.
    Late,
    /// It is refused because of its address and neither of these.
    Address,
}

pub(super) struct Run<'a> {
    random: &'a mut Random,
    style: Style,
    place: Place,
    address: u8,
    length: u64,
    buffer: u64,
    /// Without a proxy between.
    direct: bool,
    /// A client whose kernel resets each connection that it closes.
    resets: bool,
    pub(super) entry: Option<Entry>,
    now: u64,
    base: Instant,
    have: Vec<bool>,
    connections: Vec<Connection>,
    /// The client reset a stream that it had read to the end, or has what the server never saw
    /// acknowledged.
    pub(super) plain: bool,
    pub(super) hand_overs: usize,
    pub(super) waits: usize,
    pub(super) taken: bool,
}

impl Run<'_> {
    pub(super) fn new(random: &mut Random, style: Style, place: Place) -> Run<'_> {
        let length = random.within(300..2500);
        Run {
            style,
            place,
            address: 0,
            length,
            buffer: random.within(20..401),
            direct: random.chance(600),
            resets: random.chance(100),
            random,
            entry: None,
            now: START,
            base: Instant::now(),
            have: vec![false; length as usize],
            connections: Vec::new(),
            plain: true,
            hand_overs: 0,
            waits: 0,
            taken: false,
        }
    }

    /// Returns true if the link counts as spent once nobody has asked for it for long enough.
    pub(super) fn is_settled(&self) -> bool {
        let late = self.now + SETTLE;
        let settled = |grant: &Grant| grant.is_settled(SETTLE, late);
        let entry = self.entry.as_ref().unwrap();
        entry.spent || entry.grant.as_deref().is_some_and(settled)
    }

    fn at(&self) -> Instant {
        self.base + Duration::from_secs(self.now - START)
    }

    fn end(&mut self, connection: &Connection, known: u64, by: EndedBy) {
        let live = &connection.live;
        live.note_sent((connection.acknowledged - connection.start) * UNIT);
        live.note_acknowledged((known - connection.start) * UNIT, self.at());
        let entry = self.entry.as_mut().unwrap();
        if let Some(grant) = &mut entry.grant
            && grant.finish(live, by, self.now)
        {
            entry.spend();
        }
        let all = connection.read == connection.asked;
        self.plain &= !(all && by == EndedBy::Reset) && known >= connection.read;
    }

    fn request(&self, address: u8) -> ClaimRequest {
        ClaimRequest {
            key: [1; 16],
            resource: [1; 16],
            server: [2; 16],
            client: Some(ClientKey::of([192, 0, 2, address].into())),
            expires: EXPIRES,
            expired: self.now >= EXPIRES,
            at: self.at(),
        }
    }

    /// Somebody else asks, who is not served here.
    fn poll(&mut self) {
        let (request, now) = (self.request(250), self.now);
        if let Some(entry) = &mut self.entry {
            self.taken |= entry.admits(&request, &RULES, now).is_ok();
        }
    }

    /// Asks for `start..stop` and perhaps more. `Ok(false)` if the link is in use.
    fn connect(&mut self, start: u64, stop: u64) -> Result<bool, End> {
        if let Place::Pool(size) = self.place {
            self.address = self.random.within(0..size) as u8;
        }
        let request = self.request(self.address);
        let now = self.now;
        let fresh = || Entry::new(&request, &RULES, now, 0, 0);
        let entry = self.entry.get_or_insert_with(fresh);
        let used = entry.grant.as_ref().is_some_and(|grant| grant.charged > 0);
        match entry.admits(&request, &RULES, now) {
            Ok(_) => {}
            Err(ClaimError::InUse(_)) => {
                self.waits += 1;
                return Ok(false);
            }
            Err(ClaimError::TooManyStreams) => return Ok(false),
            Err(ClaimError::Used(Used::OtherAddress)) => {
                let covered = entry.grant.as_ref().is_some_and(|grant| grant.is_covered());
                return Err(match (now < EXPIRES, covered) {
                    (false, _) => End::Late,
                    (true, true) => End::Stranger,
                    (true, false) => End::Address,
                });
            }
            Err(ClaimError::Expired) if now >= EXPIRES => return Err(End::Late),
            Err(_) => return Err(End::Refused),
        }
        let grant = entry.grant.as_mut().unwrap();
        self.hand_overs += usize::from(used && grant.is_strange_to(request.client, true));
        let asked = if self.style == Style::Segments { stop } else { self.length };
        let live = Arc::new(live_of([1; 16], start * UNIT..asked * UNIT, 7, request.at));
        grant.claim(&request, true, &live, self.length * UNIT);
        let (acknowledged, read) = (start, start);
        self.connections.push(Connection { live, start, asked, stop, acknowledged, read });
        Ok(true)
    }

    /// Asks for everything that is missing, and waits while the link is in use.
    fn connect_all(&mut self) -> Result<(), End> {
        let (pieces, most) = match self.style {
            Style::Single => (1, 1),
            _ => (self.random.within(2..9), 8),
        };
        let length = self.length / pieces + 1;
        let mut at = 0;
        while at < self.length && self.connections.len() < most {
            if self.have[at as usize] {
                at += 1;
                continue;
            }
            let end = (at..self.length.min(at + length)).find(|&i| self.have[i as usize]);
            let end = end.unwrap_or(self.length.min(at + length));
            if self.connect(at, end)? {
                at = end;
            } else if self.connections.is_empty() {
                self.now += 1;
            } else {
                // The others go on without it.
                break;
            }
        }
        Ok(())
    }

    /// One second of transfer on every connection; closes those that have what they were for.
    fn transfer(&mut self) -> Result<(), End> {
        for mut connection in std::mem::take(&mut self.connections) {
            if connection.live.stopped().is_some() {
                // Another connection of its own came from elsewhere: this one was reset.
                self.end(&connection, connection.acknowledged, EndedBy::Reset);
                continue;
            }
            // The server hears of it a second later: what breaks meanwhile takes it along.
            let acknowledged = (connection.acknowledged - connection.start) * UNIT;
            connection.live.note_sent(acknowledged);
            connection.live.note_acknowledged(acknowledged, self.at());
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
            if self.style != Style::Single {
                self.split()?;
            }
        }
        Ok(())
    }

    /// Takes over half of what another connection still has to do.
    fn split(&mut self) -> Result<(), End> {
        let longest = self.connections.iter_mut().max_by_key(|other| other.stop - other.read);
        let Some(other) = longest.filter(|other| other.stop - other.read > 40) else {
            return Ok(());
        };
        let (middle, stop) = (other.read + (other.stop - other.read) / 2, other.stop);
        let whole = std::mem::replace(&mut other.stop, middle);
        let index = self.connections.iter().position(|other| other.stop == middle).unwrap();
        if !self.connect(middle, stop)? {
            self.connections[index].stop = whole;
        }
        Ok(())
    }

    /// One connection breaks, on its way or at its end.
    fn break_one(&mut self) {
        let index = self.random.next() as usize % self.connections.len();
        let connection = self.connections.swap_remove(index);
        let by = if self.random.chance(500) { EndedBy::Other } else { EndedBy::Reset };
        self.broke(connection, by);
    }

    fn broke(&mut self, mut connection: Connection, by: EndedBy) {
        let mut known = connection.acknowledged;
        if self.random.chance(100) {
            // The last acknowledgements went down with it.
            known = known.saturating_sub(self.random.within(0..20)).max(connection.start);
        }
        // What was in the buffer can be read if nobody has sent a reset, and with luck otherwise.
        let whole = known == connection.asked;
        if (by == EndedBy::Other && whole) || self.random.chance(500) {
            self.read_on(&mut connection);
        }
        self.end(&connection, known, by);
    }

    fn read_on(&mut self, connection: &mut Connection) {
        let read = connection.acknowledged.min(connection.stop).max(connection.read);
        self.have[connection.read as usize..read as usize].fill(true);
        connection.read = read;
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
            let known = connection.acknowledged;
            let whole = known == connection.asked;
            if time < if whole { IDLE } else { STALL } {
                self.connections.push(connection);
                continue;
            }
            self.now = began + if whole { IDLE } else { STALL };
            // Who has everything gets a FIN. Who does not is reset, and may find nothing of it.
            if whole || self.random.chance(700) {
                self.read_on(&mut connection);
            }
            self.end(&connection, known, EndedBy::Other);
        }
        self.now = began + time;
        if self.random.chance(100) {
            self.kill();
        }
    }

    /// The client has another address from here on, and none of its connections.
    fn travel(&mut self) {
        for connection in std::mem::take(&mut self.connections) {
            self.broke(connection, EndedBy::Other);
        }
        self.address = self.address.wrapping_add(1);
        self.now += self.random.within(1..30);
    }

    /// Runs until the client has everything, or is refused.
    pub(super) fn finish(&mut self) -> End {
        while self.have.contains(&false) {
            let mut going = Ok(());
            if self.connections.is_empty() {
                going = self.connect_all();
            }
            if let Err(end) = going.and_then(|()| self.transfer()) {
                return if self.have.contains(&false) { end } else { End::Whole };
            }
            self.poll();
            self.now += 1;
            if !self.connections.is_empty() && self.random.chance(15) {
                self.break_one();
                self.now += self.random.absence() * u64::from(self.connections.is_empty());
            }
            match self.random.next() % 1000 {
                0..4 => self.kill(),
                4..8 => self.pause(),
                8..18 if self.place == Place::OnTheRoad => self.travel(),
                _ => {}
            }
        }
        for connection in std::mem::take(&mut self.connections) {
            self.end(&connection, connection.acknowledged, EndedBy::Reset);
        }
        End::Whole
    }
}
