//! `winglet check`

use super::environment;
use crate::cli::args::Check;
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::error::StartError;
use crate::process::{descriptors as limits, sandbox};
use crate::replay::Replay;
use crate::shared::Settings;

/// Prints everything that is wrong with a configuration, or what it comes to. `false` where it has
/// errors.
///
/// # Errors
/// None beside what is printed.
pub fn check(options: &Check) -> Result<bool, StartError> {
    let (config, mut findings) = config::load(&options.config, &[], &environment);
    #[cfg(feature = "tls")]
    let certificate = config.as_ref().and_then(|config| check_certificate(config, &mut findings));
    #[cfg(not(feature = "tls"))]
    let certificate: Option<String> = None;
    if let Some(config) = &config {
        check_state(config, &mut findings);
    }
    if !findings.is_empty() {
        println!("{findings}");
    }
    let Some(config) = config.filter(|_| !findings.has_errors()) else {
        println!("{}: not usable", options.config.display());
        return Ok(false);
    };
    println!("{}: ok", config.file.display());
    for listen in &config.listen {
        println!("  listens on     {listen}");
    }
    certificate.inspect(|certificate| println!("  certificate    {certificate}"));
    println!("  volumes        {}", config.data.display());
    println!("  backups        {}", config.backup_directory.display());
    match &config.state_directory {
        Some(directory) => println!("  used links     kept in {}", directory.display()),
        None => println!("  used links     kept in memory only; a restart forgets them"),
    }
    println!("  descriptors    {} allowed, {} needed", limits::raise(), limits::needed(&config));
    match config.sandbox {
        true => println!("  sandbox        {}", sandbox::probe()),
        false => println!("  sandbox        switched off by winglet.sandbox"),
    }
    Ok(true)
}

fn check_state(config: &Config, findings: &mut config::Findings) {
    let Some(directory) = &config.state_directory else { return };
    if !directory.exists() {
        findings.warning(
            "winglet.state_directory",
            format!("{} does not exist yet; serve makes it", directory.display()),
        );
    } else if let Err(error) = Replay::read_only(
        config.max_tracked_tokens,
        directory,
        &Settings::new(config.clone()).rules,
        Clock::System.unix(),
    ) {
        findings.error("winglet.state_directory", error.to_string());
    }
}

#[cfg(feature = "tls")]
fn check_certificate(config: &Config, findings: &mut config::Findings) -> Option<String> {
    use std::time::{Duration, UNIX_EPOCH};

    /// A certificate that ends within this many seconds is worth a warning.
    const SOON: u64 = 7 * 24 * 3600;
    let files = config.tls.as_ref()?;
    let report = match crate::net::tls::Certificates::check(files) {
        Ok(report) => report,
        Err(error) => {
            // It begins with the key.
            let error = error.to_string();
            let (key, message) = error.split_once(": ").unwrap_or(("api.ssl", &error));
            findings.error(key, message);
            return None;
        }
    };
    let now = crate::clock::Clock::System.unix();
    let end = report.expires?;
    let date = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(end));
    if end <= now {
        findings.error("api.ssl.cert", format!("expired on {date}; renew it"));
    } else if end - now < SOON {
        findings.warning("api.ssl.cert", format!("expires on {date}; renew it soon"));
    }
    Some(format!("{} in the chain, valid until {date}", report.length))
}
