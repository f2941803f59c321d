//! `ana doctor`: what works here, what does not, and the way out.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use anstyle::{AnsiColor, Style};
use schemars::JsonSchema;
use serde::Serialize;

use crate::kernel::features::{Active, Check, Features, Status, can_run};

/// Show what this machine can do for ana, what it cannot, and what to do about it
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub json: bool,
}

/// The schema version of the JSON form.
const VERSION: u32 = 1;

/// What is printed as JSON: a contract.
#[derive(Serialize, JsonSchema)]
pub(super) struct Diagnosis<'a> {
    v: u32,
    kernel: &'a str,
    can_run: bool,
    active: &'a Active,
    checks: Vec<Line<'a>>,
}

/// One check, and what it is about.
#[derive(Serialize, JsonSchema)]
pub(super) struct Line<'a> {
    #[serde(flatten)]
    check: &'a Check,
    means: &'static str,
}

/// What each check decides.
const MEANINGS: [(&str, &str); 29] = [
    ("privilege", "much of this can be tried by root only"),
    ("kernel", "nothing is concluded from its version"),
    ("cgroup2", "a session is a cgroup, and a held operation one of its own"),
    ("pids", "limits how many processes a session can have"),
    ("btf", "where the guard finds what it compares"),
    ("exec-guard", "kills a protected program that runs without a ticket"),
    ("device-guard", "keeps a session from the devices, the person's terminal and security keys"),
    ("names", "connect rules with names need to know which addresses those have"),
    ("connect-gate", "redirects connections to protected hosts, so that they can be held"),
    ("bpffs", "keeps the guards when the supervisor is gone"),
    ("fanotify", "stops an exec in the kernel until it is answered"),
    ("seccomp", "the base filter: ptrace, io_uring, foreign ABIs, socket families"),
    ("landlock", "the seal: keeps a session out of other processes' memory"),
    ("yama", "stands in for the seal, a little"),
    ("lsm", "would close more; not used by this version"),
    ("peer-pidfd", "who answers a question cannot be mistaken for another process"),
    ("overlays", "a policy may give sessions namespaces of their own"),
    ("ebpf-programs", "ana's own programs, not only their kinds, are accepted"),
    ("tier", "which column of README's table holds here"),
    ("installation", "an agent cannot change ana's programs, or read their memory"),
    ("sudo", "how a person's ana-run gets a supervisor"),
    ("journal", "a log whose tail is cut off is detected"),
    ("state", "nobody but root can change the policy, the evidence or the passkeys"),
    ("policy", "what is protected"),
    ("passkeys", "who can approve"),
    ("security-keys", "the FIDO2 keys that are plugged in"),
    ("listed-files", "a rule protects the files that are there when a session starts"),
    ("path", "what an agent starts by name is what the rules list"),
    ("dead-sessions", "what a killed supervisor and warden have left"),
];

fn means(name: &str) -> &'static str {
    MEANINGS.iter().find(|(known, _)| *known == name).map_or("", |(_, text)| text)
}

/// Looks at the kernel and prints what it found, followed by `extra` (policy, passkeys, leftovers of sessions).
/// Exit status 1: the main job cannot run.
pub fn run(args: &Args, extra: Vec<Check>) -> ExitCode {
    let Features { kernel, mut checks, active, .. } = Features::probe();
    checks.extend(extra);
    let can_run = can_run(&checks);
    let diagnosis =
        Diagnosis { v: VERSION, kernel: &kernel, can_run, active: &active, checks: lines(&checks) };
    let mut out = io::stdout().lock();
    let written = if args.json {
        json(&mut out, &diagnosis)
    } else {
        let color = super::question::color(out_is_terminal());
        table(&mut out, &diagnosis, color)
    };
    // A reader that went away (`ana doctor | head`) does not change the diagnosis.
    match written {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => {
            tracing::error!(%error, "cannot print the diagnosis");
            return ExitCode::FAILURE;
        }
    }
    if can_run { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn lines(checks: &[Check]) -> Vec<Line<'_>> {
    checks.iter().map(|check| Line { check, means: means(&check.name) }).collect()
}

fn out_is_terminal() -> bool {
    io::stdout().is_terminal()
}

fn json(out: &mut impl Write, diagnosis: &Diagnosis<'_>) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, diagnosis)?;
    writeln!(out)
}

fn table(out: &mut impl Write, diagnosis: &Diagnosis<'_>, color: bool) -> io::Result<()> {
    let width = diagnosis.checks.iter().map(|line| line.check.name.len()).max().unwrap_or(0);
    for Line { check: Check { name, status, found, way_out }, means } in &diagnosis.checks {
        let (word, style) = appearance(*status);
        let style = if color { style } else { Style::new() };
        writeln!(out, "{style}{word:<8}{style:#}  {name:<width$}  {found}")?;
        if let Some(way_out) = way_out {
            if !means.is_empty() {
                writeln!(out, "{:<8}  {:<width$}  ({means})", "", "")?;
            }
            writeln!(out, "{:<8}  {:<width$}  -> {way_out}", "", "")?;
        }
    }
    let Active { seal, gates, guards } = diagnosis.active;
    writeln!(out)?;
    writeln!(out, "active seal:    {}", seal.unwrap_or("none"))?;
    writeln!(out, "active gates:   {}", listed(gates))?;
    writeln!(out, "active guards:  {}", listed(guards))?;
    if !diagnosis.can_run {
        writeln!(out, "\nana cannot run here: see what is missing")?;
    }
    Ok(())
}

fn appearance(status: Status) -> (&'static str, Style) {
    match status {
        Status::Ok => ("ok", AnsiColor::Green.on_default()),
        Status::Degraded => ("degraded", AnsiColor::Yellow.on_default()),
        Status::Missing => ("missing", AnsiColor::Red.on_default().bold()),
    }
}

fn listed(names: &[&str]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(checks: &[Check], color: bool) -> String {
        let active = Active { seal: None, gates: vec!["exec: fanotify"], guards: vec![] };
        let can_run = can_run(checks);
        let diagnosis =
            Diagnosis { v: VERSION, kernel: "6.18", can_run, active: &active, checks: lines(checks) };
        let mut out = Vec::new();
        table(&mut out, &diagnosis, color).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_are_aligned_and_every_trouble_has_its_way_out() {
        let checks = [Check::ok("btf", "there"), Check::degraded("landlock", "ABI 4", "a newer kernel")];
        let expected = "\
ok        btf       there
degraded  landlock  ABI 4
                    (the seal: keeps a session out of other processes' memory)
                    -> a newer kernel

active seal:    none
active gates:   exec: fanotify
active guards:  none
";
        assert_eq!(printed(&checks, false), expected);
    }

    #[test]
    fn every_check_has_a_meaning() {
        assert!(nix::unistd::geteuid().is_root(), "probing takes root");
        let mut checks = Features::probe().checks;
        checks.extend(crate::cli::checks::extra(None));
        for line in lines(&checks) {
            assert!(!line.means.is_empty(), "{}", line.check.name);
        }
    }

    #[test]
    fn what_is_missing_is_said_last_and_red() {
        let text = printed(&[Check::missing("btf", "nothing", "another kernel")], true);
        assert!(text.starts_with("\x1b[1m\x1b[31mmissing \x1b[0m  btf  nothing\n"), "{text:?}");
        assert!(text.ends_with("ana cannot run here: see what is missing\n"), "{text:?}");
    }
}
