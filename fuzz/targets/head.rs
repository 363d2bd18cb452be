//! Head screening: whatever passes is well-formed, and it makes no difference how the bytes are cut
//! into pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;
use winglet::http::head::{Field, MAX_HEAD_BYTES, Place, Screened, screen};

/// What a verdict says, in a form that can be compared.
fn verdict(screened: &Screened) -> String {
    match screened {
        Screened::Incomplete => "incomplete".into(),
        Screened::Ready(head, length) => format!("{length} {head:?}"),
        Screened::Refused(head, refusal) => format!("{head:?} {refusal:?}"),
    }
}

/// Screens `bytes` as they come in steps of `size`, up to the first verdict.
fn dripped(bytes: &[u8], size: usize) -> (Screened, usize) {
    let mut seen = 0;
    while seen < bytes.len() {
        let come = (seen + size).min(bytes.len());
        match screen(&bytes[..come], seen, Place::Public) {
            Screened::Incomplete => seen = come,
            verdict => return (verdict, come),
        }
    }
    (Screened::Incomplete, seen)
}

fuzz_target!(|bytes: &[u8]| {
    if let Screened::Ready(head, length) = screen(bytes, 0, Place::Public) {
        assert!(length <= bytes.len() && length <= MAX_HEAD_BYTES);
        let link = head.download_link();
        assert!(link.starts_with('?') && link.bytes().all(|byte| (0x21..=0x7e).contains(&byte)));
        let _ = (head.endpoint(), head.token(), head.wants_page(), head.prefers_html());
        for field in [Field::Accept, Field::Range, Field::IfRange, Field::Origin] {
            assert!(!head.field(field).unwrap_or_default().contains(['\r', '\n', '\0']));
        }
        for entry in head.forwarded() {
            assert!(!entry.iter().any(|byte| b"\r\n\0,".contains(byte)));
        }
        assert!(bytes[..length].ends_with(b"\r\n\r\n"));
    }
    for size in [1, 2, 3, 5, 16, 61] {
        // A verdict on a part is the verdict on that part, dripped or not.
        let (piecemeal, come) = dripped(bytes, size);
        assert_eq!(verdict(&piecemeal), verdict(&screen(&bytes[..come], 0, Place::Public)));
    }
});
