//! `winglet serve`

use std::io::Write;

use super::environment;
use crate::cli::args::Serve;
use crate::clock::Clock;
use crate::config::{self, Config, Findings};
use crate::error::StartError;
use crate::logging;
use crate::process::notify::{Notifier, PidFile};
use crate::process::sandbox::{self, Allowed, Sandbox};
use crate::process::signals::Signals;
use crate::replay;
use crate::server::{self, Opened, Server};

/// Serves until told to stop.
///
/// # Errors
/// Why the server could not start.
pub fn serve(options: &Serve) -> Result<bool, StartError> {
    let system = |error: std::io::Error| StartError::new(format!("cannot start: {error}"));
    let (config, findings) = config::load(&options.config, &options.listen, &environment);
    let Some(config) = config else {
        let _ = writeln!(std::io::stderr(), "{findings}");
        return Err(StartError::new(format!(
            "{} has errors, listed above; nothing was started",
            options.config.display()
        )));
    };
    // Caught before anything is opened: from here on, TERM means an orderly end.
    let signals = Signals::catch().map_err(system)?;
    let opened = Opened::open(&config, &environment)?;
    let notifier = Notifier::connect(&environment);
    let mut pid_file = options.pid_file.as_deref().map(PidFile::create).transpose()?;
    let sandbox = confine(&config, options)?;
    // The sandbox binds threads that are started after it: no thread before this line.
    let log = logging::start(config.debug).map_err(system)?;
    report(&findings, sandbox);
    let sandboxed = sandbox.is_some_and(|sandbox| sandbox != Sandbox::None);
    let server = Server::start(config, opened, signals, Clock::System, sandboxed)?;
    for address in server.addresses() {
        log::info!("listening on {address}");
    }
    if let Some(Err(error)) = pid_file.as_mut().map(PidFile::fill) {
        log::error!("--pid-file: {error}");
    }
    notifier.ready();
    let read = || config::load(&options.config, &options.listen, &environment);
    let result = server.run_housekeeping(&read, &notifier);
    log::info!("stopped");
    drop(pid_file);
    drop(log);
    result.map(|()| true).map_err(system)
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
        StartError::new(format!(
            "winglet.sandbox: {error}; set it to false to run without the sandbox"
        ))
    })
}

fn report(findings: &Findings, sandbox: Option<Sandbox>) {
    for finding in findings {
        log::warn!("{finding}");
    }
    if rustix::process::geteuid().is_root() {
        log::warn!(
            "running as root; an own user with CAP_DAC_READ_SEARCH is enough (see the service files)"
        );
    }
    match sandbox {
        Some(sandbox) => log::info!("sandbox: {sandbox}"),
        None => log::info!("sandbox: switched off by winglet.sandbox"),
    }
}
