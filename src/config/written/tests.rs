//! One key at a time.

use super::*;

/// Reads the key `name` of the table from `value`, and what was found.
fn read<T>(name: &str, value: &str, get: impl FnOnce(&Written<'_>) -> T) -> (T, String) {
    let key = KEYS.iter().find(|key| key.name == name).unwrap();
    let nest = |inner: String, name| format!("{{{name}: {inner}}}");
    let nested = name.rsplit('.').fold(value.to_owned(), nest);
    let Value::Section(entries) = yaml::parse(&nested).unwrap() else { panic!() };
    let (listen, before, environment) = (&[][..], &[][..], &|_: &str| None);
    let document =
        Document { layers: vec![entries], notes: Notes::default(), listen, environment, before };
    let got = get(&Written { key, document: &document });
    let found: Vec<_> = document.notes.findings.borrow().iter().map(ToString::to_string).collect();
    (got, found.join("\n"))
}

#[test]
fn switches() {
    for (text, right) in [("true", true), ("off", false), ("Yes", true), ("", true), ("~", true)] {
        assert_eq!(
            read("winglet.sandbox", text, |key| key.switch()),
            (right, String::new()),
            "{text}"
        );
    }
    let (got, found) = read("winglet.sandbox", "1", |key| key.switch());
    assert!(got);
    assert_eq!(found, "winglet.sandbox: is the number 1; write true or false");
}

#[test]
fn whole_numbers() {
    let get = |text: &str| read("winglet.threads", text, |key| key.count(1usize..=1024));
    for (text, right) in [("1", 1), ("1024", 1024), ("\"80\"", 80), ("", 8)] {
        assert_eq!(get(text), (right, String::new()), "{text}");
    }
    for text in
        ["0", "1025", "-1", "1.5", "many", "[1]", "\"99999999999999999999\"", "\"\"", "true"]
    {
        let (got, found) = get(text);
        assert_eq!(got, 8);
        assert!(found.ends_with("write a whole number from 1 to 1024"), "{text}: {found}");
    }
}

#[test]
fn durations() {
    let get = |text: &str| read("winglet.timeouts.idle", text, |key| key.time("1ms", "1day"));
    for (text, millis) in
        [("24h", 86_400_000), ("500ms", 500), ("1m 30s", 90_000), ("15", 15_000), ("", 15_000)]
    {
        assert_eq!(get(text), (Duration::from_millis(millis), String::new()), "{text}");
    }
    for text in ["soon", "0", "25h", "-1", "1.5", "{}", "10 parsecs"] {
        let (got, found) = get(text);
        assert_eq!(got, Duration::from_secs(15));
        assert!(found.contains("write a duration from 1ms to 1day"), "{text}: {found}");
    }
}

#[test]
fn permissions() {
    let get = |text: &str| read("winglet.unix_mode", text, |key| key.mode());
    for (text, right) in [("\"0660\"", 0o660), ("0600", 0o600), ("\"777\"", 0o777), ("", 0o660)] {
        assert_eq!(get(text), (right, String::new()), "{text}");
    }
    for text in ["660", "\"0668\"", "\"1777\"", "\"\"", "rw-rw----", "0o660"] {
        assert!(get(text).1.contains("octal digits"), "{text}");
    }
}

#[test]
fn texts_and_lists() {
    let get = |text: &str| read("winglet.node", text, |key| key.text());
    assert_eq!(get("\" a \""), (Some("a".to_owned()), String::new()));
    assert_eq!(get("\"\"").0, None);
    assert!(get("[]").1.contains("is a list; write a text"));
    assert_eq!(read("api.host", "\"\"", |key| key.text()).0, Some("0.0.0.0".to_owned()));
    let get = |text: &str| read("winglet.hidden", text, |key| key.texts("\"a\""));
    let named = |n: usize, text: &str| (format!("winglet.hidden[{n}]"), text.to_owned());
    assert_eq!(get("[a, b]").0, [named(0, "a"), named(1, "b")]);
    assert_eq!(get("a").0, [named(0, "a")]);
    let (got, found) = get("[a, 5]");
    assert_eq!(got, [named(0, "a")]);
    assert_eq!(found, "winglet.hidden[1]: is the number 5; write a text, such as \"a\"");
    assert!(get("{a: b}").1.contains("write a list"));
}

#[test]
fn rates() {
    let get = |text: &str| read("winglet.bandwidth", text, |key| key.rate(1 << 20, "MiB/s"));
    for (text, bytes) in [
        ("1.5", 1_572_864),
        ("0", 0),
        ("0.0000001", 1),
        ("\"2\"", 2 << 20),
        ("500KiB", 512_000),
        ("10MB", 10_000_000),
        ("10 MB/s", 10_000_000),
        ("1GiB/s", 1 << 30),
        ("7B", 7),
    ] {
        assert_eq!(get(text), (bytes, String::new()), "{text}");
    }
    for text in ["-1", "1048577", ".nan", ".inf", "fast", "10Mbit", "10M", "MB", "{}", "true"] {
        let (rate, found) = get(text);
        let told = "write a number of MiB/s or a rate, such as 500KiB or 10MB";
        assert!(rate == 0 && found.ends_with(told), "{text}: {found}");
    }
    assert_eq!(read("winglet.min_rate", "2000", |key| key.rate(1, "bytes/s")).0, 2000);
}

#[test]
fn what_means_something_to_a_shell_only_is_no_path() {
    for (text, told) in [
        (
            "~/backups",
            "winglet.state_directory: is \"~/backups\", and only a shell knows what ~ is;",
        ),
        ("\"~\"", "winglet.state_directory: is \"~\", and only a shell"),
        (
            "\"${HOME}/x\"",
            "winglet.state_directory: is \"${HOME}/x\", and variables count in `token` only",
        ),
        ("$HOME/x", "winglet.state_directory: is \"$HOME/x\", and variables"),
    ] {
        let (path, found) = read("winglet.state_directory", text, |key| key.path());
        assert!(path.is_none() && found.starts_with(told), "{found}");
    }
    assert!(read("winglet.state_directory", "/a~b/$c", |key| key.path()).0.is_some());
}
