//! What a link says, and which file it opens. Its errors know nothing of HTTP.

mod date;
pub mod folder;
pub mod identity;
pub mod resource;
pub mod storage;
pub mod token;
mod voucher;

/// The UUID of a server or backup. It parses from the hyphenated form only (RFC 9562 §4), in either
/// case, and its text is 36 characters of lower-case hexadecimal digits and hyphens, so that it is
/// safe as a file name.
pub use uuid::fmt::Hyphenated as Uuid;

#[cfg(test)]
mod tests {
    use super::Uuid;

    #[test]
    fn only_the_hyphenated_form_of_a_uuid_passes() {
        let good = "8d1f3c52-6a0e-4a7b-9f3e-2c5b7e1a9d40";
        assert_eq!(good.parse::<Uuid>().unwrap().to_string(), good);
        assert_eq!(good.to_uppercase().parse::<Uuid>().unwrap().to_string(), good);
        for bad in [
            "",
            "8d1f3c526a0e4a7b9f3e2c5b7e1a9d40",
            "{8d1f3c52-6a0e-4a7b-9f3e-2c5b7e1a9d40}",
            "urn:uuid:8d1f3c52-6a0e-4a7b-9f3e-2c5b7e1a9d40",
            "../../../../../../etc/passwd/aaaaaaaa",
            "8d1f3c52-6a0e-4a7b-9f3e-2c5b7e1a9d4",
            "8d1f3c52-6a0e-4a7b-9f3e-2c5b7e1a9d400",
            "8d1f3c52-6a0e-4a7b-9f3e-2c5b7e1a9d4/",
            "8d1f3c52-6a0e-4a7b-9f3e-2c5b7e1a9d4\0",
            "8d1f3c52+6a0e+4a7b+9f3e+2c5b7e1a9d40",
            "8d1f3c5-26a0e-4a7b-9f3e-2c5b7e1a9d40",
            "+d1f3c52-6a0e-4a7b-9f3e-2c5b7e1a9d40",
            "{d1f3c52-6a0e-4a7b-9f3e-2c5b7e1a9d4}",
            "8d1f3c52-6a0e-4a7b-9f3e-2c5b7e1a9d\u{e9}",
        ] {
            assert!(bad.parse::<Uuid>().is_err(), "{bad}");
        }
    }
}
