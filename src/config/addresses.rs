//! All addresses to listen on: the command line says which, or else `winglet.listen`, or else `api`.
//! And the files that TLS on one of them takes.

use std::path::{Path, PathBuf};

use super::findings::Origin;
use super::values::Section;
use super::yaml::Value;
use super::{Listen, TlsFiles, defaults};

/// All that says where to listen.
pub(super) struct AddressKeys<'a> {
    pub(super) api: &'a Section<'a>,
    pub(super) winglet: &'a Section<'a>,
    /// The command line's addresses, which replace the file's.
    pub(super) given: &'a [String],
    /// What a relative path among them counts from.
    pub(super) base: &'a Path,
    /// What was resolved before the sandbox was entered.
    pub(super) before: &'a [Listen],
}

impl AddressKeys<'_> {
    /// The addresses, from the first of command line, `winglet.listen` and `api`, and the files
    /// that TLS needs if one of them is TLS.
    pub(super) fn resolve(&self) -> (Vec<Listen>, Option<TlsFiles>) {
        let ssl = self.api.section("ssl");
        let enabled = ssl.bool("enabled", false);
        let host = self.api.string_or("host", defaults::API_HOST);
        let port = self.api.integer("port", defaults::API_PORT, 0..=u16::MAX);
        // Looked at even if the command line replaces it, so that its type is checked.
        let written = self.winglet.strings("listen", "\"0.0.0.0:8080\"");
        let node = self.winglet.node("listen");
        let base = node.map_or(self.base.to_owned(), |node| self.winglet.notes.base(node.file));

        let listen = if !self.given.is_empty() {
            let origin = Origin::CommandLine;
            self.winglet.notes.replace("winglet.listen", self.given.join(" "), origin);
            let given = self.given.iter().map(|text| ("--listen".to_owned(), text.clone()));
            self.parse(given.collect(), self.base)
        } else if let Some(node) = node {
            if node.value == Value::List(Vec::new()) {
                let message = "is an empty list, and nobody would be served; name an address, or remove the key";
                self.winglet.notes.error("winglet.listen", message);
            }
            self.parse(written, &base)
        } else {
            let one = Listen::tcp(&host, port, enabled, self.before);
            let one = one.map_err(|message| self.api.notes.error("api.host", message)).ok();
            let shown = one.as_ref().map(Listen::to_string).unwrap_or_default();
            self.winglet.notes.replace("winglet.listen", shown, Origin::Default);
            one.into_iter().collect()
        };
        let tls = listen.iter().find(|one| one.is_tls());
        let tls = self.tls_files(&ssl, tls);
        (listen, tls)
    }

    /// Where the server answers about itself. What it says and does is for this machine only.
    pub(super) fn control(&self, listen: &[Listen]) -> Option<Listen> {
        const KEY: &str = "winglet.control";
        let (notes, text) = (self.winglet.notes, self.winglet.string("control")?);
        let node = self.winglet.node("control");
        let base = node.map_or(self.base.to_owned(), |node| notes.base(node.file));
        let control = Listen::parse(&text, self.before).and_then(|one| one.beneath(&base));
        let control = control.map_err(|message| notes.error(KEY, message)).ok()?;
        if control.is_tls() || !control.is_local() {
            let message = format!(
                "{control} is no address of this machine alone; write unix:PATH, such as unix:/run/winglet/control.sock, or 127.0.0.1:PORT"
            );
            notes.error(KEY, message);
        }
        let taken = |other: &&Listen| {
            other.is_at(&control) || other.covers(&control) || control.covers(other)
        };
        if let Some(other) = listen.iter().find(taken) {
            let message = format!(
                "{control} is taken by {other}, where downloads are served; name another one"
            );
            notes.error(KEY, message);
        }
        Some(control)
    }

    fn parse(&self, texts: Vec<(String, String)>, base: &Path) -> Vec<Listen> {
        let notes = self.winglet.notes;
        let mut listen: Vec<Listen> = Vec::new();
        for (name, text) in texts {
            let one = match Listen::parse(&text, self.before).and_then(|one| one.beneath(base)) {
                Ok(one) => one,
                Err(message) => {
                    notes.error(name, message);
                    continue;
                }
            };
            if listen.iter().any(|other| other.is_at(&one)) {
                let message = format!("{one} stands twice in the list; name each address once");
                notes.error(name, message);
            } else if let Some(other) =
                listen.iter().find(|other| other.covers(&one) || one.covers(other))
            {
                let (all, part) = if other.covers(&one) { (other, &one) } else { (&one, other) };
                let message = format!(
                    "{all} takes what arrives at {part} too, and the system refuses the second of them; name one"
                );
                match all.is_ipv4() == part.is_ipv4() || v6_takes_v4() {
                    true => notes.error(name, message),
                    false => notes.warning(name, message),
                }
                listen.push(one);
            } else {
                listen.push(one);
            }
        }
        listen
    }

    /// The files of `ssl`, if `listen` needs them.
    fn tls_files(&self, ssl: &Section<'_>, listen: Option<&Listen>) -> Option<TlsFiles> {
        let (certificate, key) = (ssl.path("cert"), ssl.path("key"));
        let listen = listen?;
        if !cfg!(feature = "tls") {
            let message = format!(
                "{listen} asks for TLS, which this build does not have; put a proxy in front"
            );
            ssl.notes.error("winglet.listen", message);
            return None;
        }
        let file = |path: Option<PathBuf>, key, what| {
            if path.is_none() {
                let message = format!(
                    "is missing, and {listen} needs it for TLS; name the PEM file of the {what}"
                );
                ssl.notes.error(ssl.name_of(key), message);
            }
            path
        };
        let certificate = file(certificate, "cert", "certificate chain");
        let key = file(key, "key", "private key");
        Some(TlsFiles { certificate: certificate?, key: key? })
    }
}

