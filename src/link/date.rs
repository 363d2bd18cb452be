//! The dates of tokens, as lenient as RFC 7519 asks.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

/// A NumericDate (RFC 7519 §2): a JSON integer or float, in whole seconds since the epoch. Dates
/// before the epoch count as the epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Date(pub(super) u64);

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Date, D::Error> {
        struct DateVisitor;
        impl Visitor<'_> for DateVisitor {
            type Value = Date;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("seconds since the epoch")
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Date, E> {
                Ok(Date(value))
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Date, E> {
                Ok(Date(u64::try_from(value).unwrap_or(0)))
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Date, E> {
                // JSON has no NaN; `as` saturates at both ends.
                Ok(Date(value as u64))
            }
        }
        deserializer.deserialize_any(DateVisitor)
    }
}
