//! The pages that people see: what went wrong and what to do, and the landing page of a link.
//!
//! Both are self-contained, without script, and readable in a text browser. Chat previews fetch the
//! landing page instead of the file, so that they neither use a link up nor bind it.

use std::time::{Duration, SystemTime};

use crate::clock;
use crate::http::refusal::{Busy, Refusal};
use crate::link::storage::{Missing, OpenError};
use crate::link::token::{TokenFault, Used};

/// The header lines of a page, each with its CR LF: nothing is loaded, run, framed or indexed. The
/// hash is that of `page.css`.
pub const HEADERS: &str = "\
    Content-Security-Policy: default-src 'none'; \
    style-src 'sha256-6tgzmEwyEL8zSQAfEy/mjMlVWJ+DHEdyAS5b9wcX4rs='; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n\
    X-Robots-Tag: noindex\r\n";

const STYLE: &str = include_str!("page.css");

/// What the landing page of a link says.
#[derive(Clone, Copy, Debug)]
pub struct Landing<'a> {
    /// The name that the file is offered under.
    pub name: &'a str,
    /// Its length in bytes.
    pub length: u64,
    /// When the link stops working, in seconds since the epoch; `None` if that is not known.
    pub until: Option<u64>,
    /// Where the button leads, as [`Head::download_link`] gives it.
    ///
    /// [`Head::download_link`]: crate::http::head::Head::download_link
    pub link: &'a str,
}

/// The page for `landing` at `now`.
pub fn landing(landing: &Landing<'_>, now: SystemTime) -> String {
    let (name, size) = (escape(&printable(landing.name)), size_text(landing.length));
    let until = landing.until.map(clock::time);
    let words = until.map(|until| until_text(until, now)).unwrap_or_default();
    // A chat keeps what it shows: no words that are wrong a minute later.
    let until = until.map(|until| format!(", until {}", date_text(until))).unwrap_or_default();
    let meta = format!(
        "<meta property=\"og:type\" content=\"website\">\n\
         <meta property=\"og:title\" content=\"{name}\">\n\
         <meta property=\"og:description\" content=\"{size}{until}\">\n"
    );
    let content = format!(
        "<p>{size}. {words}</p>\n<p><a class=\"button\" rel=\"nofollow\" href=\"{}\">Download</a></p>",
        escape(landing.link),
    );
    let footer = "The link is not used up until you press the button.";
    fill(&meta, &format!("Download {name}"), &name, &content, footer)
}

/// The page for `refusal` of request `id`, with a link to `panel` if there is one.
pub fn error(refusal: &Refusal, id: &str, panel: Option<&str>) -> String {
    let (title, what, remedy) = explain(refusal);
    let remedy = match panel {
        Some(_) => remedy.with_panel,
        None => remedy.without_panel,
    };
    let mut content = format!("<p>{what} {remedy}</p>");
    if let Some(panel) = panel {
        let panel = escape(panel);
        content.push_str(&format!("\n<p><a href=\"{panel}\">Go to the panel</a></p>"));
    }
    let footer = format!("Error {} · request {id}", refusal.status());
    fill("", title, title, &content, &footer)
}

/// The page for a client that speaks plain HTTP to a TLS port, of request `id`; `link` is the same
/// address with `https://`.
#[cfg(feature = "tls")]
pub fn plain_http(link: &str, id: &str) -> String {
    let content = format!(
        "<p>The address begins with http://, and has to begin with https://.</p>\n<p><a class=\"button\" rel=\"nofollow\" href=\"{}\">Go on with https://</a></p>",
        escape(link)
    );
    let title = "This address needs https";
    fill("", title, title, &content, &format!("Error 400 · request {id}"))
}

fn fill(meta: &str, title: &str, heading: &str, content: &str, footer: &str) -> String {
    format!(
        include_str!("page.html"),
        meta = meta,
        title = title,
        heading = heading,
        content = content,
        footer = footer,
        style = STYLE
    )
}

/// What a person can do about a refusal.
struct Remedy {
    with_panel: &'static str,
    without_panel: &'static str,
}

/// A new link, from whoever makes links.
const NEW_LINK: Remedy = Remedy {
    with_panel: "Go back to the panel and press Download again.",
    without_panel: "Ask whoever sent you the link for a new one.",
};

/// The list that the link was chosen from may be out of date.
const RELOAD: Remedy =
    Remedy { with_panel: "Go back to the panel, reload the file list and try again.", ..NEW_LINK };

const BUSY: (&str, &str, Remedy) = (
    "The server is busy",
    "Too many downloads are running at the moment.",
    same("Wait a little, then try the same link again."),
);

/// The same remedy with and without a panel.
const fn same(text: &'static str) -> Remedy {
    Remedy { with_panel: text, without_panel: text }
}

