//! The one file that knows the YAML parser: from text to a tree of [`Node`]s, and one tree over
//! another.
//!
//! serde_yaml is archived upstream. What takes its place some day has to fill [`Value`], and nothing
//! else in the program notices.

/// A value, and which of the files it comes from.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    /// What was written.
    pub(super) value: Value,
    /// The number of the file, in the order in which they were given.
    pub(super) file: usize,
}

/// What a key can hold.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Switch(bool),
    /// As the parser prints it: digits, a decimal fraction, `.inf` or `.nan`.
    Number(String),
    Text(String),
    List(Vec<Node>),
    Section(Vec<(String, Node)>),
    /// A value with a YAML tag, of which no key of ours has any use.
    Tagged,
}

/// Parses the text of file number `file`.
///
/// # Errors
/// What is wrong and where, without the text itself: it may be the token.
pub(super) fn parse(text: &str, file: usize) -> Result<Node, String> {
    let parsed = serde_yaml::from_str::<serde_yaml::Value>(text);
    let mut value = parsed.map_err(|error| explain(&error, text))?;
    // Wings' own parser follows `<<: *anchor`, too.
    value.apply_merge().map_err(|_| "has a merge key (<<) with something else than a section")?;
    Ok(convert(value, file))
}

fn convert(value: serde_yaml::Value, file: usize) -> Node {
    let value = match value {
        serde_yaml::Value::Null => Value::Null,
        serde_yaml::Value::Bool(switch) => Value::Switch(switch),
        serde_yaml::Value::Number(number) => Value::Number(number.to_string()),
        serde_yaml::Value::String(text) => Value::Text(text),
        serde_yaml::Value::Sequence(items) => {
            Value::List(items.into_iter().map(|item| convert(item, file)).collect())
        }
        serde_yaml::Value::Mapping(mapping) => {
            let entry = |(key, value)| (name_of(key), convert(value, file));
            Value::Section(mapping.into_iter().map(entry).collect())
        }
        serde_yaml::Value::Tagged(_) => Value::Tagged,
    };
    Node { value, file }
}

fn name_of(key: serde_yaml::Value) -> String {
    match key {
        serde_yaml::Value::String(text) => visible(&text),
        other => convert(other, 0).value.describe(),
    }
}

/// `text` as it is, unless it would disturb the terminal that it is shown on.
fn visible(text: &str) -> String {
    if text.contains(char::is_control) { text.escape_debug().to_string() } else { text.to_owned() }
}

fn explain(error: &serde_yaml::Error, document: &str) -> String {
    let text = error.to_string();
    if let Some(key) = text.split("duplicate entry with key ").nth(1) {
        let key = key.split(" at line").next().unwrap_or(key);
        let line = repeated(document, key.trim_matches('"'));
        let line = line.map_or(String::new(), |line| format!(", the second time at line {line}"));
        return format!("has the key {key} twice in one section{line}; keep one of them");
    }
    match error.location() {
        Some(at) if text.contains("invalid type") || text.contains("invalid value") => {
            let (line, column) = (at.line(), at.column());
            format!(
                "holds a number that is too large, at line {line} column {column}; put it in quotes"
            )
        }
        Some(at) if text.contains("cannot start any token") && tab_indents(document, at.line()) => {
            format!("has a tab at the beginning of line {}; indent with spaces", at.line())
        }
        _ => {
            let quotes = ["an alias", "a flow node", "cannot start any token"];
            let quotes = match quotes.iter().any(|problem| text.contains(problem)) {
                true => "; put a text such as \"[::1]:8080\" or \"*.example.com\" in quotes",
                false => "",
            };
            format!("is not YAML: {text}{quotes}")
        }
    }
}

fn tab_indents(document: &str, line: usize) -> bool {
    let line = document.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    line.chars()
        .take_while(|character| character.is_whitespace())
        .any(|character| character == '\t')
}

/// The line on which `key` stands for the second time in one section: the parser does not tell. A
/// section in braces keeps its secret.
fn repeated(document: &str, key: &str) -> Option<usize> {
    let indentation = |line: &str| line.len() - line.trim_start().len();
    let mut seen = None;
    for (number, line) in document.lines().enumerate() {
        let (indent, text) = (indentation(line), line.trim_start());
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        if seen.is_some_and(|seen| indent < seen) {
            seen = None;
        }
        let name = text.split(':').next().unwrap_or(text).trim_matches(['"', '\'']);
        match (name == key, seen) {
            (true, Some(seen)) if indent == seen => return Some(number + 1),
            (true, None) => seen = Some(indent),
            _ => {}
        }
    }
    None
}

