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
    /// `Forwarded` (RFC 7239)
    Forwarded,
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
    /// `Via`
    Via,
    /// `X-Forwarded-For`
    XForwardedFor,
    /// `X-Forwarded-Proto`
    XForwardedProto,
    /// `X-Real-IP`
    XRealIp,
}

impl Field {
    /// Whether it is of use on the control listener only.
    pub(super) fn is_for_control(self) -> bool {
        matches!(self, Field::Authorization | Field::Host)
    }

    /// The field of this name, in any case.
    pub(super) fn named(name: &str) -> Option<Field> {
        const NAMES: [(&str, Field); 16] = [
            ("accept", Field::Accept),
            ("authorization", Field::Authorization),
            ("cf-connecting-ip", Field::CfConnectingIp),
            ("forwarded", Field::Forwarded),
            ("host", Field::Host),
            ("if-match", Field::IfMatch),
            ("if-modified-since", Field::IfModifiedSince),
            ("if-none-match", Field::IfNoneMatch),
            ("if-range", Field::IfRange),
            ("if-unmodified-since", Field::IfUnmodifiedSince),
            ("origin", Field::Origin),
            ("range", Field::Range),
            ("via", Field::Via),
            ("x-forwarded-for", Field::XForwardedFor),
            ("x-forwarded-proto", Field::XForwardedProto),
            ("x-real-ip", Field::XRealIp),
        ];
        NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, field)| *field)
    }
}