/// Title, what happened, and what to do, in plain words.
fn explain(refusal: &Refusal) -> (&'static str, &'static str, Remedy) {
    match refusal {
        Refusal::TargetTooLong | Refusal::Token(TokenFault::TooLong) => (
            "This link is too long",
            "A link to many files has the names of all of them in it.",
            Remedy {
                with_panel: "Go back to the panel and download the folder that they are in.",
                without_panel: "Ask whoever sent you the link for the folder that they are in.",
            },
        ),
        Refusal::Token(fault) => explain_token(fault),
        Refusal::Open(error) => explain_open(error),
        Refusal::Elsewhere { .. } => (
            "This link is in use elsewhere",
            "Another server is sending this file already. The link works where the download was begun.",
            NEW_LINK,
        ),
        Refusal::ArchiveFormat => (
            "This kind of archive is not offered",
            "A folder can be downloaded as zip or as tar.",
            NEW_LINK,
        ),
        Refusal::UnknownPath => (
            "There is nothing here",
            "The address may have been cut short or changed on its way.",
            NEW_LINK,
        ),
        Refusal::Busy(Busy::LinkInUse(_)) => (
            "This link is in use from another address",
            "It works where the download was begun, and elsewhere once that has stopped for ten seconds.",
            Remedy {
                with_panel: "Stop the other download, wait ten seconds and try the same link again, or go back to the panel and press Download again.",
                without_panel: "Stop the other download, wait ten seconds and try the same link again.",
            },
        ),
        Refusal::Busy(_) => BUSY,
        Refusal::Precondition | Refusal::Range { .. } => (
            "The file has changed",
            "It is no longer the file that your download began with.",
            same("Delete the partial download and start again."),
        ),
        _ => ("That request could not be understood", "It was not a valid download.", NEW_LINK),
    }
}

fn explain_token(fault: &TokenFault) -> (&'static str, &'static str, Remedy) {
    match fault {
        TokenFault::Expired => {
            ("This link has expired", "A link works for a short time only.", NEW_LINK)
        }
        TokenFault::Used(Used::Revoked) => {
            ("This link was revoked", "It was good, and was taken back.", NEW_LINK)
        }
        TokenFault::Used(_) => {
            ("This link was already used", "Each link is good for one download.", NEW_LINK)
        }
        _ => (
            "This link does not work",
            "It may have been cut short or changed on its way.",
            NEW_LINK,
        ),
    }
}

fn explain_open(error: &OpenError) -> (&'static str, &'static str, Remedy) {
    const GONE: &str = "It may have been moved, renamed or deleted.";
    match error {
        OpenError::NotFound(Missing::Backup) => (
            "This backup is not here",
            "It may be stored elsewhere, or it was deleted.",
            Remedy {
                with_panel: "Go back to the panel, reload the list of backups and try again.",
                ..NEW_LINK
            },
        ),
        OpenError::NotFound(Missing::Directory | Missing::HiddenDirectory) => {
            ("This folder does not exist", GONE, RELOAD)
        }
        OpenError::NotFound(Missing::Files) => {
            ("These files do not exist", "They may have been moved, renamed or deleted.", RELOAD)
        }
        OpenError::NotFound(_) => ("This file does not exist", GONE, RELOAD),
        OpenError::TooMany => (
            "This folder is too large for one download",
            "An archive holds 200,000 files and folders at most.",
            Remedy {
                with_panel: "Go back to the panel and download its subfolders one by one.",
                without_panel: "Ask whoever sent you the link for its subfolders one by one.",
            },
        ),
        OpenError::Failed(_) => (
            "The file could not be read",
            "The file exists, but this server could not read it.",
            Remedy {
                with_panel: "Tell whoever runs the panel, with the number below.",
                without_panel: "Tell whoever sent you the link, with the number below.",
            },
        ),
        OpenError::TooManyFolders => (
            "The server is busy with large folders",
            "So many large folders are being downloaded at the moment that this one has to wait.",
            Remedy {
                with_panel: "Try again in some minutes.",
                without_panel: "Try again in some minutes.",
            },
        ),
        OpenError::WalkTooLong => (
            "Listing this folder takes too long",
            "It is very deep, very large, or the server's disk is slow.",
            Remedy {
                with_panel: "Go back to the panel and download its subfolders one by one, or try again later.",
                without_panel: "Try again later, or ask whoever sent you the link for its subfolders one by one.",
            },
        ),
        OpenError::NoDescriptors => BUSY,
    }
}

