//! The rules of `.gitignore`: which paths a list of patterns hides.
//!
//! Own code, since of the crates that know these rules none agrees with git, and what they take for a
//! hostile pattern has no bound (ARCHITECTURE, "Hidden files"). A path is judged name by name, each
//! pattern being a set of places in it that may go on: the time is the path's length times the
//! patterns', whatever they say.

mod glob;

use glob::{Glob, Token};
use hmac_sha256::Hash;

/// A list of patterns. The last one that matches decides.
#[derive(Debug, Default)]
pub struct Patterns {
    list: Vec<Pattern>,
    /// A hash of what it was read from.
    digest: [u8; 32],
}

#[derive(Debug)]
struct Pattern {
    /// `!`: what it matches is shown.
    negative: bool,
    /// A slash at its end.
    only_directories: bool,
    elements: Vec<Element>,
}

/// What stands for a part of a path. No two [`Element::Deep`] follow each other.
#[derive(Debug)]
enum Element {
    /// One name.
    Name(Glob),
    /// `**`: any number of names, or none.
    Deep,
}

impl Pattern {
    /// Returns true if what was matched up to `place` is all that it takes.
    fn is_complete(&self, place: usize) -> bool {
        place == self.elements.len()
            || (place + 1 == self.elements.len() && matches!(self.elements[place], Element::Deep))
    }

    /// The places where the pattern goes on after `name` at `place`.
    fn next(&self, place: usize, name: &[u8]) -> [Option<usize>; 2] {
        let after = |place: usize| match self.elements.get(place) {
            Some(Element::Name(glob)) if glob.matches(name) => Some(place + 1),
            _ => None,
        };
        match self.elements.get(place) {
            Some(Element::Deep) => [Some(place), after(place + 1)],
            _ => [after(place), None],
        }
    }
}

impl Patterns {
    /// Reads `lines`, each a line of a `.gitignore` or several of them.
    pub fn new<'a>(lines: impl IntoIterator<Item = &'a str>) -> Patterns {
        let (mut list, mut hash) = (Vec::new(), Hash::new());
        for line in lines.into_iter().flat_map(|lines| lines.split('\n')) {
            hash.update(line);
            hash.update("\n");
            let line = line.strip_suffix('\r').unwrap_or(line).as_bytes();
            if line.first() != Some(&b'#') {
                read(without_spaces(line), &mut list);
            }
        }
        // Before the first that hides something, there is nothing to show.
        let first = list.iter().position(|pattern: &Pattern| !pattern.negative);
        let list = list.split_off(first.unwrap_or(list.len()));
        Patterns { list, digest: hash.finalize() }
    }

    pub(super) fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Returns true if nothing is hidden.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The root of a tree.
    pub(super) fn root(&self) -> Level {
        Level((0..self.list.len()).map(|pattern| (pattern, 0)).collect())
    }
}

/// A directory, as far as it matters to the patterns: which of them may match beneath it, and what is
/// matched of them already. It is not hidden itself.
#[derive(Clone, Debug)]
pub(super) struct Level(Vec<(usize, usize)>);

impl Level {
    /// Returns true if `name` in this directory is hidden.
    pub(super) fn hides(&self, patterns: &Patterns, name: &[u8], is_directory: bool) -> bool {
        let decides = |&(index, place): &(usize, usize)| {
            let pattern = &patterns.list[index];
            (is_directory || !pattern.only_directories)
                && pattern.next(place, name).into_iter().flatten().any(|at| pattern.is_complete(at))
        };
        let last = self.0.iter().rev().find(|state| decides(state));
        last.is_some_and(|(index, _)| !patterns.list[*index].negative)
    }

    /// The directory `name` in this one.
    pub(super) fn enter(&self, patterns: &Patterns, name: &[u8]) -> Level {
        let mut next: Vec<(usize, usize)> = Vec::with_capacity(self.0.len());
        for &(index, place) in &self.0 {
            let pattern = &patterns.list[index];
            let places = pattern.next(place, name).into_iter().flatten();
            next.extend(places.filter(|at| *at < pattern.elements.len()).map(|at| (index, at)));
        }
        // They are in their order already: where `**` is waited at, the place behind it is not.
        debug_assert!(next.is_sorted());
        next.dedup();
        Level(next)
    }
}