/// Whether the system gives a socket at `[::]` what arrives over IPv4, too. In the sandbox, after a
/// start that went well, it does not tell.
fn v6_takes_v4() -> bool {
    std::fs::read("/proc/sys/net/ipv6/bindv6only").is_ok_and(|text| text.starts_with(b"0"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Node, wings};

    #[test]
    fn the_command_line_replaces_the_addresses() {
        let node = Node::new();
        let text = wings().replace("api:", "winglet: {listen: ['not one']}\napi:");
        let (config, findings) = node.load_with(&text, &["127.0.0.1:0", "unix:/run/w.sock"], &[]);
        assert!(findings.is_empty(), "{findings}");
        let config = config.unwrap();
        assert_eq!(
            config.listen,
            ["127.0.0.1:0".parse().unwrap(), "unix:/run/w.sock".parse().unwrap()]
        );
        assert_eq!(config.tls, None);
        let (config, findings) = node.load_with(&wings(), &["nonsense"], &[]);
        assert!(
            config.is_none()
                && findings.starts_with("error: --listen: \"nonsense\" is not an address")
        );
    }

    #[test]
    fn mistakes_name_the_key_and_the_remedy() {
        told_for_each(&[
            (
                "winglet: {listen: [':1']}",
                "winglet.listen[0]: \":1\" is not an address; write ADDR:PORT",
            ),
            (
                "winglet: {listen: ['[::]:1', '[::]:1']}",
                "winglet.listen[1]: [::]:1 stands twice in the list",
            ),
            (
                "winglet: {listen: ['127.0.0.1:1', '0.0.0.0:1']}",
                "winglet.listen[1]: 0.0.0.0:1 takes what arrives at 127.0.0.1:1 too",
            ),
            (
                "api: {port: 65536}",
                "api.port: is the number 65536; write a whole number from 0 to 65535",
            ),
            ("api: {host: 'no host'}", "api.host: \"no host\" has no address"),
        ]);
    }

    #[test]
    fn one_port_in_both_families_is_what_the_system_makes_of_it() {
        let node = Node::new();
        let severity = if super::v6_takes_v4() { "error" } else { "warning" };
        for (listen, told) in [
            ("'0.0.0.0:1', '[::]:1'", "[::]:1 takes what arrives at 0.0.0.0:1 too"),
            ("'[::]:1', '127.0.0.1:1'", "[::]:1 takes what arrives at 127.0.0.1:1 too"),
            ("'0.0.0.0:1', '[::1]:1'", ""),
            ("'0.0.0.0:1', '[::]:2'", ""),
            ("'0.0.0.0:0', '[::]:0'", ""),
        ] {
            let (config, findings) = node.load(&format!("winglet: {{listen: [{listen}]}}"));
            let told = match told {
                "" => String::new(),
                _ => format!("{severity}: winglet.listen[1]: {told}"),
            };
            assert!(
                findings.starts_with(&told) && findings.is_empty() == told.is_empty(),
                "{findings}"
            );
            assert_eq!(config.is_none(), findings.starts_with("error"));
        }
    }

    #[test]
    #[cfg(feature = "tls")]
    fn tls_without_its_files_is_a_mistake() {
        told_for_each(&[
            (
                "winglet: {listen: ['tls:[::]:1']}",
                "api.ssl.cert: is missing, and tls:[::]:1 needs it for TLS",
            ),
            (
                "api: {ssl: {enabled: true, cert: a, key: ''}}",
                "api.ssl.key: is missing, and tls:0.0.0.0:8080 needs it",
            ),
        ]);
    }

    #[test]
    #[cfg(not(feature = "tls"))]
    fn tls_without_the_feature_is_a_mistake() {
        told_for_each(&[(
            "api: {ssl: {enabled: true, cert: a, key: b}}",
            "winglet.listen: tls:0.0.0.0:8080 asks for TLS, which this build does not have",
        )]);
    }

    fn told_for_each(table: &[(&str, &str)]) {
        let node = Node::new();
        for (rest, told) in table {
            let (config, findings) = node.load(rest);
            assert!(config.is_none(), "{rest}");
            assert!(findings.starts_with(&format!("error: {told}")), "{rest}: {findings}");
        }
    }
}
