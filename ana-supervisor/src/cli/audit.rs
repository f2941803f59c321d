//! `ana audit`: what was decided, by whom, and whether the log is as it was written.

mod heads;
pub(super) mod list;
mod moment;
mod output;
pub(super) mod show;
#[cfg(test)]
mod tests;
pub(super) mod verify;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use anyhow::Context;
use clap::{Args, Subcommand};

use crate::evidence::{Payload, read};
use crate::state::{Folder, Missing, State, StateError, Strictness};
use output::Out;

/// Look at the evidence.
#[derive(Debug, Args)]
pub struct Audit {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List records, newest last.
    List(list::List),
    /// Show one operation: what it was, who decided, what became of it.
    Show(show::Show),
    /// Check every signature, the chain and every person's approval.
    Verify(verify::Verify),
    /// Print every record's payload as JSON, one a line (signatures are not checked).
    Export,
}

/// Runs `ana audit …` on the default state or the one at `state`.
pub fn run(args: Audit, state: Option<&Path>) -> ExitCode {
    match args.command.run(state, &mut Out::stdout()) {
        Ok(code) => code,
        // Nobody reads on (`ana audit list | head`): not an error.
        Err(error) if output::is_closed(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

impl Command {
    fn run(&self, state: Option<&Path>, out: &mut Out) -> anyhow::Result<ExitCode> {
        match self {
            Self::List(list) => list.run(state, out),
            Self::Show(show) => show.run(state, out),
            Self::Verify(verify) => verify.run(state, out),
            Self::Export => export(state, out),
        }
    }
}

fn export(state: Option<&Path>, out: &mut Out) -> anyhow::Result<ExitCode> {
    let mut result = Ok(());
    each(state, |payload| {
        result = out.json_line(&payload);
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    result?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// Calls `each` with every payload of the log, oldest first.
fn each(state: Option<&Path>, each: impl FnMut(Payload) -> ControlFlow<()>) -> anyhow::Result<()> {
    let folder = evidence(state)?;
    read::payloads(&folder, each).context("`ana audit verify` tells more")
}

/// The evidence folder, for reading.
fn evidence(state: Option<&Path>) -> anyhow::Result<Folder> {
    let path = State::paths(state).evidence;
    let (folder, warning) = open(&path)?;
    let folder = folder.with_context(|| {
        format!(
            "there is no evidence at {}: nothing was recorded yet, or `--state` names another folder",
            path.display()
        )
    })?;
    // An explicit state may be anybody's; its records say "development" themselves.
    if let (Some(warning), None) = (warning, state) {
        output::complain(&format!("{warning}: what lies here may have been put there by someone else"));
    }
    Ok(folder)
}

/// Opens a folder for reading, whoever owns it: a copy of the evidence is as good as the original, and a folder that
/// is not root's alone has to be looked at all the more. `None` when it is not there; and what is wrong with it.
fn open(path: &Path) -> Result<(Option<Folder>, Option<String>), StateError> {
    let loose = Arc::new(OnceLock::new());
    match Folder::open(path, Strictness::Preferred, Missing::Refuse, Arc::clone(&loose)) {
        Ok(folder) => Ok((Some(folder), loose.get().cloned())),
        Err(error) if error.is_missing() => Ok((None, None)),
        Err(error) => Err(error),
    }
}

/// Whether the session answers at its socket.
fn is_live(run: &Path, session: &str) -> bool {
    // A session's name is a ULID; nothing else is looked up in the file system.
    session.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && std::os::unix::net::UnixStream::connect(socket(run, session)).is_ok()
}

fn socket(run: &Path, session: &str) -> PathBuf {
    run.join(format!("{session}.sock"))
}
