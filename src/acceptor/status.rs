//! Fills in what the server says about itself, from memory.

use std::time::Instant;

use super::Acceptor;
use super::connections::{Held, State};
use crate::control::status::{
    Archives, Bandwidth, Connections, Journal, Links, Phases, Row, SharedState, Status, Workers,
};
use crate::http::head::Place;
use crate::replay::shared::Counts;

/// Downloads that the log lists after SIGUSR1.
const MOST_LINES: usize = 100;

impl Acceptor {
    /// The state of the server now; `rows`: with each download.
    pub(super) fn status(&self, rows: bool) -> Status {
        let (shared, config, now) = (&self.parts.shared, &self.settings.config, Instant::now());
        let (started, since) = shared.started;
        let [sending, limited, parked, finishing] = shared.downloads.phases();
        let downloads = if rows { shared.downloads.all() } else { Vec::new() };
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started,
            uptime: now.saturating_duration_since(since).as_secs(),
            draining: self.draining.is_some(),
            connections: self.census(),
            workers: Workers {
                total: config.threads,
                busy: self.queue.busy(),
                waiting: self.queue.len(),
                stuck: self.is_stuck(),
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
            archives: {
                let (kept, bytes) = shared.shelf.usage();
                Archives { kept, bytes }
            },
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
            ended: shared.downloads.ended().into(),
            downloads: downloads.iter().map(|download| Row::of(download, now)).collect(),
        }
    }

    /// Writes it to the log, if SIGUSR1 has asked for that.
    pub(super) fn log_status(&self) {
        if self.parts.signals.take_report() {
            for line in self.status(true).lines(MOST_LINES) {
                log::info!("{line}");
            }
        }
    }

    /// Counts the connections by what they wait for.
    fn census(&self) -> Connections {
        let limit = self.settings.config.max_connections;
        let mut counts = Connections { limit, ..Connections::default() };
        for held in self.connections.all() {
            let count = match held {
                None => continue,
                Some(Held { connection, .. }) if connection.place == Place::Control => {
                    &mut counts.control
                }
                Some(Held { connection, state }) => match state {
                    #[cfg(feature = "tls")]
                    State::Handshake { .. } => &mut counts.heads,
                    State::Reading { .. } if connection.requests == 0 => &mut counts.heads,
                    State::Reading { .. } if !connection.input.is_empty() => &mut counts.heads,
                    State::Queued { .. } => &mut counts.queued,
                    State::Parked(_) | State::Ready(_) => &mut counts.downloads,
                    State::Watched(_) | State::Recording(..) => &mut counts.finishing,
                    _ => &mut counts.idle,
                },
            };
            *count += 1;
        }
        // The one that asks is in our hands at this moment, and no worker's.
        counts.working = self.queue.busy();
        counts
    }

    #[cfg(feature = "tls")]
    fn certificate_expires(&self) -> Option<u64> {
        self.parts.tls.as_ref().and_then(|certificates| certificates.expires())
    }

    #[cfg(not(feature = "tls"))]
    fn certificate_expires(&self) -> Option<u64> {
        None
    }
}