impl Node {
    /// Puts `later` over this value: sections are joined key by key, anything else is replaced. A
    /// key without a value leaves what was there.
    pub(super) fn overlay(&mut self, later: Node) {
        match (&mut self.value, later.value) {
            (_, Value::Null) => {}
            (Value::Section(ours), Value::Section(theirs)) => {
                for (key, value) in theirs {
                    match ours.iter_mut().find(|(name, _)| *name == key) {
                        Some((_, node)) => node.overlay(value),
                        None => ours.push((key, value)),
                    }
                }
            }
            (_, value) => *self = Node { value, file: later.file },
        }
    }

    /// Takes the top-level `key` away if its text is empty: a place to fill in, in a file that
    /// comes after one with a value.
    pub(super) fn drop_empty(&mut self, key: &str) {
        if let Value::Section(entries) = &mut self.value {
            entries.retain(|(name, node)| name != key || node.value != Value::Text(String::new()));
        }
    }
}

impl Value {
    /// The kind of the value and, if it is short, the value.
    pub(super) fn describe(&self) -> String {
        const SHOWN: usize = 60;
        match self {
            Value::Null => "nothing".to_owned(),
            Value::Switch(switch) => format!("the switch {switch}"),
            Value::Number(number) => format!("the number {number}"),
            Value::Text(text) if text.chars().count() <= SHOWN => format!("the text {text:?}"),
            Value::Text(_) => "a long text".to_owned(),
            Value::List(_) => "a list".to_owned(),
            Value::Section(_) => "a section".to_owned(),
            Value::Tagged => "a value with a YAML tag".to_owned(),
        }
    }

    /// The value as a line of the configuration shows it.
    pub(super) fn plain(&self) -> String {
        match self {
            Value::Switch(switch) => switch.to_string(),
            Value::Text(text) if text.is_empty() => "\"\"".to_owned(),
            Value::Number(text) | Value::Text(text) => visible(text),
            Value::List(items) => {
                let items: Vec<_> = items.iter().map(|item| item.value.plain()).collect();
                format!("[{}]", items.join(", "))
            }
            other => other.describe(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_file_wins_key_by_key() {
        let mut first = parse("a: 1\nb: {x: 1, y: [1]}\nc: old\nd: {z: 1}", 0).unwrap();
        first.overlay(parse("b: {y: [2, 3], z: 4}\nc:\nd: 5\ne: 6", 1).unwrap());
        let Value::Section(entries) = first.value else { panic!() };
        let shown: Vec<_> = entries
            .iter()
            .map(|(key, node)| (key.as_str(), node.value.plain(), node.file))
            .collect();
        let text = |text: &str| text.to_owned();
        assert_eq!(
            shown,
            [
                ("a", text("1"), 0),
                ("b", text("a section"), 0),
                ("c", text("old"), 0),
                ("d", text("5"), 1),
                ("e", text("6"), 1)
            ]
        );
        let Value::Section(inner) = &entries[1].1.value else { panic!() };
        let inner: Vec<_> = inner.iter().map(|(key, node)| (key.as_str(), node.file)).collect();
        assert_eq!(inner, [("x", 0), ("y", 1), ("z", 1)]);
    }

    #[test]
    fn merge_keys_are_followed() {
        let text = "x: &d {a: 1, b: 2}\ny: {<<: *d, b: 3}";
        let Value::Section(entries) = parse(text, 0).unwrap().value else { panic!() };
        let Value::Section(merged) = &entries[1].1.value else { panic!() };
        let merged: Vec<_> =
            merged.iter().map(|(key, node)| (&**key, node.value.plain())).collect();
        assert_eq!(merged, [("b", "3".to_owned()), ("a", "1".to_owned())]);
    }

    #[test]
    fn a_mistake_is_placed_and_shows_no_value() {
        for (text, told) in [
            ("a: [1\nb: 2\n", "line 2"),
            ("token: 99999999999999999999\n", "at line 1 column 8; put it in quotes"),
            (
                "a: 1\nb: 2\na: 3\n",
                "has the key \"a\" twice in one section, the second time at line 3; keep",
            ),
            ("x:\n  a: 1\ny:\n  a: secret\n  # a: 2\n\n  'a': 2\n", "at line 7; keep"),
            ("x: {a: secret, a: 2}\n", "has the key \"a\" twice in one section; keep"),
            ("a: \tsecret: 1\n", "line 1"),
            ("a:\n\tb: secret\n", "has a tab at the beginning of line 2; indent with spaces"),
            ("a: 'secret", "line 1"),
            ("a: &x secret\nb: *y", "line 2"),
            (
                "a: [::1]:8080\n",
                "at line 1 column 5, while parsing a flow node; put a text such as",
            ),
            ("a: [*.secret]\n", "put a text such as \"[::1]:8080\" or \"*.example.com\" in quotes"),
            ("a: @secret\n", "at line 1 column 4"),
            ("a: {<<: secret}\n", "has a merge key (<<) with something else than a section"),
        ] {
            let error = parse(text, 0).unwrap_err();
            assert!(error.contains(told) && !error.contains("secret"), "{text:?}: {error}");
        }
    }
}
