//! What the control listener answers: the server's state, and orders that are carried out.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::archive::shelf::Usage;
use crate::control::gauges::Waits;
use crate::control::listener::{Asked, Desk};
use crate::control::status::{
    Archives, Bandwidth, Connections, Journal, Links, Phases, Row, SharedState, Status, Workers,
};
use crate::control::{metrics, orders};
use crate::download::job::Crew;
use crate::http::head::{Control, Field, Head, Method, Route};
use crate::http::refusal::{Busy, Refusal};
use crate::http::response::{self, ResponseContext};
use crate::logging::throttle::Kind;
#[cfg(feature = "tls")]
use crate::net::certificates::Certificates;
use crate::replay::shared::Counts;
use crate::shared::Shared;

/// Answers for the server.
#[derive(Clone, Debug)]
pub struct Operator {
    /// Shared with the rest of the server.
    pub shared: Arc<Shared>,
    /// The workers and their queue.
    pub crew: Arc<Crew>,
    /// Where the certificate's end is known.
    #[cfg(feature = "tls")]
    pub tls: Option<Arc<Certificates>>,
}

/// An order that was carried out.
struct Obeyed {
    /// Downloads that end by it.
    ended: usize,
    /// True if the journal has it.
    kept: bool,
}

impl Desk for Operator {
    fn timeout(&self) -> Duration {
        self.shared.settings().config.timeouts.head
    }

    fn answer(&self, asked: &Asked<'_>) -> Vec<u8> {
        let head = asked.head;
        let Route::Control(what) = head.route else {
            return self.refuse(Some(head), &Refusal::UnknownPath);
        };
        match (what, head.method) {
            (Control::Status, Method::Get | Method::Head) => {
                let text = serde_json::to_string(&self.status(true)).unwrap_or_default() + "\n";
                self.report(head, "application/json", &text)
            }
            (Control::Metrics, Method::Get | Method::Head) => {
                let text = metrics::text(&self.status(false), &self.shared.counters);
                self.report(head, metrics::MEDIA_TYPE, &text)
            }
            (Control::Revoke | Control::Deauthorize | Control::Deny(_), Method::Post) => match self
                .carry_out(what, asked)
            {
                Ok(_) if what != Control::Revoke => self.reply(head, 204, response::done),
                Ok(Obeyed { ended, kept }) => {
                    let remembered = if kept { "journal" } else { "memory" };
                    let text = format!("{{\"ended\":{ended},\"remembered\":\"{remembered}\"}}\n");
                    self.report(head, "application/json", &text)
                }
                Err(refusal) => self.refuse(Some(head), &refusal),
            },
            _ => self.refuse(Some(head), &Refusal::Method),
        }
    }

    fn refuse(&self, head: Option<&Head>, refusal: &Refusal) -> Vec<u8> {
        // The Panel shows nobody why an order of its own is refused: the log does.
        let what = head.and_then(|head| match head.route {
            Route::Control(what) => Some(what.path()),
            _ => None,
        });
        self.shared.throttle.warn(Kind::Orders, None, Instant::now(), || {
            let what = what.unwrap_or("a request");
            format!("{what} refused with {}: {}", refusal.status(), refusal.cause())
        });
        self.with_context(head, refusal.status(), |context| response::refusal(context, refusal))
    }
}

impl Operator {
    /// Revokes what the body of `asked` names.
    fn carry_out(&self, what: Control, asked: &Asked<'_>) -> Result<Obeyed, Refusal> {
        let (shared, now) = (&self.shared, self.shared.clock.unix());
        let settings = shared.settings();
        let config = &settings.config;
        let token = asked.head.field(Field::Authorization).and_then(|text| {
            let (scheme, token) = text.split_once(' ')?;
            scheme.eq_ignore_ascii_case("Bearer").then_some(token.trim())
        });
        // A port is open to every user of this machine, and to the pages that they look at.
        let open = asked.trusted && what == Control::Revoke;
        let vouched = token.is_some_and(|token| {
            config.token.matches(token.as_bytes())
                || settings.verifier.vouches(token, &orders::seal(asked.body), now)
        });
        if !open && !vouched {
            return Err(Refusal::Unauthorized);
        }
        let orders = match what {
            Control::Deauthorize => orders::deauthorize(asked.body, config, now),
            Control::Deny(server) => orders::deny(asked.body, server, config, now),
            _ => orders::revoke(asked.body, config, &settings.verifier, now).map(|one| vec![one]),
        };
        let mut obeyed = Obeyed { ended: 0, kept: true };
        for (target, known, what) in orders.map_err(Refusal::Malformed)? {
            let kept = shared.replay.revoke(target, known, now);
            obeyed.kept &= kept.map_err(|_| Refusal::Busy(Busy::Revocations))?;
            let ended = shared.downloads.revoke(&target, &known);
            log::info!("revoked: {what}; running downloads that end: {ended}");
            obeyed.ended += ended;
        }
        shared.note_stops();
        Ok(obeyed)
    }

