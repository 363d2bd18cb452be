//! One name of a path, with wildcards, byte by byte as git reads them (`wildmatch.c`).

/// A name with wildcards. Its matching takes at most its own length times the name's.
#[derive(Debug)]
pub(super) enum Glob {
    /// Just this name.
    Literal(Box<[u8]>),
    /// A `*`, and then this.
    Suffix(Box<[u8]>),
    /// Anything else.
    Tokens(Box<[Token]>),
}

/// What stands for some of a name.
#[derive(Debug)]
pub(super) enum Token {
    /// This byte.
    Byte(u8),
    /// `?`: any byte.
    Any,
    /// `*`: any bytes, or none.
    Star,
    /// `[a-z]`: one of these bytes, a bit each.
    Set(Box<[u64; 4]>),
}

impl Token {
    fn takes(&self, byte: u8) -> bool {
        match self {
            Token::Byte(own) => *own == byte,
            Token::Any | Token::Star => true,
            Token::Set(set) => set[usize::from(byte >> 6)] >> (byte & 63) & 1 == 1,
        }
    }
}

impl Glob {
    pub(super) fn new(tokens: Vec<Token>) -> Glob {
        let literal = |tokens: &[Token]| -> Option<Box<[u8]>> {
            let byte = |token: &Token| match token {
                Token::Byte(byte) => Some(*byte),
                _ => None,
            };
            tokens.iter().map(byte).collect()
        };
        if let Some(bytes) = literal(&tokens) {
            return Glob::Literal(bytes);
        }
        match tokens.split_first() {
            Some((Token::Star, rest)) if let Some(bytes) = literal(rest) => Glob::Suffix(bytes),
            _ => Glob::Tokens(tokens.into()),
        }
    }

    pub(super) fn matches(&self, name: &[u8]) -> bool {
        match self {
            Glob::Literal(own) => **own == *name,
            Glob::Suffix(own) => name.ends_with(own),
            Glob::Tokens(tokens) => matches(tokens, name),
        }
    }
}

/// Going back to the last `*` is enough: what an earlier one could take, the last can take, too.
fn matches(tokens: &[Token], name: &[u8]) -> bool {
    let (mut token, mut at) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while at < name.len() || token < tokens.len() {
        match tokens.get(token) {
            Some(Token::Star) => {
                star = Some((token, at));
                token += 1;
                continue;
            }
            Some(own) if name.get(at).is_some_and(|byte| own.takes(*byte)) => {
                token += 1;
                at += 1;
                continue;
            }
            _ => {}
        }
        match &mut star {
            Some((after, from)) if *from < name.len() => {
                *from += 1;
                (token, at) = (*after + 1, *from);
            }
            _ => return false,
        }
    }
    true
}

/// Reads the set after the `[` at the beginning of `text`. Returns it and its length; `None` if it is
/// none, and then no name matches a pattern that holds it.
pub(super) fn set(text: &[u8]) -> Option<(Token, usize)> {
    let negated = matches!(text.get(1), Some(b'!' | b'^'));
    let mut at = if negated { 2 } else { 1 };
    let (mut bits, mut before) = ([0; 4], None);
    loop {
        let byte = *text.get(at)?;
        let next = text.get(at + 1).copied();
        before = match byte {
            b'\\' => {
                at += 1;
                add(&mut bits, next?..=next?);
                next
            }
            b'-' if let (Some(first), Some(last)) = (before, next.filter(|byte| *byte != b']')) => {
                at += 1;
                let last = if last == b'\\' {
                    at += 1;
                    *text.get(at)?
                } else {
                    last
                };
                add(&mut bits, first..=last);
                None
            }
            b'[' if next == Some(b':') => {
                let from = at + 2;
                let end = from + text.get(from..)?.iter().position(|byte| *byte == b']')?;
                match text[from..end].split_last() {
                    Some((b':', name)) => {
                        let is_one = class(name)?;
                        (0..=127).filter(is_one).for_each(|byte| add(&mut bits, byte..=byte));
                        at = end;
                        None
                    }
                    _ => {
                        add(&mut bits, byte..=byte);
                        Some(byte)
                    }
                }
            }
            _ => {
                add(&mut bits, byte..=byte);
                Some(byte)
            }
        };
        at += 1;
        if *text.get(at)? == b']' {
            break;
        }
    }
    if negated {
        bits = bits.map(|word| !word);
    }
    Some((Token::Set(Box::new(bits)), at + 1))
}

fn add(bits: &mut [u64; 4], bytes: std::ops::RangeInclusive<u8>) {
    for byte in bytes {
        bits[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }
}

/// What `[:name:]` stands for.
fn class(name: &[u8]) -> Option<fn(&u8) -> bool> {
    Some(match name {
        b"alnum" => u8::is_ascii_alphanumeric,
        b"alpha" => u8::is_ascii_alphabetic,
        b"blank" => |byte| matches!(byte, b' ' | b'\t'),
        b"cntrl" => u8::is_ascii_control,
        b"digit" => u8::is_ascii_digit,
        b"graph" => u8::is_ascii_graphic,
        b"lower" => u8::is_ascii_lowercase,
        b"print" => |byte| matches!(byte, b' '..=b'~'),
        b"punct" => u8::is_ascii_punctuation,
        b"space" => |byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'),
        b"upper" => u8::is_ascii_uppercase,
        b"xdigit" => u8::is_ascii_hexdigit,
        _ => return None,
    })
}
