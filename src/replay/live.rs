//! A running download as every thread sees it: who gets what, how far it has come, and whether it has
//! to stop. Its sender writes, everyone else reads; the one thing that others write is the reason to
//! stop.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::link::identity::LinkId;
use crate::link::storage::EntityTag;
use crate::logging::access::Entry;

/// What a download is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing: a worker has it, or is about to.
    Sending,
    /// Its share of the bandwidth.
    Limited,
    /// The client, whose socket is full.
    Parked,
    /// The client, which has yet to acknowledge the last bytes.
    Finishing,
}

impl Phase {
    /// All phases, in the order of their numbers.
    pub const ALL: [Phase; 4] = [Phase::Sending, Phase::Limited, Phase::Parked, Phase::Finishing];

    /// The name that status and metrics show.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Sending => "sending",
            Phase::Limited => "limited",
            Phase::Parked => "parked",
            Phase::Finishing => "finishing",
        }
    }
}

/// Why somebody else wants a download to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Its link was revoked.
    Revoked = 1,
    /// Its link belongs to another address now.
    HandedOver,
    /// Its link has begun another stream, and may have no more than it has.
    Displaced,
    /// Its link belongs to another front end now.
    TakenOver,
}

/// Set in `paused` while the clock runs.
const RUNNING: u64 = u64::MAX;

/// A running download.
#[derive(Debug)]
pub struct Live {
    /// The request's line in the access log, complete but for its outcome.
    pub entry: Entry,
    /// Its link.
    pub link: LinkId,
    /// The version of the file that it sends.
    pub tag: EntityTag,
    /// The bytes of the file that were asked for.
    pub span: Range<u64>,
    /// When it began, which may be long after its request came.
    pub began: Instant,
    /// Content bytes that the link has paid for.
    pub(super) reserved: AtomicU64,
    sent: AtomicU64,
    acknowledged: AtomicU64,
    /// Milliseconds after the start at which `acknowledged` last grew. Time during which the server
    /// made the client wait is left out.
    moved: AtomicU64,
    /// Milliseconds after the start since when the server makes the client wait, or [`RUNNING`].
    paused: AtomicU64,
    phase: AtomicU8,
    stop: AtomicU8,
    ended: AtomicBool,
    /// Bytes per second as of the last sample, and what had been sent by then.
    rate: AtomicU64,
    sampled: AtomicU64,
}

impl Live {
    /// A download that begins at `began`.
    pub fn new(
        entry: Entry,
        link: LinkId,
        tag: EntityTag,
        span: Range<u64>,
        began: Instant,
    ) -> Live {
        Live {
            entry,
            link,
            tag,
            span,
            began,
            reserved: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            paused: AtomicU64::new(RUNNING),
            phase: AtomicU8::new(Phase::Sending as u8),
            stop: AtomicU8::new(0),
            ended: AtomicBool::new(false),
            rate: AtomicU64::new(0),
            sampled: AtomicU64::new(0),
        }
    }

    /// Bytes that were asked for.
    pub fn length(&self) -> u64 {
        self.span.end - self.span.start
    }

