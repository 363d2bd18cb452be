//! What a request says of its own purpose: previews of chats and prefetches ask before a person has
//! clicked, and must not use a link up.

/// Who asks, as far as the request says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Visitor {
    /// A person, or a program that downloads for one.
    #[default]
    Downloader,
    /// A chat or a social network that shows what a link is about.
    Preview,
    /// A browser that loads what its user may ask for next.
    Prefetch,
}

/// The product names of link previews, as a whole: a program's own browser has another, and gets the
/// file.
const PREVIEWS: [&str; 25] = [
    "Akkoma",
    "Cardyb",
    "Discordbot",
    "Embedly",
    "facebookexternalhit",
    "Facebot",
    "Iframely",
    "kakaotalk-scrap",
    "LinkedInBot",
    "Mastodon",
    "Mattermost-Bot",
    "meta-externalfetcher",
    "Misskey",
    "Pleroma",
    "redditbot",
    "SkypeUriPreview",
    "Slack-ImgProxy",
    "Slackbot",
    "Slackbot-LinkExpanding",
    "SummalyBot",
    "Synapse",
    "TelegramBot",
    "Twitterbot",
    "vkShare",
    "WhatsApp",
];

impl Visitor {
    /// Takes note of one header field.
    pub(super) fn note(&mut self, name: &str, value: &[u8]) {
        let is = |known: &&str| name.eq_ignore_ascii_case(known);
        if ["sec-purpose", "purpose", "x-moz"].iter().any(is) {
            let mut words = value.split(|byte| b";,".contains(byte));
            if words.any(|word| word.trim_ascii().eq_ignore_ascii_case(b"prefetch")) {
                *self = Visitor::Prefetch;
            }
        } else if is(&"user-agent") && *self == Visitor::Downloader && names_preview(value) {
            *self = Visitor::Preview;
        }
    }
}

/// Returns true if one of the products in `User-Agent` (RFC 9110 §10.1.5), or in its comments, is a
/// preview's.
fn names_preview(agent: &[u8]) -> bool {
    agent.split(|byte| b" \t/();,".contains(byte)).any(|product| {
        PREVIEWS.iter().any(|preview| product.eq_ignore_ascii_case(preview.as_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(agent: &str) -> Visitor {
        let mut visitor = Visitor::default();
        visitor.note("User-Agent", agent.as_bytes());
        visitor
    }

    #[test]
    fn previews_are_known_by_their_whole_name() {
        for preview in [
            "Mozilla/5.0 (compatible; Discordbot/2.0; +https://discordapp.com)",
            "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
            "Slackbot 1.0 (+https://api.slack.com/robots)",
            "TelegramBot (like TwitterBot)",
            "WhatsApp/2.23.20.0",
            "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_11_1) AppleWebKit/601.2.4 (KHTML, like Gecko) Version/9.0.1 Safari/601.2.4 facebookexternalhit/1.1 Facebot Twitterbot/1.0",
            "Mozilla/5.0 (Windows NT 6.1; WOW64) SkypeUriPreview Preview/0.5 skype-url-preview@microsoft.com",
            "LinkedInBot/1.0 (compatible; Mozilla/5.0; Apache-HttpClient +http://www.linkedin.com)",
            "http.rb/5.1.1 (Mastodon/4.2.0; +https://mastodon.social/)",
            "Mozilla/5.0 (compatible; Mastodon/4.4.0; +https://mastodon.social/)",
            "Synapse (bot; +https://github.com/matrix-org/synapse)",
            "Mozilla/5.0 (compatible; Bluesky Cardyb/1.1; +mailto:support@bsky.app)",
        ] {
            assert_eq!(agent(preview), Visitor::Preview, "{preview}");
        }
        for person in [
            "curl/8.5.0",
            "Wget/1.21.4",
            "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
            "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 discord/1.0.9 Chrome/108 Electron/22",
            "Mozilla/5.0 (X11) AppleWebKit/537.36 Slack/4.29.149 Chrome/104 Electron/20",
            "Mozilla/5.0 (iPhone) AppleWebKit/605 Mobile/15E148 [FBAN/FBIOS;FBAV/4.0]",
            "Mozilla/5.0 (iPhone) AppleWebKit/605 Mobile/15E148 Twitter for iPhone/9.4",
            "Mozilla/5.0 (iPhone) AppleWebKit/605 Mobile/15E148 [LinkedInApp]/9.1",
            "Mozilla/5.0 (Linux; Android 14) Telegram-Android/10.1",
            "Discordbots/1.0",
            "",
        ] {
            assert_eq!(agent(person), Visitor::Downloader, "{person}");
        }
    }

    #[test]
    fn a_prefetch_says_so_in_three_ways() {
        let said = |name: &str, value: &str| {
            let mut visitor = Visitor::default();
            visitor.note(name, value.as_bytes());
            visitor.note("user-agent", b"Discordbot/2.0");
            visitor == Visitor::Prefetch
        };
        assert!(said("Sec-Purpose", "prefetch") && said("sec-purpose", "prefetch;prerender"));
        assert!(said("Purpose", "prefetch") && said("X-Moz", "Prefetch"));
        assert!(!said("Purpose", "navigate") && !said("X-Purpose", "prefetch"));
        assert!(!said("Sec-Purpose", "prefetching") && !said("X-Moz", ""));
    }
}
