//! `GET /metrics`: a [`Status`] in the text format of Prometheus (version 0.0.4).
//!
//! Nothing here has a label that a stranger could make up: the number of series is fixed.

use std::fmt::{Display, Write as _};

use super::counters::Counters;
use super::status::Status;
use crate::replay::live::Phase;

/// The media type of the format.
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The text under construction.
#[derive(Default)]
struct Text(String);

impl Text {
    /// A metric of one or several series, each with its labels (in their braces) and value.
    fn metric<V: Display>(
        &mut self,
        (name, kind, help): (&str, &str, &str),
        series: impl IntoIterator<Item = (String, V)>,
    ) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in series {
            let _ = writeln!(self.0, "{name}{labels} {value}");
        }
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.metric((name, "gauge", help), [(String::new(), value)]);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.metric((name, "counter", help), [(String::new(), value)]);
    }
}

fn label(name: &str, value: impl Display) -> String {
    format!("{{{name}=\"{value}\"}}")
}

/// The text for `status` and `counters`.
pub fn text(status: &Status, counters: &Counters) -> String {
    let mut text = Text(String::with_capacity(8 * 1024));
    server(&mut text, status);
    connections(&mut text, status, counters);
    downloads(&mut text, status);
    links(&mut text, status);
    text.0
}

fn server(text: &mut Text, status: &Status) {
    let version = [(label("version", &status.version), 1)];
    text.metric(("winglet_build_info", "gauge", "The version that runs."), version);
    text.gauge(
        "winglet_start_time_seconds",
        "When the server was started, since the epoch.",
        status.started,
    );
    text.gauge(
        "winglet_draining",
        "1 if the server ends once its downloads have ended.",
        u8::from(status.draining),
    );
    if let Some(expires) = status.certificate_expires {
        text.gauge(
            "winglet_certificate_expiry_timestamp_seconds",
            "When the certificate's validity ends, since the epoch.",
            expires,
        );
    }
    text.gauge(
        "winglet_archive_listings",
        "Listings that are kept of folders sent as archives.",
        status.archives.kept,
    );
    text.gauge(
        "winglet_archive_listings_bytes",
        "Memory held by archive listings, in bytes.",
        status.archives.bytes,
    );
    text.gauge("winglet_archive_walks", "Folders that are being listed.", status.archives.walks);
    text.gauge("winglet_workers", "Threads that read files.", status.workers.total);
    text.gauge("winglet_workers_busy", "Threads that are at something.", status.workers.busy);
    text.gauge(
        "winglet_queue_length",
        "Requests and pieces of downloads that wait for a thread.",
        status.workers.waiting,
    );
    text.gauge(
        "winglet_workers_stuck",
        "1 if no thread has come back for as long as a request may wait.",
        u8::from(status.workers.stuck),
    );
}

fn connections(text: &mut Text, status: &Status, counters: &Counters) {
    let now = &status.connections;
    let states = [
        ("heads", now.heads),
        ("idle", now.idle),
        ("queued", now.queued),
        ("working", now.working),
        ("downloads", now.downloads),
        ("finishing", now.finishing),
    ];
    text.metric(
        ("winglet_connections", "gauge", "Connections, by what they wait for."),
        states.map(|(state, count)| (label("state", state), count)),
    );
    text.gauge("winglet_connections_limit", "The most there may be.", now.limit);
    text.counter(
        "winglet_connections_accepted_total",
        "Connections that have come in.",
        counters.connections(),
    );
    let answers = counters.answers().map(|(status, count)| match status {
        0 => (label("code", "other"), count),
        status => (label("code", status), count),
    });
    text.metric(("winglet_requests_total", "counter", "Requests answered, by status."), answers);
}

fn downloads(text: &mut Text, status: &Status) {
    let now = &status.phases;
    let phases = [
        (Phase::Sending, now.sending),
        (Phase::Limited, now.limited),
        (Phase::Parked, now.parked),
        (Phase::Finishing, now.finishing),
    ];
    text.metric(
        ("winglet_downloads", "gauge", "Downloads under way, by what they wait for."),
        phases.map(|(phase, count)| (label("state", phase.name()), count)),
    );
    let ended = [
        ("delivered", status.ended.delivered),
        ("part", status.ended.parts),
        ("interrupted", status.ended.interrupted),
    ];
    text.metric(
        ("winglet_downloads_ended_total", "counter", "Downloads that have ended, by outcome."),
        ended.map(|(outcome, count)| (label("outcome", outcome), count)),
    );
    text.counter("winglet_sent_bytes_total", "Bytes sent of downloads.", status.bandwidth.sent);
    text.gauge(
        "winglet_bandwidth_limit_bytes_per_second",
        "The most that may be sent; 0 for no limit.",
        status.bandwidth.limit,
    );
}

fn links(text: &mut Text, status: &Status) {
    text.gauge("winglet_links_tracked", "Used links that are remembered.", status.links.tracked);
    text.gauge("winglet_links_spent", "Those whose download is complete.", status.links.spent);
    text.gauge("winglet_links_limit", "The most that may be remembered.", status.links.limit);
    text.gauge("winglet_revocations", "Revocations in force.", status.links.revocations);
    if let Some(journal) = &status.journal {
        text.gauge("winglet_journal_size_bytes", "Length of the journal.", journal.bytes);
        text.gauge(
            "winglet_journal_behind",
            "1 if the journal lacks what could not be written.",
            u8::from(journal.behind),
        );
    }
    if let Some(shared) = &status.shared_state {
        let up = u8::from(shared.up);
        text.gauge("winglet_shared_state_up", "1 if the shared state answers.", up);
        text.counter(
            "winglet_shared_state_round_trips_total",
            "Questions to the shared state that were answered.",
            shared.round_trips,
        );
        text.counter(
            "winglet_shared_state_failures_total",
            "Those that were not, or with an error.",
            shared.failures,
        );
        text.counter(
            "winglet_shared_state_take_overs_total",
            "Links taken over from front ends that are gone.",
            shared.take_overs,
        );
    }
}
