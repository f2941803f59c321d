//! The main job on a machine that has never seen it.

use std::{
    env,
    ffi::{OsStr, OsString},
    os::unix::process::CommandExt,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};
use nix::unistd::getuid;

use crate::{
    agent::Agent,
    demo,
    installed::{self, Installed},
    packages::{self, need},
    state::{self, State},
    steps::{note, step},
};

/// Run a command as an agent under ana, on this machine as it is; without one, a guided demo
///
/// Builds the product, copies it to a place that agents cannot change, prepares a state folder with a starter policy
/// and a software passkey, and then does what `ana-run -- CMD` does. Exits with CMD's status.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The agent and its arguments
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Everything that `ana-run` needs.
pub(crate) struct Ready {
    pub(crate) agent: Agent,
    pub(crate) installed: Installed,
    pub(crate) state: State,
}

impl Ready {
    /// `ana-run`, up to the agent's command.
    pub(crate) fn ana_run(&self) -> Command {
        let mut command = Command::new(self.installed.program("ana-run"));
        for (name, _) in env::vars_os().filter(|(name, _)| is_cargos(name)) {
            command.env_remove(name);
        }
        command.arg("--state").arg(&self.state.folder);
        if self.agent.named {
            command.arg("--user").arg(&self.agent.user.name);
        }
        command.arg("--");
        // The C library drops it from the environment of a setgid program.
        if let Some(folder) = env::var_os("TMPDIR") {
            let mut assignment = OsString::from("TMPDIR=");
            assignment.push(folder);
            command.arg("env").arg(assignment);
        }
        command
    }
}

/// Whether cargo and rustup have set this variable for us: it says nothing to the agent, and would lead its own cargo
/// astray.
fn is_cargos(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    let whole = ["CARGO", "CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "LD_LIBRARY_PATH", "RUSTUP_TOOLCHAIN"];
    whole.contains(&&*name) || name.starts_with("CARGO_PKG_") || name == "RUST_RECURSION_COUNT"
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let ready = prepare()?;
    if args.command.is_empty() {
        return demo::run(&ready);
    }
    let folder = ready.agent.folder()?;
    let mut command = ready.ana_run();
    command.args(&args.command).current_dir(folder);
    step("start", &format!("ana-run -- {} as {}", shown(&args.command), ready.agent.user.name));
    Err(command.exec()).context("cannot start ana-run")
}

fn prepare() -> Result<Ready> {
    if !getuid().is_root() {
        note("sudo", "root installs, and supervises the agent; the agent itself runs as you");
    }
    packages::install(&[need("sudo", "sudo"), need("git", "git"), need("cc", "gcc")])?;
    let agent = Agent::find()?;
    let built = installed::build()?;
    let installed = installed::install(&built)?;
    let state = state::prepare(&installed, &agent)?;
    Ok(Ready { agent, installed, state })
}

fn shown(command: &[OsString]) -> String {
    command.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
