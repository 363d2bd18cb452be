//! Addresses: where to listen, from the command line, `winglet.listen` or `api`; the files that TLS
//! there needs; and the proxies in front.

use std::path::Path;

use ipnet::IpNet;

use super::written::{Document, Written};
use super::yaml::Value;
use super::{Config, Listen, TlsFiles, keys};

/// Where downloads are served, and the files that TLS needs there.
pub(super) fn listen(config: &mut Config, written: &Written<'_>) {
    let document = written.document;
    let tls = written.at("api.ssl.enabled").switch();
    let (api, port) = (written.at("api.host"), written.at("api.port").count(0..=u16::MAX));
    let host = api.text().unwrap_or_default();
    // Looked at even if the command line replaces it, so that its type is checked.
    let texts = written.texts("\"0.0.0.0:8080\"");
    config.listen = if !document.listen.is_empty() {
        written.set(Some(document.listen.join(" ")), "command line");
        let given = document.listen.iter().map(|text| ("--listen".to_owned(), text.clone()));
        parse(document, given.collect(), &document.notes.last_base())
    } else if let Some(node) = written.value() {
        if *node == Value::List(Vec::new()) {
            written.error("is an empty list; name an address, or remove the key");
        }
        parse(document, texts, &written.base())
    } else {
        let one = api.ok(Listen::tcp(&host, port, tls, document.before));
        written.set(one.as_ref().map(Listen::to_string), "default");
        one.into_iter().collect()
    };
    config.tls = tls_files(written, config.listen.iter().find(|one| one.is_tls()));
}

/// Where the server answers about itself. What it says and does is for this machine only.
pub(super) fn control(config: &Config, written: &Written<'_>) -> Option<Listen> {
    let before = written.document.before;
    let control = written.ok(Listen::parse(&written.text()?, &written.base(), before))?;
    if control.is_tls() || !control.is_local() {
        written.error(format!(
            "{control} is no address of this machine alone; write unix:PATH, such as unix:/run/winglet/control.sock, or 127.0.0.1:PORT"
        ));
    }
    if let Some(other) = config.listen.iter().find(|other| other.meets(&control)) {
        written.error(format!("{control} is taken by {other}, where downloads are; name another"));
    }
    Some(control)
}

fn parse(document: &Document<'_>, texts: Vec<(String, String)>, base: &Path) -> Vec<Listen> {
    let notes = &document.notes;
    let mut listen: Vec<Listen> = Vec::new();
    for (name, text) in texts {
        let one = match Listen::parse(&text, base, document.before) {
            Ok(one) => one,
            Err(message) => {
                notes.error(name, message);
                continue;
            }
        };
        if let Some(other) = listen.iter().find(|other| other.meets(&one)) {
            let message =
                format!("{one} and {other} meet, and the system refuses one of them; name one");
            match one.is_ipv4() == other.is_ipv4() || v6_takes_v4() {
                true => notes.error(name, message),
                false => notes.warning(name, message),
            }
        }
        listen.push(one);
    }
    listen
}

/// The files of `api.ssl`, if `listen` needs them.
fn tls_files(written: &Written<'_>, listen: Option<&Listen>) -> Option<TlsFiles> {
    let files = [("api.ssl.cert", "certificate chain"), ("api.ssl.key", "private key")];
    let [certificate, key] = files.map(|(name, what)| {
        let (path, has_tls) = (written.at(name).path(), cfg!(feature = "tls"));
        if let (None, Some(listen), true) = (&path, listen, has_tls) {
            let message =
                format!("is missing, and {listen} needs it; name the PEM file of the {what}");
            written.at(name).error(message);
        }
        path
    });
    let listen = listen?;
    if !cfg!(feature = "tls") {
        written
            .error(format!("{listen} asks for TLS, which this build lacks; put a proxy in front"));
    }
    Some(TlsFiles { certificate: certificate?, key: key? })
}

/// Keeps the addresses. Returns true if there are others.
pub(super) fn keep_listen(config: &mut Config, before: &Config) -> bool {
    // They may need a certificate that the new ones don't name.
    if config.tls.is_none() {
        config.tls.clone_from(&before.tls);
    }
    keys::keep(&mut config.listen, &before.listen)
}

/// Keeps the files of TLS if new ones are in other directories. Returns true if they are.
pub(super) fn keep_tls(config: &mut Config, before: &Config) -> bool {
    let directories = |config: &Config| {
        let tls = config.tls.as_ref()?;
        Some((tls.certificate.parent()?.to_owned(), tls.key.parent()?.to_owned()))
    };
    let changed = directories(config) != directories(before);
    if changed {
        config.tls.clone_from(&before.tls);
    }
    changed
}

/// Blocks of proxies.
pub(super) fn proxies(proxies: &Written<'_>) -> Vec<IpNet> {
    let networks = proxies.networks();
    if let Some(all) = networks.iter().find(|network| network.prefix_len() == 0) {
        proxies.warning(format!(
            "{all} is everybody, so any client can pass for another address; name the proxy's own"
        ));
    }
    networks
}

/// Returns true if the system gives a socket at `[::]` what arrives over IPv4, too. In the sandbox,
/// after a start that went well, it does not tell.
fn v6_takes_v4() -> bool {
    std::fs::read("/proc/sys/net/ipv6/bindv6only").is_ok_and(|text| text.starts_with(b"0"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Node, at, wings};

    #[test]
    fn the_command_line_replaces_the_addresses() {
        let node = Node::new();
        let text = wings().replace("api:", "winglet: {listen: ['not one']}\napi:");
        let (config, findings) = node.load_with(&text, &["127.0.0.1:0", "unix:/run/w.sock"], &[]);
        assert!(findings.is_empty(), "{findings}");
        let config = config.unwrap();
        assert_eq!(config.listen, [at("127.0.0.1:0"), at("unix:/run/w.sock")]);
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
                "winglet.listen[1]: [::]:1 and [::]:1 meet, and the system refuses one of them",
            ),
            (
                "winglet: {listen: ['127.0.0.1:1', '0.0.0.0:1']}",
                "winglet.listen[1]: 0.0.0.0:1 and 127.0.0.1:1 meet, and the system",
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
            ("'0.0.0.0:1', '[::]:1'", "[::]:1 and 0.0.0.0:1 meet"),
            ("'[::]:1', '127.0.0.1:1'", "127.0.0.1:1 and [::]:1 meet"),
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
                "api.ssl.cert: is missing, and tls:[::]:1 needs it; name the PEM file",
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
            "winglet.listen: tls:0.0.0.0:8080 asks for TLS, which this build lacks",
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