/// Spaces at the end of a line do not count, unless a backslash is before them.
fn without_spaces(line: &[u8]) -> &[u8] {
    let (mut end, mut at) = (0, 0);
    while at < line.len() {
        match line[at] {
            b' ' => {}
            // Nothing is behind it that it could protect.
            b'\\' if at + 1 == line.len() => return line,
            b'\\' => {
                at += 1;
                end = at + 1;
            }
            _ => end = at + 1,
        }
        at += 1;
    }
    &line[..end]
}

/// Adds the pattern in `line` to `all`.
fn read(line: &[u8], all: &mut Vec<Pattern>) {
    let (line, negative) = line.strip_prefix(b"!").map_or((line, false), |rest| (rest, true));
    let (text, only_directories) =
        line.strip_suffix(b"/").map_or((line, false), |rest| (rest, true));
    if text.is_empty() {
        return;
    }
    let mut add = |elements: Option<Vec<Element>>| {
        all.extend(elements.map(|elements| Pattern { negative, only_directories, elements }));
    };
    if !text.contains(&b'/') {
        return add(name(text).map(|name| vec![Element::Deep, Element::Name(name)]));
    }
    // git holds a plain beginning against the path, and the rest of the pattern against the rest of
    // the path. So stars after a plain beginning stand at a beginning, and may mean directories.
    let mut waiting = vec![text.strip_prefix(b"/").unwrap_or(text).to_vec()];
    while let Some(text) = waiting.pop() {
        let plain = text.iter().position(|byte| b"*?[\\".contains(byte)).unwrap_or(text.len());
        let (before, rest) = text.split_at(plain);
        let stars = rest.iter().take_while(|byte| **byte == b'*').count();
        let with = |middle: &[u8], rest: &[u8]| [before, middle, rest].concat();
        match &rest[stars..] {
            _ if stars < 2 || before.last().is_none_or(|byte| *byte == b'/') => add(path(&text)),
            [] => waiting.extend([with(b"*", b""), with(b"*/**", b"")]),
            [b'/', rest @ ..] => waiting.extend([with(b"*/**/", rest), with(b"", rest)]),
            [b'\\', b'/', rest @ ..] => waiting.push(with(b"*/**/", rest)),
            _ => add(path(&text)),
        }
    }
}

/// The elements of a pattern with slashes; `None` if nothing can match it.
fn path(text: &[u8]) -> Option<Vec<Element>> {
    let mut elements = Vec::new();
    let mut rest = Some(text);
    while let Some(text) = rest {
        let length = name_length(text)?;
        let (own, after) = text.split_at(length);
        let is_plain = after.starts_with(b"/");
        rest = after.strip_prefix(b"/").or_else(|| after.strip_prefix(b"\\/"));
        if own.len() < 2 || own.iter().any(|byte| *byte != b'*') {
            elements.push(Element::Name(name(own)?));
            continue;
        }
        // No name at all will do only if a slash follows that stands for itself.
        if !is_plain {
            elements.push(Element::Name(Glob::new(vec![Token::Star])));
        }
        if !matches!(elements.last(), Some(Element::Deep)) {
            elements.push(Element::Deep);
        }
    }
    Some(elements)
}

/// The bytes of `text` before its first slash. One in a set is none.
fn name_length(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    while at < text.len() {
        at += match &text[at..] {
            [b'/', ..] | [b'\\', b'/', ..] => break,
            [b'\\', ..] => 2,
            rest @ [b'[', ..] => glob::set(rest)?.1,
            _ => 1,
        };
    }
    Some(at.min(text.len()))
}

/// One name of a pattern; `None` if no name matches it.
fn name(text: &[u8]) -> Option<Glob> {
    let (mut tokens, mut at) = (Vec::new(), 0);
    while at < text.len() {
        let (token, length) = match &text[at..] {
            [b'*', ..] => (Token::Star, 1),
            [b'?', ..] => (Token::Any, 1),
            rest @ [b'[', ..] => glob::set(rest)?,
            [b'\\', byte, ..] => (Token::Byte(*byte), 2),
            [b'\\'] => return None,
            rest => (Token::Byte(rest[0]), 1),
        };
        at += length;
        // Two stars in a name are one.
        if !matches!((&token, tokens.last()), (Token::Star, Some(Token::Star))) {
            tokens.push(token);
        }
    }
    Some(Glob::new(tokens))
}

#[cfg(test)]
mod tests;
