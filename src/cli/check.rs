//! `winglet check`

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::{environment, names, preflight, say};
use crate::cli::args::Check;
use crate::config::{self, Config, Finding, Setting};
use crate::process::{descriptors, sandbox};

/// What a configuration comes to, as pairs of a name and a text.
pub(super) type Facts = Vec<(&'static str, String)>;

/// Says everything that is wrong with a configuration, and what it comes to. The status is 1 if it
/// has errors.
pub(super) fn check(options: &Check, out: &mut String) -> ExitCode {
    let files = config::files(&options.files.config);
    if !options.quiet {
        say(&format_args!("reading {}", names(&files)));
    }
    let loaded = config::load(&files, &[], &environment, &[]);
    let mut findings = loaded.findings;
    let mut facts = Facts::new();
    if let Some(config) = &loaded.config {
        let certificate = preflight::look(config, &mut findings);
        facts = facts_of(config, certificate);
        #[cfg(feature = "shared-state")]
        facts.extend(super::front_ends::check(config, &mut findings));
    }
    let ok = loaded.config.is_some() && !findings.iter().any(|finding| finding.is_error);
    if options.json {
        print_json(out, &files, ok, &findings, &facts, &loaded.settings, options.print);
    } else {
        for finding in &findings {
            let _ = writeln!(out, "{}: {finding}", finding.severity());
        }
        if !options.quiet {
            let _ = writeln!(out, "{}: {}", names(&files), if ok { "ok" } else { "not usable" });
            for (name, text) in facts.iter().filter(|_| ok) {
                let _ = writeln!(out, "  {name:<14} {text}");
            }
        }
        if options.print {
            print_settings(out, &loaded.settings);
        }
    }
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn facts_of(config: &Config, certificate: Option<String>) -> Facts {
    let mut facts = Facts::new();
    facts.extend(config.listen.iter().map(|listen| ("listens on", listen.to_string())));
    facts.extend(config.control.iter().map(|control| ("control", control.to_string())));
    facts.extend(certificate.map(|text| ("certificate", text)));
    for (name, directory) in [("volumes", &config.data), ("backups", &config.backup_directory)] {
        let missing = if directory.is_dir() { "" } else { " (none there)" };
        facts.push((name, format!("{}{missing}", directory.display())));
    }
    facts.push((
        "used links",
        match &config.state_directory {
            Some(directory) => format!("kept in {}", directory.display()),
            None => "kept in memory only; a restart forgets them".into(),
        },
    ));
    let (allowed, needed) = (descriptors::raise(), descriptors::needed(config));
    facts.push(("descriptors", format!("{allowed} allowed, {needed} needed")));
    facts.push((
        "sandbox",
        match config.sandbox {
            true => sandbox::probe().to_string(),
            false => "switched off by winglet.sandbox".into(),
        },
    ));
    facts
}

fn print_settings(out: &mut String, settings: &[Setting]) {
    let shown = |setting: &Setting| setting.value.clone().unwrap_or_else(|| "-".into());
    let width = |text: &dyn Fn(&Setting) -> usize| settings.iter().map(text).max().unwrap_or(0);
    let key = width(&|setting| setting.key.len());
    let value = width(&|setting| shown(setting).chars().count()).min(40);
    for setting in settings {
        let (text, origin) = (shown(setting), &setting.origin);
        let _ = writeln!(out, "  {:<key$}  {text:<value$}  ({origin})", setting.key);
    }
}

fn print_json(
    out: &mut String,
    files: &[PathBuf],
    ok: bool,
    findings: &[Finding],
    facts: &Facts,
    settings: &[Setting],
    print: bool,
) {
    let findings: Vec<_> = findings
        .iter()
        .map(|finding| json!({"severity": finding.severity(), "key": finding.key, "message": finding.message}))
        .collect();
    let mut named: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (name, text) in facts {
        named.entry(name.replace(' ', "_")).or_default().push(text);
    }
    let files: Vec<_> = files.iter().map(|file| file.to_string_lossy()).collect();
    let mut value = json!({"files": files, "ok": ok, "findings": findings, "facts": named});
    if print {
        let setting = |setting: &Setting| json!({"key": setting.key, "value": setting.value, "origin": setting.origin.to_string()});
        value["settings"] = settings.iter().map(setting).collect();
    }
    let _ = writeln!(out, "{value:#}");
}
