//! What the server says about itself: `GET /status`, `GET /metrics`, and the log after SIGUSR1.
//!
//! It is filled from memory, without a lock that anybody holds while waiting for something.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::link::token::Resource;
use crate::logging::escape;
use crate::replay::live::Live;

/// The state of the server at one moment: the JSON of `/status`. Sizes are bytes, times are seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// When it was started, since the epoch.
    pub started: u64,
    /// How long ago that was.
    pub uptime: u64,
    /// It ends once its downloads have ended.
    pub draining: bool,
    /// By what they are waiting for.
    pub connections: Connections,
    /// The threads of the pool.
    pub workers: Workers,
    /// The table of used links.
    pub links: Links,
    /// Where they are remembered; `None` for memory only.
    pub journal: Option<Journal>,
    /// Folders that are sent as archives.
    #[serde(default)]
    pub archives: Archives,
    /// What is agreed with other front ends; `None` if there are none.
    #[serde(default)]
    pub shared_state: Option<SharedState>,
    /// When the certificate's validity ends, since the epoch.
    pub certificate_expires: Option<u64>,
    /// What is sent.
    pub bandwidth: Bandwidth,
    /// Downloads that are under way, by what they are waiting for.
    pub phases: Phases,
    /// How downloads have ended since the start.
    pub ended: Totals,
    /// Each of them, in the order in which they began.
    pub downloads: Vec<Row>,
}

/// Connections, by what they are waiting for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// The most there may be.
    pub limit: usize,
    /// A handshake, or the rest of a request.
    pub heads: usize,
    /// The client's next request, or its end.
    pub idle: usize,
    /// A worker for their request.
    pub queued: usize,
    /// At a worker.
    pub working: usize,
    /// Between two pieces of a download.
    pub downloads: usize,
    /// The client to acknowledge the last bytes.
    pub finishing: usize,
}

/// The pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workers {
    /// Threads.
    pub total: usize,
    /// Those that are at something.
    pub busy: usize,
    /// Requests and pieces that wait for one.
    pub waiting: usize,
    /// None has come back for longer than a request may wait: the disk stands still.
    pub stuck: bool,
}

/// Used links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Links {
    /// Remembered.
    pub tracked: usize,
    /// Those of them whose download is complete.
    pub spent: usize,
    /// The most that may be remembered.
    pub limit: usize,
    /// Revocations in force.
    pub revocations: usize,
}

/// The journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// Its length.
    pub bytes: u64,
    /// Something is not written yet, because the disk took nothing.
    pub behind: bool,
}

/// What is in memory of the folders that are sent as archives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archives {
    /// Listings.
    pub kept: usize,
    /// Listings that running downloads use.
    pub used: usize,
    /// Folders that are being listed.
    pub walks: usize,
    /// Memory held by listings, finished or not, in bytes.
    pub bytes: usize,
}

/// The front ends' shared state. All links that are downloaded here are this front end's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedState {
    /// What this front end is called.
    pub front_end: String,
    /// It answers.
    pub up: bool,
    /// Questions that were answered.
    pub round_trips: u64,
    /// Questions that were not, or with an error.
    pub failures: u64,
    /// Links taken over from front ends that are gone.
    pub take_overs: u64,
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bandwidth {
    /// Bytes per second of all downloads, as of the last second.
    pub rate: u64,
    /// The most that may be; 0 for no limit.
    pub limit: u64,
    /// Bytes since the start.
    pub sent: u64,
}

/// Downloads that are under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phases {
    /// Nothing holds them up.
    pub sending: usize,
    /// Their turn in the bandwidth.
    pub limited: usize,
    /// The client.
    pub parked: usize,
    /// The client to acknowledge the last bytes.
    pub finishing: usize,
}

/// How downloads have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Whole.
    pub delivered: u64,
    /// The part that was asked for.
    pub parts: u64,
    /// Cut.
    pub interrupted: u64,
}

