//! The key of the tokens' signatures: written in the file, or in a file of its own, or in the
//! environment. No message and no `Debug` shows any part of it.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use jwt_simple::reexports::ct_codecs;

use super::Config;
use super::file::reason;
use super::findings::Notes;
use super::written::Written;
use super::yaml::Value;

/// The token of the sample `config.yml`, which works on this machine only.
pub const SAMPLE_TOKEN: &str = "sample-token-sample-token-sample-token-never-use-this-on-a-node";
/// A key with fewer characters is refused: somebody made it up.
const MIN_CHARACTERS: usize = 16;

/// A key that signs and verifies tokens, or a password.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub(super) String);

impl Secret {
    /// The key itself.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Returns true if it is the sample's, which everybody knows.
    pub fn is_the_samples(&self) -> bool {
        self.0 == SAMPLE_TOKEN
    }

    /// Whether `given` is the key, in a time that does not tell how much of it is right.
    pub fn matches(&self, given: &[u8]) -> bool {
        ct_codecs::verify(self.as_bytes(), given)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[not shown]")
    }
}

const REMEDY: &str = "copy the whole of `token` from the node's Configuration tab in the Panel";

/// The key, from wherever it is written, and the file that holds it if it has one of its own. What is
/// wrong with it is noted, and then it is empty.
pub(super) fn read(token: &Written<'_>) -> (Secret, Option<PathBuf>) {
    let (notes, environment) = (&token.document.notes, token.document.environment);
    let variable = environment("WINGS_TOKEN").filter(|token| !token.is_empty());
    let (base, origin) = match variable {
        Some(_) => (notes.last_base(), "environment".to_owned()),
        None => (token.base(), token.origin()),
    };
    let written = match (variable, token.value()) {
        (Some(text), _) => Ok(text),
        (None, Some(Value::Text(text))) => Ok(text.clone()),
        (None, Some(_)) => Err("is not a text; put it in quotes".to_owned()),
        (None, None) => Err(format!("is missing; {REMEDY}")),
    };
    let found = token.ok(written.and_then(|written| resolve(&written, &base, environment)));
    let shown = found.as_ref().map(|(secret, _)| format!("({} bytes)", secret.0.len()));
    token.set(shown, &origin);
    notes.setting(token.key.name, |token| token.fits = "a text, in quotes".into());
    found.unwrap_or_default()
}

fn resolve(
    written: &str,
    base: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<(Secret, Option<PathBuf>), String> {
    let mut token = expand(written, environment)?;
    let file = token.strip_prefix("file://").map(|path| base.join(path));
    if let Some(path) = &file {
        let text = fs::read_to_string(path).map_err(|error| {
            let (path, reason) = (path.display(), reason(&error));
            format!("names the file {path}, which cannot be read: {reason}")
        })?;
        token = text.trim().to_owned();
    }
    let lower = token.to_lowercase();
    let is_reference =
        ["/", "./", "~/", "file:", "env:"].iter().any(|&start| lower.starts_with(start));
    match token.chars().count() {
        0 => Err(format!("is empty; {REMEDY}")),
        _ if is_reference => Err("looks like a path or a reference, and would be the key itself; write file:///PATH for a file, or ${NAME} for a variable".into()),
        count if count < MIN_CHARACTERS => {
            Err(format!("has {count} characters and needs at least {MIN_CHARACTERS}; {REMEDY}"))
        }
        _ if lower.replace(['-', '_', ' '], "").contains("changeme") => {
            Err(format!("is a placeholder; {REMEDY}"))
        }
        _ => Ok((Secret(token), file)),
    }
}

/// Puts the environment's values in place of `${NAME}` and `$NAME`, as Wings does.
///
/// Wings makes an unset variable an empty text; here it is an error, since the key that comes out
/// of it would verify nothing.
fn expand(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        let (name, behind) = match after.strip_prefix('{') {
            Some(braced) => braced.split_once('}').ok_or("has a ${ without its closing }")?,
            None => after.split_at(after.find(|c| !is_variable(c)).unwrap_or(after.len())),
        };
        match name {
            "" => expanded.push('$'),
            _ => expanded.push_str(&environment(name).ok_or_else(|| unset(text, name))?),
        }
        rest = behind;
    }
    Ok(expanded + rest)
}

/// What to say of a variable that is not set. It is named only if it cannot be a part of a key: in
/// a text that is one `${NAME}` and nothing else, or a path.
fn unset(text: &str, name: &str) -> String {
    let alone = text == format!("${{{name}}}") && name == name.to_uppercase();
    match alone || text.starts_with("file://") {
        true => format!("names the environment variable {name}, which is not set; set it"),
        false => "holds a $ and after it the name of no environment variable; if the $ belongs to the token, put it into a file and write file:///PATH".into(),
    }
}

fn is_variable(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

/// Refuses the sample's token, which everybody knows, on an address that others reach.
pub(super) fn must_be_secret(config: &Config, notes: &Notes) {
    let open = config.listen.iter().find(|listen| !listen.is_local());
    if let Some(open) = open.filter(|_| config.token.is_the_samples()) {
        notes.error("token", format!("is the sample's, and {open} is open to others; {REMEDY}"));
    }
}