    /// Content bytes handed to the kernel.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Acquire)
    }

    /// Content bytes that the client has acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Acquire)
    }

    /// Content bytes that the link has paid for.
    pub fn reserved(&self) -> u64 {
        self.reserved.load(Ordering::Acquire)
    }

    /// Returns true if bytes are on their way to the client, or the server has some to send.
    pub fn is_sending(&self) -> bool {
        matches!(self.phase(), Phase::Sending | Phase::Limited) || self.sent() > self.acknowledged()
    }

    /// Notes that `sent` content bytes are with the kernel.
    pub fn note_sent(&self, sent: u64) {
        self.sent.store(sent.min(self.length()), Ordering::Release);
    }

    /// Notes at `now` that the client has acknowledged `acknowledged` content bytes.
    pub fn note_acknowledged(&self, acknowledged: u64, now: Instant) {
        let acknowledged = acknowledged.min(self.length());
        if self.acknowledged.fetch_max(acknowledged, Ordering::AcqRel) < acknowledged {
            self.moved.store(self.millis(now), Ordering::Release);
        }
    }

    /// Stops the clock of [`Live::silence`]: from `now` on the server makes the client wait.
    pub fn pause(&self, now: Instant) {
        let now = self.millis(now);
        let _ = self.paused.compare_exchange(RUNNING, now, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Starts that clock again. Returns for how long it stood.
    pub fn resume(&self, now: Instant) -> Duration {
        let since = self.paused.swap(RUNNING, Ordering::AcqRel);
        if since == RUNNING {
            return Duration::ZERO;
        }
        // Less what was acknowledged meanwhile.
        let since = since.max(self.moved.load(Ordering::Acquire));
        let stood = self.millis(now).saturating_sub(since);
        self.moved.fetch_add(stood, Ordering::AcqRel);
        Duration::from_millis(stood)
    }

    /// For how long the client has acknowledged nothing, as of `now`.
    pub fn silence(&self, now: Instant) -> Duration {
        let until = self.paused.load(Ordering::Acquire).min(self.millis(now));
        Duration::from_millis(until.saturating_sub(self.moved.load(Ordering::Acquire)))
    }

    /// When the client acknowledged something last, or it began.
    pub(super) fn heard(&self) -> Instant {
        self.began + Duration::from_millis(self.moved.load(Ordering::Acquire))
    }

    fn millis(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.began).as_millis();
        u64::try_from(since).unwrap_or(RUNNING - 1)
    }

    /// What it is waiting for.
    pub fn phase(&self) -> Phase {
        let phase = usize::from(self.phase.load(Ordering::Acquire));
        Phase::ALL.get(phase).copied().unwrap_or(Phase::Sending)
    }

    /// Notes what it is waiting for from here on.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// Tells it to end. Returns true if nobody had told it before; the first reason stays.
    pub fn stop(&self, why: Stop) -> bool {
        self.stop.compare_exchange(0, why as u8, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Why it has to end, if it has to.
    pub fn stopped(&self) -> Option<Stop> {
        match self.stop.load(Ordering::Acquire) {
            0 => None,
            1 => Some(Stop::Revoked),
            2 => Some(Stop::HandedOver),
            3 => Some(Stop::Displaced),
            _ => Some(Stop::TakenOver),
        }
    }

    /// Notes that it has ended. Returns true the first time.
    #[must_use]
    pub fn end(&self) -> bool {
        !self.ended.swap(true, Ordering::AcqRel)
    }

    /// Bytes per second lately; of a download that has just begun, since its start.
    pub fn rate(&self, now: Instant) -> u64 {
        if self.sampled.load(Ordering::Relaxed) > 0 {
            return self.rate.load(Ordering::Relaxed);
        }
        per_second(self.sent(), now.saturating_duration_since(self.began))
    }

    /// Takes a sample of the rate at `now`, `time` after the one before.
    pub fn sample(&self, now: Instant, time: Duration) {
        let sent = self.sent();
        let before = self.sampled.swap(sent, Ordering::Relaxed);
        let since_start = now.saturating_duration_since(self.began);
        let rate = per_second(sent.saturating_sub(before), time.min(since_start));
        // Half of it from the seconds before: a client that takes steps has a pace all the same.
        let rate = match before {
            0 => rate,
            _ => rate.midpoint(self.rate.load(Ordering::Relaxed)),
        };
        self.rate.store(rate, Ordering::Relaxed);
    }
}

/// `bytes` per second of `time`.
pub fn per_second(bytes: u64, time: Duration) -> u64 {
    // Nothing can be told of less than a moment.
    let millis = time.as_millis().max(50);
    u64::try_from(u128::from(bytes) * 1000 / millis).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::tests::live;

    #[test]
    fn silence_counts_from_the_last_acknowledgement_and_leaves_pauses_out() {
        let live = live(0..100, 0);
        let second = |n| live.began + Duration::from_secs(n);
        live.note_acknowledged(10, second(1));
        assert_eq!(live.silence(second(4)), Duration::from_secs(3));
        live.pause(second(4));
        assert_eq!(live.silence(second(9)), Duration::from_secs(3));
        live.resume(second(9));
        assert_eq!(live.silence(second(10)), Duration::from_secs(4));
        live.note_acknowledged(10, second(10));
        assert_eq!(live.silence(second(10)), Duration::from_secs(4), "nothing new");
        live.pause(second(10));
        live.note_acknowledged(10, second(12));
        live.resume(second(12));
        assert_eq!(live.silence(second(12)), Duration::from_secs(4));
        live.note_acknowledged(11, second(10));
        assert_eq!(live.silence(second(10)), Duration::ZERO);
        live.pause(second(10));
        live.note_acknowledged(12, second(15));
        live.resume(second(20));
        assert_eq!(live.silence(second(21)), Duration::from_secs(1));
    }

    #[test]
    fn the_first_reason_to_stop_stays() {
        let live = live(0..100, 0);
        assert_eq!(live.stopped(), None);
        assert!(live.stop(Stop::HandedOver) && !live.stop(Stop::Revoked));
        assert_eq!(live.stopped(), Some(Stop::HandedOver));
        for stop in [Stop::Revoked, Stop::Displaced, Stop::TakenOver] {
            let live = self::live(0..100, 0);
            live.stop(stop);
            assert_eq!(live.stopped(), Some(stop));
        }
    }

    #[test]
    fn the_rate_follows_what_is_sent() {
        let live = live(0..1000, 0);
        let second = |n| live.began + Duration::from_secs(n);
        live.note_sent(100);
        assert_eq!(live.rate(second(2)), 50);
        live.sample(second(1), Duration::from_secs(1));
        live.note_sent(400);
        live.sample(second(2), Duration::from_secs(1));
        assert_eq!(live.rate(second(2)), 200);
        live.sample(second(3), Duration::from_secs(1));
        assert_eq!(live.rate(second(3)), 100);
    }
}
