//! Tokens: arbitrary ones, and arbitrary payloads and headers with a valid signature.
#![no_main]

use std::sync::OnceLock;

use ct_codecs::{Base64UrlSafeNoPadding, Encoder};
use libfuzzer_sys::fuzz_target;
use winglet::http::refusal::Refusal;
use winglet::link::token::{Endpoint, Verifier};

const KEY: &str = "0123456789abcdef0123456789abcdef";
const NOW: u64 = 1_700_000_000;
const HEADER: &[u8] = br#"{"typ":"JWT","alg":"HS256"}"#;

fn verifier() -> &'static Verifier {
    static VERIFIER: OnceLock<Verifier> = OnceLock::new();
    VERIFIER.get_or_init(|| {
        let file = std::env::temp_dir().join(format!("winglet-fuzz-{}.yml", std::process::id()));
        std::fs::write(&file, format!("token: {KEY}\nsystem:\n  data: /\n")).unwrap();
        let loaded = winglet::config::load(&[file.clone()], &[], &|_| None);
        std::fs::remove_file(&file).unwrap();
        Verifier::new(&loaded.config.unwrap_or_else(|| panic!("{:?}", loaded.findings)))
    })
}

fn encode(bytes: &[u8]) -> String {
    Base64UrlSafeNoPadding::encode_to_string(bytes).unwrap()
}

fn signed(header: &[u8], payload: &[u8]) -> String {
    let unsigned = format!("{}.{}", encode(header), encode(payload));
    let tag = hmac_sha256::HMAC::mac(unsigned.as_bytes(), KEY);
    format!("{unsigned}.{}", encode(&tag))
}

fn judge(token: &str) -> bool {
    let mut good = false;
    for endpoint in Endpoint::ALL {
        match verifier().verify(token, endpoint, NOW) {
            Ok(claims) => {
                good = true;
                assert!(claims.expires <= NOW + 24 * 3600);
                assert_eq!(claims.expired, claims.expires <= NOW);
                assert!(claims.unique_id.as_deref() != Some(""));
            }
            Err(fault) => {
                let _ = (fault.cause(), Refusal::from(fault).client_message());
            }
        }
    }
    good
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        assert!(!judge(text), "accepted without the key");
    }
    judge(&signed(HEADER, bytes));
    let middle = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (header, payload) = bytes.split_at(middle);
    judge(&signed(header, payload.get(1..).unwrap_or_default()));
});