/// A download that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// `X-Request-Id`, as in the log.
    pub id: String,
    /// The client's address, if it is known.
    pub client: Option<String>,
    /// The server that the file or backup belongs to.
    pub server: String,
    /// The path of a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The UUID of a backup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<String>,
    /// The path of a directory that is sent as an archive, in whole or in part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// How many files and directories of it were chosen, if it is sent in part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<usize>,
    /// Where in the file this answer begins.
    pub start: u64,
    /// Its length.
    pub length: u64,
    /// Bytes of it that were sent.
    pub sent: u64,
    /// Bytes per second.
    pub rate: u64,
    /// How long it has been under way.
    pub seconds: u64,
    /// For how long the client has acknowledged nothing; from ten seconds on, another address may
    /// have its link.
    #[serde(default)]
    pub silent: u64,
    /// `sending`, `limited`, `parked` or `finishing`.
    pub state: String,
    /// What tells its link from others: a hash, of no use to anybody else.
    pub link: String,
}

impl Row {
    /// The row for `live` at `now`.
    pub fn of(live: &Live, now: Instant) -> Row {
        let (mut file, mut backup, mut directory, mut files) = (None, None, None, None);
        let resource = live.entry.resource.as_ref();
        match resource {
            Some(Resource::File { path, .. }) => file = Some(path.clone()),
            Some(Resource::Backup { backup: uuid, .. }) => backup = Some(uuid.to_string()),
            Some(Resource::Directory { path, .. }) => directory = Some(path.clone()),
            Some(Resource::Files { path, files: chosen, .. }) => {
                (directory, files) = (Some(path.clone()), Some(chosen.len()));
            }
            None => {}
        }
        Row {
            id: live.entry.id.clone(),
            client: live.entry.client.map(|client| client.to_string()),
            server: resource
                .and_then(Resource::server)
                .map_or_else(|| "-".to_owned(), |uuid| uuid.to_string()),
            file,
            backup,
            directory,
            files,
            start: live.span.start,
            length: live.length(),
            sent: live.sent(),
            rate: live.rate(now),
            seconds: now.saturating_duration_since(live.began).as_secs(),
            silent: live.silence(now).as_secs(),
            state: live.phase().name().to_owned(),
            link: format!("{:032x}", u128::from_be_bytes(live.link.link)),
        }
    }

    /// What is downloaded, in a form that stays on its line.
    pub fn what(&self) -> String {
        let directory = match self.directory.as_deref().map(|path| path.trim_matches('/')) {
            Some("") => "the whole server".to_owned(),
            Some(path) => format!("folder {}", escape(path)),
            None => "?".to_owned(),
        };
        match (&self.file, &self.backup, self.files) {
            (Some(file), ..) => escape(file),
            (_, Some(backup), _) => format!("backup {backup}"),
            (.., Some(1)) => format!("1 file of {directory}"),
            (.., Some(files)) => format!("{files} files of {directory}"),
            _ => directory,
        }
    }
}

impl Status {
    /// Lines for the log: one in all, and one for each of up to `most` downloads.
    pub fn lines(&self, most: usize) -> Vec<String> {
        let Connections { limit, heads, idle, queued, working, downloads, finishing } =
            self.connections;
        let all = heads + idle + queued + working + downloads + finishing;
        let mut lines = vec![format!(
            "status: up {} s, connections {all} of {limit}, workers {} of {} busy, {} waiting, links {} tracked and {} spent, {} revocations, {} B/s, {} downloads",
            self.uptime,
            self.workers.busy,
            self.workers.total,
            self.workers.waiting,
            self.links.tracked,
            self.links.spent,
            self.links.revocations,
            self.bandwidth.rate,
            self.downloads.len(),
        )];
        for row in self.downloads.iter().take(most) {
            lines.push(format!(
                "status: {} {} server={} {} bytes={}/{} rate={} seconds={} id={}",
                row.client.as_deref().unwrap_or("-"),
                row.state,
                row.server,
                row.what(),
                row.sent,
                row.length,
                row.rate,
                row.seconds,
                row.id,
            ));
        }
        let more = self.downloads.len().saturating_sub(most);
        if more > 0 {
            lines.push(format!("status: and {more} more downloads"));
        }
        lines
    }
}
