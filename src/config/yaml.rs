//! The one file that knows the YAML parser: from text to a tree of [`Value`]s.
//!
//! serde_yaml is archived upstream. What takes its place some day has to fill [`Value`], and nothing
//! else in the program notices.

/// The keys of a section and what they hold.
pub(super) type Entries = Vec<(String, Value)>;

/// What a key can hold.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Switch(bool),
    /// As the parser prints it: digits, a decimal fraction, `.inf` or `.nan`.
    Number(String),
    Text(String),
    List(Vec<Value>),
    Section(Entries),
    /// A value with a YAML tag, of which no key of ours has any use.
    Tagged,
}

/// Parses the text of a file.
///
/// # Errors
/// What is wrong and where, without the text itself: it may be the token.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let parsed = serde_yaml::from_str::<serde_yaml::Value>(text);
    let mut value = parsed.map_err(|error| explain(&error, text))?;
    // Wings' own parser follows `<<: *anchor`, too.
    value.apply_merge().map_err(|_| "has a merge key (<<) with something else than a section")?;
    Ok(convert(value))
}

fn convert(value: serde_yaml::Value) -> Value {
    match value {
        serde_yaml::Value::Null => Value::Null,
        serde_yaml::Value::Bool(switch) => Value::Switch(switch),
        serde_yaml::Value::Number(number) => Value::Number(number.to_string()),
        serde_yaml::Value::String(text) => Value::Text(text),
        serde_yaml::Value::Sequence(items) => Value::List(items.into_iter().map(convert).collect()),
        serde_yaml::Value::Mapping(mapping) => {
            let name_of = |key| match key {
                serde_yaml::Value::String(text) => visible(&text),
                other => convert(other).describe(),
            };
            let entry = |(key, value)| (name_of(key), convert(value));
            Value::Section(mapping.into_iter().map(entry).collect())
        }
        serde_yaml::Value::Tagged(_) => Value::Tagged,
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

impl Value {
    /// What the key with this dotted name holds in `entries`.
    pub(super) fn at<'a>(entries: &'a Entries, name: &str) -> Option<&'a Value> {
        let (first, rest) = name.split_once('.').unwrap_or((name, ""));
        let (_, value) = entries.iter().find(|(name, _)| name == first)?;
        match value {
            value if rest.is_empty() => Some(value),
            Value::Section(entries) => Value::at(entries, rest),
            _ => None,
        }
    }

    /// The text, if it is one.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

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
                let items: Vec<_> = items.iter().map(Value::plain).collect();
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
    fn merge_keys_are_followed() {
        let text = "x: &d {a: 1, b: 2}\ny: {<<: *d, b: 3}";
        let Value::Section(entries) = parse(text).unwrap() else { panic!() };
        let Value::Section(merged) = &entries[1].1 else { panic!() };
        let merged: Vec<_> = merged.iter().map(|(key, node)| (&**key, node.plain())).collect();
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
            let error = parse(text).unwrap_err();
            assert!(error.contains(told) && !error.contains("secret"), "{text:?}: {error}");
        }
    }
}