/// A length in decimal units, as browsers' download lists and file managers show it.
pub fn size_text(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    match bytes {
        1 => return "1 byte".into(),
        0..1000 => return format!("{bytes} bytes"),
        _ => {}
    }
    let mut tenths = bytes / 100;
    let mut unit = 0;
    // 999.95 of one unit would be shown as 1000.0.
    while tenths >= 10_000 && unit + 1 < UNITS.len() {
        tenths /= 1000;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// How long the link still works, and until when. There is no script to convert it to local time.
fn until_text(until: SystemTime, now: SystemTime) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    let left = until.duration_since(now).as_ref().map_or(0, Duration::as_secs);
    let left = match left {
        0..90 => "another minute".into(),
        90..5400 => format!("another {} minutes", (left + MINUTE / 2) / MINUTE),
        5400..129_600 => format!("another {} hours", (left + HOUR / 2) / HOUR),
        _ => format!("another {} days", (left + DAY / 2) / DAY),
    };
    format!("The link works for {left}, until {}.", date_text(until))
}

/// A date and a time to the minute.
fn date_text(time: SystemTime) -> String {
    // "Sun, 06 Nov 1994 08:49:37 GMT"
    let date = httpdate::fmt_http_date(time);
    let (day, time) = (date.get(5..16).unwrap_or_default(), date.get(17..22).unwrap_or_default());
    format!("{} {time} UTC", day.trim_start_matches('0'))
}

/// `name` without characters that could make it look like another one.
fn printable(name: &str) -> String {
    let misleading = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    name.chars().map(|c| if misleading(c) { '\u{fffd}' } else { c }).collect()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use jwt_simple::reexports::ct_codecs::{Base64, Encoder};
    use std::time::UNIX_EPOCH;

    #[test]
    fn the_policy_allows_this_style_and_nothing_else() {
        let hash = Base64::encode_to_string(hmac_sha256::Hash::hash(STYLE.as_bytes())).unwrap();
        assert!(HEADERS.contains(&format!("'sha256-{hash}'")), "the hash is {hash}");
        assert_eq!(HEADERS.matches("\r\n").count(), 2);
    }

    #[test]
    fn sizes_in_plain_units() {
        let table = [
            (0, "0 bytes"),
            (1, "1 byte"),
            (999, "999 bytes"),
            (1000, "1.0 kB"),
            (1_550, "1.5 kB"),
            (999_999, "999.9 kB"),
            (1_000_000, "1.0 MB"),
            (50_234_000_000, "50.2 GB"),
            (u64::MAX, "18.4 EB"),
        ];
        for (bytes, text) in table {
            assert_eq!(size_text(bytes), text);
        }
    }

    #[test]
    fn the_end_of_a_link_in_words() {
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777);
        let table = [
            (0, "another minute, until 6 Nov 1994 08:49 UTC"),
            (89, "another minute, until 6 Nov 1994 08:51 UTC"),
            (90, "another 2 minutes, until 6 Nov 1994 08:51 UTC"),
            (900, "another 15 minutes, until 6 Nov 1994 09:04 UTC"),
            (7_200, "another 2 hours, until 6 Nov 1994 10:49 UTC"),
            (129_600, "another 2 days, until 7 Nov 1994 20:49 UTC"),
        ];
        for (seconds, text) in table {
            let said = until_text(now + Duration::from_secs(seconds), now);
            assert_eq!(said, format!("The link works for {text}."));
        }
    }

    #[test]
    fn no_name_link_or_panel_leaves_its_place() {
        let name = "\"><script>{style}\u{202e}gpj.exe";
        let link = "?token=\"onclick='x'&a";
        let page = landing(&Landing { name, length: 1, until: None, link }, UNIX_EPOCH);
        let title = "og:title\" content=\"&quot;&gt;&lt;script&gt;{style}\u{fffd}gpj.exe\">";
        assert!(page.contains(title), "{page}");
        assert!(page.contains("<h1>&quot;&gt;&lt;script&gt;{style}\u{fffd}gpj.exe</h1>"), "{page}");
        assert!(page.contains("href=\"?token=&quot;onclick=&#39;x&#39;&amp;a\""), "{page}");
        let page = error(&Refusal::UnknownPath, "id", Some("https://x/\"><script>"));
        assert!(!page.contains("<script>"), "{page}");
    }

    #[test]
    fn without_a_panel_no_page_mentions_one() {
        let used = |used| Refusal::Token(TokenFault::Used(used));
        for refusal in [
            Refusal::Token(TokenFault::Expired),
            Refusal::Token(TokenFault::Signature),
            Refusal::Busy(Busy::LinkInUse(10)),
            used(Used::Spent),
            Refusal::Open(OpenError::NotFound(Missing::Backup)),
            Refusal::Open(OpenError::NotFound(Missing::File)),
            Refusal::Open(OpenError::NotFound(Missing::Directory)),
            Refusal::Open(OpenError::NotFound(Missing::Files)),
            Refusal::Open(OpenError::TooMany),
            Refusal::Open(OpenError::WalkTooLong),
            Refusal::ArchiveFormat,
            Refusal::Open(OpenError::Failed(String::new())),
            Refusal::UnknownPath,
            Refusal::Precondition,
            Refusal::Method,
        ] {
            let page = error(&refusal, "id", None);
            assert!(!page.contains("panel") && !page.contains("<a "), "{page}");
            assert!(error(&refusal, "id", Some("https://p")).contains("href=\"https://p\""));
        }
    }
}
