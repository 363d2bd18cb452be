//! A UUID, parsed before it touches a path.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A UUID in its hyphenated form, lower case. What this type holds is 36 characters of
/// hexadecimal digits and hyphens, so that it is safe as a file name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Uuid([u8; 36]);

impl Uuid {
    /// Parses the hyphenated form (RFC 9562 §4), in either case.
    pub fn parse(text: &str) -> Option<Uuid> {
        let mut bytes: [u8; 36] = text.as_bytes().try_into().ok()?;
        for (position, byte) in bytes.iter_mut().enumerate() {
            let sound = match position {
                8 | 13 | 18 | 23 => *byte == b'-',
                _ => byte.is_ascii_hexdigit(),
            };
            if !sound {
                return None;
            }
            byte.make_ascii_lowercase();
        }
        Some(Uuid(bytes))
    }

    /// The text: 36 lower-case ASCII characters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Uuid {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Uuid, Self::Err> {
        Uuid::parse(text).ok_or("not a UUID of the form xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx")
    }
}

impl TryFrom<String> for Uuid {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Uuid, Self::Error> {
        text.parse()
    }
}

impl From<Uuid> for String {
    fn from(uuid: Uuid) -> String {
        uuid.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::Uuid;

    #[test]
    fn only_the_hyphenated_form_passes() {
        let good = "8d1f3c52-6a0e-4a7b-9f3e-2c5b7e1a9d40";
        assert_eq!(Uuid::parse(good).unwrap().as_str(), good);
        assert_eq!(Uuid::parse(&good.to_uppercase()).unwrap().as_str(), good);
        for bad in [
            "",
            "8d1f3c526a0e4a7b9f3e2c5b7e1a9d40",
            "../../../../../../etc/passwd/aaaaaaaa",
            "8d1f3c52-6a0e-4a7b-9f3e-2c5b7e1a9d4",
            "8d1f3c52-6a0e-4a7b-9f3e-2c5b7e1a9d400",
            "8d1f3c52-6a0e-4a7b-9f3e-2c5b7e1a9d4/",
            "{d1f3c52-6a0e-4a7b-9f3e-2c5b7e1a9d4}",
            "8d1f3c52-6a0e-4a7b-9f3e-2c5b7e1a9dé",
        ] {
            assert_eq!(Uuid::parse(bad), None, "{bad}");
        }
    }
}
