//! The header fields that mean something here; all others are passed over.

/// The header fields that the program reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `Accept`
    Accept,
    /// `CF-Connecting-IP`: whom Cloudflare speaks for.
    CfConnectingIp,
    /// `Authorization`, on the control listener.
    Authorization,
    /// `Host`, on the control listener. Everywhere else its form is all that matters.
    Host,
    /// `If-Match`
    IfMatch,
    /// `If-Modified-Since`
    IfModifiedSince,
    /// `If-None-Match`
    IfNoneMatch,
    /// `If-Range`
    IfRange,
    /// `If-Unmodified-Since`
    IfUnmodifiedSince,
    /// `Origin`
    Origin,
    /// `Range`
    Range,
    /// `X-Forwarded-For`
    XForwardedFor,
}

impl Field {
    /// Whether it is of use on the control listener only.
    pub(super) fn is_for_control(self) -> bool {
        matches!(self, Field::Authorization | Field::Host)
    }

    /// The field of this name, in any case.
    pub(super) fn named(name: &str) -> Option<Field> {
        const NAMES: [(&str, Field); 12] = [
            ("accept", Field::Accept),
            ("authorization", Field::Authorization),
            ("cf-connecting-ip", Field::CfConnectingIp),
            ("host", Field::Host),
            ("if-match", Field::IfMatch),
            ("if-modified-since", Field::IfModifiedSince),
            ("if-none-match", Field::IfNoneMatch),
            ("if-range", Field::IfRange),
            ("if-unmodified-since", Field::IfUnmodifiedSince),
            ("origin", Field::Origin),
            ("range", Field::Range),
            ("x-forwarded-for", Field::XForwardedFor),
        ];
        NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, field)| *field)
    }
}
