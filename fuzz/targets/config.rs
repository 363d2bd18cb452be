//! The configuration: any file is either understood or refused with findings, never a crash.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let file = std::env::temp_dir().join(format!("winglet-fuzz-{}.yml", std::process::id()));
    std::fs::write(&file, bytes).unwrap();
    let listen = ["127.0.0.1:0".to_owned()];
    for listen in [&[][..], &listen[..]] {
        let files = [file.clone(), file.clone()];
        let loaded = winglet::config::load(&files[..1 + bytes.len() % 2], listen, &|_| None);
        let config = loaded.config;
        assert_eq!(config.is_none(), loaded.findings.iter().any(|finding| finding.is_error()));
        let shown: String = loaded.findings.iter().map(ToString::to_string).collect();
        assert!(!shown.contains(['\u{1b}', '\0']), "{shown:?}");
        if let Some(config) = config {
            assert!(!config.listen.is_empty() && config.threads > 0 && config.max_connections > 0);
        }
    }
    std::fs::remove_file(&file).unwrap();
});
