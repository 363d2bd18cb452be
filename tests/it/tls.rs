//! TLS on the listening socket: versions, ciphers, certificates, and clients that stall.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Output, Stdio};

use rustls::{ClientConnection, SupportedProtocolVersion};

use crate::certs::{Kind, SSL, connect, handshake, tls_node};
use crate::client::{Client, connect_from};
use crate::harness::{Node, PATIENCE, Server, have, pattern};
use crate::mint::Token;

const VERSIONS: [&str; 2] = ["1.2", "1.3"];
const HEALTH: &str = "GET /health HTTP/1.1\r\nHost: node.test\r\nConnection: close\r\n\r\n";

fn tools() -> bool {
    have("openssl") && have("curl")
}

fn curl(node: &Node, server: &Server, arguments: &[&str]) -> Output {
    let port = server.address().port();
    Command::new("curl")
        .args(["--noproxy", "*", "--silent", "--show-error", "--max-time", "60"])
        .args(["--cacert", "tls/root.pem", "--resolve", &format!("node.test:{port}:127.0.0.1")])
        .args(arguments)
        .current_dir(node.path())
        .output()
        .unwrap()
}

fn url(server: &Server, target: &str) -> String {
    format!("https://node.test:{}{target}", server.address().port())
}

/// `openssl s_client` that says `input`, and all that it prints.
fn s_client(node: &Node, to: SocketAddr, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new("openssl")
        .args(["s_client", "-connect", &to.to_string(), "-servername", "node.test"])
        .args(["-CAfile", "tls/root.pem", "-verify_return_error"])
        .args(arguments)
        .current_dir(node.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that was refused has ended already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let [out, err] =
        [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned());
    out + &err
}

#[test]
fn curl_downloads_with_both_versions_and_both_kinds_of_key() {
    if !tools() {
        return;
    }
    let (small, large) = (pattern(100), pattern(16 << 20));
    for kind in [Kind::Ec, Kind::Rsa] {
        let (node, _authority) = tls_node(kind);
        node.file("small", &small);
        node.backup(&large);
        let server = node.start();
        for version in VERSIONS {
            let exactly = ["--tls-max", version, "--tlsv1.3"];
            let exactly = if version == "1.2" { &exactly[..2] } else { &exactly[..] };
            let (first, second) = (Token::file("small").target(), Token::backup().target());
            let (first, second) = (url(&server, &first), url(&server, &second));
            let info = "%{http_code} %{num_connects} %{ssl_verify_result}\n";
            let mut arguments = exactly.to_vec();
            arguments.extend(["-w", info, "-o", "one", &first, "-o", "two", &second]);
            let output = curl(&node, &server, &arguments);
            // One connection for both: it was kept alive.
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(said, "200 1 0\n200 0 0\n", "{kind:?} {version}: {output:?}");
            assert!(fs::read(node.path().join("one")).unwrap() == small, "{version}");
            assert!(fs::read(node.path().join("two")).unwrap() == large, "{version}");
        }
        server.wait_for_logs(4, "delivered");
    }
}

#[test]
fn openssl_sees_the_chain_the_protocol_and_resumes() {
    if !tools() {
        return;
    }
    let (node, _authority) = tls_node(Kind::Rsa);
    let server = node.start();
    for version in ["-tls1_2", "-tls1_3"] {
        let ask = |more: &[&str]| {
            let arguments = [&[version, "-alpn", "h2,http/1.1", "-ign_eof"], more].concat();
            s_client(&node, server.address(), &arguments, HEALTH)
        };
        let first = ask(&["-showcerts", "-sess_out", "session"]);
        for expected in [
            "ALPN protocol: http/1.1",
            "Verify return code: 0 (ok)",
            r#"{"status":"ok"}"#,
            "Secure Renegotiation IS ",
            "Compression: NONE",
        ] {
            assert!(first.contains(expected), "{version}: no {expected:?} in\n{first}");
        }
        assert_eq!(first.matches("BEGIN CERTIFICATE").count(), 2, "{first}");
        assert!(first.contains("New, TLSv1."), "{first}");
        let again = ask(&["-sess_in", "session"]);
        assert!(again.contains("Reused, TLSv1."), "{version}:\n{again}");
        assert!(again.contains(r#"{"status":"ok"}"#), "{again}");
    }
}

#[test]
fn old_versions_old_ciphers_and_renegotiation_are_refused() {
    if !have("openssl") {
        return;
    }
    let (node, _authority) = tls_node(Kind::Rsa);
    let server = node.start();
    let ask = |arguments: &[&str]| s_client(&node, server.address(), arguments, "Q\n");
    for version in ["-tls1", "-tls1_1"] {
        let said = ask(&[version, "-cipher", "ALL:@SECLEVEL=0"]);
        let alerts = ["alert protocol version", "alert handshake failure"];
        assert!(alerts.iter().any(|alert| said.contains(alert)), "{version}:\n{said}");
        assert!(said.contains("Cipher is (NONE)"), "{version}:\n{said}");
    }
    for cipher in [
        "AES128-SHA",
        "AES256-GCM-SHA384",
        "ECDHE-RSA-AES128-SHA",
        "ECDHE-RSA-AES256-SHA384",
        "DHE-RSA-AES128-GCM-SHA256",
        "aNULL",
        "CAMELLIA",
    ] {
        let said = ask(&["-tls1_2", "-cipher", &format!("{cipher}:@SECLEVEL=0")]);
        assert!(said.contains("alert handshake failure"), "{cipher}:\n{said}");
    }
    let said = ask(&["-alpn", "h2"]);
    assert!(said.contains("alert no application protocol"), "{said}");
    // A line with R makes s_client ask for a new handshake.
    let said = s_client(&node, server.address(), &["-tls1_2"], "R\n");
    assert!(said.contains("RENEGOTIATING") && said.contains("no renegotiation"), "{said}");
    // It went on serving meanwhile.
    let said = s_client(&node, server.address(), &["-ign_eof"], HEALTH);
    assert!(said.contains(r#"{"status":"ok"}"#), "{said}");
}

#[test]
fn plain_http_is_told_so() {
    if !tools() {
        return;
    }
    let (node, _authority) = tls_node(Kind::Ec);
    let server = node.start();
    // More than the server looks at: what it leaves unread must not turn the answer into a reset.
    let fields = format!("Padding: {}\r\n", "x".repeat(9000));
    for fields in ["", fields.as_str()] {
        let mut client = Client::connect(server.address());
        let answer = client.get_with("/health", fields);
        assert_eq!(answer.status, 400, "{}", answer.raw);
        assert!(answer.text().contains("https://"), "{}", answer.text());
        let mut rest = Vec::new();
        let ended = client.stream().try_clone().unwrap().read_to_end(&mut rest);
        assert!(ended.is_ok() && rest.is_empty(), "{ended:?}, {rest:?}");
    }
    let plain = format!("http://{}/health", server.address());
    let output = curl(&node, &server, &["-i", &plain]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.starts_with("HTTP/1.1 400"), "{output:?}");
}

#[test]
fn api_ssl_alone_serves_tls_on_the_nodes_port() {
    if !tools() {
        return;
    }
    let api = SSL.replace("api:\n", "api:\n  host: 127.0.0.1\n  port: 0\n");
    let node = Node::new().top_level(&api);
    let authority = crate::certs::Authority::new(&node);
    authority.leaf("leaf", Kind::Ec, "30");
    let written = fs::read_to_string(node.write_config()).unwrap();
    let lines = written.lines().filter(|line| !line.contains("listen:"));
    let config: String = lines.map(|line| format!("{line}\n")).collect();
    fs::write(node.config(), config.replace("winglet:\n", "")).unwrap();
    let server = node.start_with(&[]);
    server.wait_for_log("listening on https://127.0.0.1:");
    let output = curl(&node, &server, &[&url(&server, "/health")]);
    assert_eq!(output.stdout, br#"{"status":"ok"}"#, "{output:?}");
}

/// Newer versions of openssl make none any more.
const VERSION_1: &str = "\
-----BEGIN CERTIFICATE-----
MIIBFTCBuwIUTXxvfPKQ96ZR7G9AMFTromdKGgwwCgYIKoZIzj0EAwIwDDEKMAgG
A1UEAwwBeDAgFw0yNjExMjQxMTM5MDJaGA8yMTI2MTAzMTExMzkwMlowDDEKMAgG
A1UEAwwBeTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABJPtdKM4e0rpSYxdJgXO
FGl/GxBMs6mC0gih8tpLkXiqWP3aa9wUw5LylO804sBoTHS9Al/McVggT1olMoPu
YqwwCgYIKoZIzj0EAwIDSQAwRgIhAKl5vRt5zOvCLgnNoUPRT/Bpx8TGieBeyKp7
Ka6B4tTBAiEAhECNq3Cc57hiY2It6CeexITy27KVEL/jnkVdX9fpYMk=
-----END CERTIFICATE-----
";

#[test]
fn check_says_what_is_wrong_with_certificate_and_key() {
    if !have("openssl") {
        return;
    }
    let (node, authority) = tls_node(Kind::Ec);
    authority.leaf("other", Kind::Rsa, "30");
    authority.leaf("soon", Kind::Ec, "3");
    authority.leaf("old", Kind::Ec, "0");
    fs::write(authority.path("empty"), "").unwrap();
    fs::write(authority.path("old.v1"), VERSION_1).unwrap();
    let chain = ["middle.pem", "leaf.pem"].map(|name| fs::read(authority.path(name)).unwrap());
    fs::write(authority.path("reversed"), chain.concat()).unwrap();
    let secret = ["genpkey", "-algorithm", "RSA", "-aes256", "-pass", "pass:1234", "-out"];
    authority.openssl(&[&secret[..], &["secret.key"]].concat());
    let ancient = ["rsa", "-in", "other.key", "-aes256", "-passout", "pass:1234", "-traditional"];
    authority.openssl(&[&ancient[..], &["-out", "ancient.key"]].concat());
    fs::write(authority.path("garbage"), "-----BEGIN CERTIFICATE-----\n%%%\n").unwrap();
    authority.openssl(&["x509", "-in", "leaf.pem", "-outform", "DER", "-out", "leaf.der"]);
    let config = fs::read_to_string(node.write_config()).unwrap();
    let check = |cert: &str, key: &str| {
        let files = format!("cert: tls/{cert}, key: tls/{key}");
        let changed = config.replace("cert: tls/leaf.pem, key: tls/leaf.key", &files);
        fs::write(node.config(), changed).unwrap();
        let output = node.run(&["check", "--config", "config.yml"]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), said)
    };
    let (code, said) = check("leaf.pem", "leaf.key");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("2 in the chain, valid until "), "{said}");
    assert!(said.contains("tls:127.0.0.1:0") || said.contains("https://"), "{said}");
    let (code, said) = check("soon.pem", "soon.key");
    assert!(code == Some(0) && said.contains("expires on"), "{said}");
    // It serves on: a reload or a restart must not be refused because of it.
    let (code, said) = check("old.pem", "old.key");
    assert!(code == Some(0) && said.contains("api.ssl.cert: expired on"), "{said}");
    let server = node.start_with(&[]);
    server.wait_for_log("WARN  api.ssl.cert: expired on");
    assert!(check("old.pem", "old.key").1.lines().all(|line| !line.contains("cannot listen")));
    drop(server);
    let table = [
        ("leaf.pem", "other.key", &["do not go together", "tls/other.key"][..]),
        ("leaf.pem", "soon.key", &["do not go together", "tls/soon.key"]),
        ("old.v1", "leaf.key", &["api.ssl.cert", "X.509 version 1"]),
        ("reversed", "leaf.key", &["api.ssl.cert", "the key belongs to certificate 2 of the file"]),
        ("leaf.pem", "secret.key", &["api.ssl.key", "it is encrypted", "openssl pkey"]),
        ("leaf.pem", "ancient.key", &["api.ssl.key", "it is encrypted"]),
        ("nowhere.pem", "leaf.key", &["api.ssl.cert", "tls/nowhere.pem"]),
        ("leaf.pem", "nowhere.key", &["api.ssl.key", "tls/nowhere.key"]),
        ("empty", "leaf.key", &["api.ssl.cert", "holds no certificate"]),
        ("garbage", "leaf.key", &["api.ssl.cert", "tls/garbage", "PEM"]),
        ("leaf.pem", "leaf.pem", &["api.ssl.key", "holds no private key"]),
        ("leaf.der", "leaf.key", &["api.ssl.cert", "it is DER", "-inform DER"]),
        (".", "leaf.key", &["api.ssl.cert"]),
    ];
    for (cert, key, expected) in table {
        let (code, said) = check(cert, key);
        assert_eq!(code, Some(1), "{cert} {key}: {said}");
        assert!(expected.iter().all(|text| said.contains(text)), "{expected:?} in\n{said}");
        assert_eq!(said.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{said}");
        let output = node.run(&["serve", "--config", "config.yml"]);
        assert_eq!(output.status.code(), Some(1), "{cert} {key}: {output:?}");
    }
}

/// Where a client stops in its handshake.
#[derive(Clone, Copy, Debug)]
enum Step {
    Silent,
    HalfHello,
    Hello,
    HalfFinished,
    Finished,
    HalfRequest,
}

/// Goes as far as `step`, then does nothing more.
fn stall(
    client: ClientConnection,
    mut stream: TcpStream,
    step: Step,
) -> (ClientConnection, TcpStream) {
    let mut client = client;
    let send = |client: &mut ClientConnection, stream: &mut TcpStream, half: bool| {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let end = if half { bytes.len() / 2 } else { bytes.len() };
        stream.write_all(&bytes[..end]).unwrap();
    };
    if !matches!(step, Step::Silent) {
        send(&mut client, &mut stream, matches!(step, Step::HalfHello));
    }
    if matches!(step, Step::HalfFinished | Step::Finished | Step::HalfRequest) {
        while !client.wants_write() {
            assert_ne!(client.read_tls(&mut stream).unwrap(), 0);
            client.process_new_packets().unwrap();
        }
        send(&mut client, &mut stream, matches!(step, Step::HalfFinished));
    }
    if matches!(step, Step::HalfRequest) {
        // With TLS 1.2 the server has the last word.
        while client.is_handshaking() {
            assert_ne!(client.read_tls(&mut stream).unwrap(), 0);
            client.process_new_packets().unwrap();
        }
        client.writer().write_all(b"GET /health HT").unwrap();
        send(&mut client, &mut stream, false);
    }
    (client, stream)
}

#[test]
fn clients_that_stall_in_the_handshake_cost_a_slot_and_are_closed_in_time() {
    if !have("openssl") {
        return;
    }
    let (node, authority) = tls_node(Kind::Ec);
    let node = node.winglet("timeouts: {head: 3s}");
    let length = 64 << 20;
    node.sparse("large", length);
    let server = node.start();
    let mut download = connect(&authority.root(), server.address(), Some(32 * 1024));
    let target = Token::file("large").target();
    write!(download, "GET {target} HTTP/1.1\r\nHost: node.test\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut begin = [0; 12];
    download.read_exact(&mut begin).unwrap();
    assert_eq!(&begin, b"HTTP/1.1 200");
    let threads = server.threads();
    let steps = [
        Step::Silent,
        Step::HalfHello,
        Step::Hello,
        Step::HalfFinished,
        Step::Finished,
        Step::HalfRequest,
    ];
    let versions: [&'static SupportedProtocolVersion; 2] =
        [&rustls::version::TLS12, &rustls::version::TLS13];
    let mut clients = Vec::new();
    for count in 0..204 {
        let source = format!("127.0.1.{}", 1 + count % 5);
        let stream = connect_from(&source, server.address(), None);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let client = handshake(&authority.root(), versions[count / steps.len() % 2]);
        let step = steps[count % steps.len()];
        let (client, stream) = stall(client, stream, step);
        clients.push((step, client, stream));
    }
    assert!(server.threads() <= threads, "a thread for a connection");
    assert_eq!(shown_health(&authority.root(), server.address()), r#"{"status":"ok"}"#);
    for (step, mut client, mut stream) in clients {
        // Reading ends: the server has hung up, in whatever way fits the step.
        let mut plain = Vec::new();
        loop {
            match client.read_tls(&mut stream) {
                Ok(0) => break,
                Ok(_) => {
                    if let Ok(state) = client.process_new_packets() {
                        let mut piece = vec![0; state.plaintext_bytes_to_read()];
                        client.reader().read_exact(&mut piece).unwrap();
                        plain.extend(piece);
                    }
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{step:?}");
                    break;
                }
            }
        }
        if matches!(step, Step::HalfRequest) {
            assert!(plain.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&plain));
        } else {
            assert!(plain.is_empty(), "{step:?}: {}", String::from_utf8_lossy(&plain));
        }
    }
    let mut rest = Vec::new();
    download.read_to_end(&mut rest).unwrap();
    let head = rest.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    assert_eq!((rest.len() - head) as u64, length);
    drop(download);
    server.wait_for_log("delivered");
}

fn shown_health(root: &std::path::Path, to: SocketAddr) -> String {
    let mut client = connect(root, to, None);
    client.write_all(HEALTH.as_bytes()).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    answer.rsplit("\r\n\r\n").next().unwrap().to_owned()
}
