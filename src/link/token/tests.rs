//! Dates, headers and claims.

use super::*;
use jwt_simple::reexports::ct_codecs::Encoder;

const NOW: u64 = 1_700_000_000;
const HEADER: &str = r#"{"typ":"JWT","alg":"HS256"}"#;
const CLAIMS: &str =
    r#""server_uuid":"8d1f3c52-6a0e-4a7b-9f3e-2c5b7e1a9d40","file_path":"a","unique_id":"u""#;

fn verify(header: &str, payload: &str) -> Result<Claims, TokenFault> {
    verify_for(Endpoint::File, header, payload)
}

fn verify_for(endpoint: Endpoint, header: &str, payload: &str) -> Result<Claims, TokenFault> {
    let key = HS256Key::from_bytes(b"0123456789abcdef");
    let encode = |bytes: &[u8]| Base64UrlSafeNoPadding::encode_to_string(bytes).unwrap();
    let signed = format!("{}.{}", encode(header.as_bytes()), encode(payload.as_bytes()));
    let token = format!("{signed}.{}", encode(&key.authentication_tag(signed.as_bytes())));
    let verifier = Verifier { key, clock_skew: 60, max_lifetime: 86_400, require_scope: false };
    verifier.verify(&token, endpoint, NOW)
}

#[test]
fn a_claim_that_is_null_is_absent() {
    let exp = NOW + 900;
    let calogopus = format!(
        r#"{{"iss":"x","sub":null,"aud":[],"exp":{exp},"nbf":null,"iat":{NOW},"jti":null,{CLAIMS},"scope":null}}"#
    );
    let claims = verify(HEADER, &calogopus).unwrap();
    assert_eq!((claims.expires, claims.unique_id.as_deref()), (exp, Some("u")));
    let payload = format!(r#"{{"exp":null,{CLAIMS}}}"#);
    assert_eq!(verify(HEADER, &payload), Err(TokenFault::NoExpiry));
    let payload = format!(r#"{{"exp":{exp},"server_uuid":null,"file_path":"a"}}"#);
    assert_eq!(verify(HEADER, &payload), Err(TokenFault::NoClaim("server_uuid")));
}

#[test]
fn dates_to_the_second() {
    let at = |dates: &str| verify(HEADER, &format!("{{{dates},{CLAIMS}}}"));
    let expired = |exp: &str| at(&format!(r#""exp":{exp}"#)).map(|claims| claims.expired);
    assert_eq!(expired("1700000001"), Ok(false));
    assert_eq!(expired("1700000000.9"), Ok(true));
    assert_eq!(expired("-5"), Ok(true));
    assert_eq!(expired("1700086400"), Ok(false));
    assert_eq!(expired("1700086401"), Err(TokenFault::LifetimeTooLong));
    assert_eq!(expired("1e300"), Err(TokenFault::LifetimeTooLong));
    let later = |claim: &str, ahead: u64| {
        at(&format!(r#""exp":{},"{claim}":{}"#, NOW + 900, NOW + ahead)).map(|_| ())
    };
    assert_eq!(later("nbf", 60), Ok(()));
    assert_eq!(later("nbf", 61), Err(TokenFault::NotYetValid(61)));
    assert_eq!(later("iat", 100_000), Ok(()));
}

#[test]
fn the_header_names_the_algorithm_and_no_critical_extension() {
    let payload = format!(r#"{{"exp":{},{CLAIMS}}}"#, NOW + 900);
    let with = |header: &str| verify(header, &payload).map(|_| ());
    assert_eq!(with(r#"{"alg":"HS256","kid":null,"x":[1]}"#), Ok(()));
    assert_eq!(with(r#"{"alg":"none"}"#), Err(TokenFault::Algorithm));
    assert_eq!(with(r#"{"alg":"HS256","crit":["b64"],"b64":false}"#), Err(TokenFault::Malformed));
    assert_eq!(with(r#"{"typ":"JWT"}"#), Err(TokenFault::Malformed));
    assert_eq!(with("[]"), Err(TokenFault::Malformed));
}

#[test]
fn an_archive_is_of_a_directory_or_of_some_of_what_it_holds() {
    let exp = NOW + 900;
    let with = |endpoint, claims: &str| {
        let server = "8d1f3c52-6a0e-4a7b-9f3e-2c5b7e1a9d40";
        let payload = format!(r#"{{"exp":{exp},"server_uuid":"{server}"{claims}}}"#);
        verify_for(endpoint, HEADER, &payload).map(|claims| claims.resource)
    };
    let server = "8d1f3c52-6a0e-4a7b-9f3e-2c5b7e1a9d40".parse().unwrap();
    let both = r#","file_path":"w","file_paths":["a\"b","c/d"],"scope":"file-download""#;
    let all = r#","file_path":"w","file_paths":null"#;
    assert_eq!(
        with(Endpoint::Directory, all),
        Ok(Resource::Directory { server, path: "w".into() })
    );
    let files = vec!["a\"b".into(), "c/d".into()];
    assert_eq!(
        with(Endpoint::Files, both),
        Ok(Resource::Files { server, path: "w".into(), files })
    );
    for (endpoint, claims, fault) in [
        (Endpoint::Directory, "", TokenFault::NoClaim("file_path")),
        (Endpoint::Files, r#","file_path":"w""#, TokenFault::NoClaim("file_paths")),
        (Endpoint::Files, r#","file_paths":["a"]"#, TokenFault::NoClaim("file_path")),
        (Endpoint::Files, r#","file_path":"w","file_paths":"a""#, TokenFault::Malformed),
        (Endpoint::Directory, both, TokenFault::WrongEndpoint),
        (Endpoint::File, both, TokenFault::WrongEndpoint),
        (
            Endpoint::Directory,
            r#","file_path":"","scope":"backup-download""#,
            TokenFault::WrongScope,
        ),
    ] {
        assert_eq!(with(endpoint, claims), Err(fault), "{claims}");
    }
}
