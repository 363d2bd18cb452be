//! `winglet serve`

use std::io::{self, Write};
use std::process::ExitCode;

use super::{environment, names};
use crate::cli::args::Serve;
use crate::clock::Clock;
use crate::config::{self, Config, Finding, Listen, Priority};
use crate::error::{CommandError, StartError};
use crate::logging;
use crate::process::notify::{Notifier, PidFile};
use crate::process::sandbox::{self, Allowed, Sandbox};
use crate::process::signals::Signals;
use crate::process::{self, priority};
use crate::replay;
use crate::server::{self, Opened, Server};

/// Serves until `signals` say stop.
///
/// # Errors
/// Why the server could not start, or what it died of.
pub(super) fn serve(
    options: &Serve,
    signals: io::Result<Signals>,
) -> Result<ExitCode, CommandError> {
    let signals = signals.map_err(StartError::from)?;
    let files = config::files(&options.files.config);
    let loaded = config::load(&files, &options.listen, &environment, &[]);
    let mut findings = loaded.findings;
    let Some(config) = loaded.config else {
        for finding in &findings {
            let _ = writeln!(std::io::stderr(), "{}: {finding}", finding.severity());
        }
        let message = "has errors, listed above; nothing was started";
        return Err(CommandError(format!("{} {message}", names(&files))));
    };
    // The first writes to /proc/self, which the second takes away.
    if config.priority == Priority::Low {
        findings.extend(priority::lower());
    }
    process::forbid_core_dumps();
    let opened = Opened::open(&config, &environment)?;
    let notifier = Notifier::connect(&environment);
    let mut pid_file = options.pid_file.as_deref().map(PidFile::create).transpose()?;
    let sandbox = confine(&config, options)?;
    // Sandbox and priority bind threads that are started after them: no thread before this line.
    let log = logging::start(&config).map_err(StartError::from)?;
    log::info!("configuration: {}", names(&files));
    report(&findings, sandbox);
    let sandboxed = sandbox.is_some_and(|sandbox| sandbox != Sandbox::None);
    let server = Server::start(config, opened, signals, Clock::System, sandboxed)?;
    if let Some(control) = server.control() {
        log::info!("control on {control}");
    }
    for address in server.addresses() {
        log::info!("listening on {address}");
    }
    // Whoever waits for the pid file or the notification reads the address in the log then.
    log.flush();
    if let Some(Err(error)) = pid_file.as_mut().map(PidFile::fill) {
        log::error!("--pid-file: {error}");
    }
    notifier.ready();
    let read = |before: &[Listen]| config::load(&files, &options.listen, &environment, before);
    let result = server.run_housekeeping(&read, &notifier);
    log::info!("stopped");
    drop(pid_file);
    drop(log);
    result?;
    Ok(ExitCode::SUCCESS)
}

fn confine(config: &Config, options: &Serve) -> Result<Option<Sandbox>, StartError> {
    if !config.sandbox {
        return Ok(None);
    }
    if let Some(directory) = &config.state_directory {
        // It must exist to be allowed; the journal says what is wrong if it cannot.
        let _ = replay::make_directory(directory);
    }
    let base = server::private_base(config);
    let pid_file = options.pid_file.as_deref().and_then(|path| std::path::absolute(path).ok());
    sandbox::enter(&Allowed::by(config, &base, pid_file.as_deref())).map(Some).map_err(|error| {
        let message = format!("{error}; set it to false to run without the sandbox");
        StartError::new("winglet.sandbox", message)
    })
}

fn report(findings: &[Finding], sandbox: Option<Sandbox>) {
    for finding in findings {
        log::warn!("{finding}");
    }
    if rustix::process::geteuid().is_root() {
        log::warn!(
            "running as root; a user of its own with CAP_DAC_READ_SEARCH is enough (see the service files)"
        );
    }
    match sandbox {
        Some(sandbox) => log::info!("sandbox: {sandbox}"),
        None => log::info!("sandbox: switched off by winglet.sandbox"),
    }
}
