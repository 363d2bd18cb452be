//! The key of the tokens' signatures: written in the file, or in a file of its own, or in the
//! environment. No message and no `Debug` shows any part of it.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use jwt_simple::reexports::ct_codecs;

use super::file::reason;
use super::findings::{Notes, Origin};
use super::values::Section;
use super::yaml::Value;
use super::{Config, defaults};

/// A key that signs and verifies tokens, or a password.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub(super) String);

impl Secret {
    /// The key itself.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl Secret {
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

/// The key, from wherever it is written, and the file that holds it if it has one of its own.
/// `base` is what a relative path in `WINGS_TOKEN` counts from. What is wrong with it is noted, and then there is none.
pub(super) fn read(
    root: &Section<'_>,
    base: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Option<(Secret, Option<PathBuf>)> {
    let variable = environment("WINGS_TOKEN").filter(|token| !token.is_empty());
    let (written, base, origin) = match (variable, root.node("token")) {
        (Some(token), _) => (Ok(token), base.to_owned(), Origin::Environment),
        (None, Some(node)) => {
            let text = match &node.value {
                Value::Text(text) => Ok(text.clone()),
                _ => Err("is not a text; put it in quotes".to_owned()),
            };
            (text, root.notes.base(node.file), root.origin("token"))
        }
        (None, None) => (Err(format!("is missing; {REMEDY}")), base.to_owned(), Origin::Default),
    };
    let token = written.and_then(|written| resolve(&written, &base, environment));
    let shown = token.as_ref().ok().map(|(secret, _)| format!("({} bytes)", secret.0.len()));
    root.notes.setting("token".into(), shown, origin);
    token.map_err(|message| root.notes.error("token", message)).ok()
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
    match token.len() {
        0 => Err(format!("is empty; {REMEDY}")),
        length if length < defaults::MIN_TOKEN_BYTES => Err(format!(
            "has {length} bytes and needs at least {}; {REMEDY}",
            defaults::MIN_TOKEN_BYTES
        )),
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
    expanded.push_str(rest);
    Ok(expanded)
}

/// What to say of a variable that is not set. It is named only if it cannot be a part of a key: in
/// a text that is one `${NAME}` and nothing else, or a path.
fn unset(text: &str, name: &str) -> String {
    let alone = text == format!("${{{name}}}")
        && name.bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'_'));
    if alone || text.starts_with("file://") {
        return format!("names the environment variable {name}, which is not set; set it");
    }
    "holds a $ and after it the name of no environment variable; set the variable, or, if the $ \
     belongs to the token, put the token into a file of its own and write file:///PATH"
        .to_owned()
}

fn is_variable(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

/// Refuses the sample's token, which everybody knows, on an address that others reach.
pub(super) fn must_be_secret(config: &Config, notes: &Notes) {
    let open = config.listen.iter().find(|listen| !listen.is_local());
    if let Some(open) = open.filter(|_| config.token.0 == defaults::SAMPLE_TOKEN) {
        let message = format!(
            "is the sample's, which everybody knows, and {open} is open to others; {REMEDY}"
        );
        notes.error("token", message);
    }
}