    /// The state of the server now; `rows`: with each download.
    pub fn status(&self, rows: bool) -> Status {
        let (shared, now) = (&self.shared, Instant::now());
        let (settings, queue) = (shared.settings(), &self.crew.queue);
        let config = &settings.config;
        let (started, since) = shared.started;
        let [sending, limited, parked, finishing] = shared.downloads.phases();
        let downloads = if rows { shared.downloads.all() } else { Vec::new() };
        let Usage { kept, used, walks, bytes } = shared.shelf.usage();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started,
            uptime: now.saturating_duration_since(since).as_secs(),
            draining: shared.gauges.draining.load(Ordering::Relaxed),
            connections: self.census(config.max_connections),
            workers: Workers {
                total: config.threads,
                busy: queue.busy(),
                waiting: queue.waiting(),
                stuck: shared.gauges.stuck.load(Ordering::Relaxed),
            },
            links: Links {
                tracked: shared.replay.tracked(),
                spent: shared.replay.spent(),
                limit: config.max_tracked_tokens,
                revocations: shared.replay.revocations(),
            },
            journal: shared
                .replay
                .journal()
                .map(|state| Journal { bytes: state.bytes, behind: state.behind }),
            archives: Archives { kept, used, walks, bytes },
            shared_state: shared.replay.agreement().map(|agreement| {
                let Counts { round_trips, failures, take_overs, up } = agreement.counts();
                let front_end = agreement.name().to_owned();
                SharedState { front_end, up, round_trips, failures, take_overs }
            }),
            certificate_expires: self.certificate_expires(),
            bandwidth: Bandwidth {
                rate: shared.downloads.rate(),
                limit: config.bandwidth,
                sent: shared.downloads.sent(),
            },
            phases: Phases { sending, limited, parked, finishing },
            ended: shared.counters.totals(),
            downloads: downloads.iter().map(|live| Row::of(live, now)).collect(),
        }
    }

    fn census(&self, limit: usize) -> Connections {
        let (gauges, queue) = (&self.shared.gauges, &self.crew.queue);
        let working = queue.busy();
        Connections {
            limit,
            heads: gauges.waiting(Waits::Head),
            idle: gauges.waiting(Waits::Idle),
            queued: gauges.waiting(Waits::Worker).saturating_sub(working),
            working,
            downloads: gauges.waiting(Waits::Download),
            finishing: gauges.waiting(Waits::Finish),
        }
    }

    #[cfg(feature = "tls")]
    fn certificate_expires(&self) -> Option<u64> {
        self.tls.as_ref().and_then(|certificates| certificates.expires())
    }

    #[cfg(not(feature = "tls"))]
    fn certificate_expires(&self) -> Option<u64> {
        None
    }

    fn report(&self, head: &Head, media_type: &str, text: &str) -> Vec<u8> {
        self.reply(head, 200, |context| response::report(context, media_type, text))
    }

    fn reply(
        &self,
        head: &Head,
        status: u16,
        make: impl FnOnce(&ResponseContext<'_>) -> Vec<u8>,
    ) -> Vec<u8> {
        self.with_context(Some(head), status, make)
    }

    fn with_context(
        &self,
        head: Option<&Head>,
        status: u16,
        make: impl FnOnce(&ResponseContext<'_>) -> Vec<u8>,
    ) -> Vec<u8> {
        let (id, settings) = (self.shared.next_id(), self.shared.settings());
        let mut context = ResponseContext::of(head, &id, &settings.config);
        context.cors = String::new();
        self.shared.counters.answered(status);
        make(&context)
    }
}
