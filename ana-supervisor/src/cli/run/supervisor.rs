//! Getting a supervisor: through sudo for a person, directly for root.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail};
use nix::unistd::Pid;

use super::Args;
use crate::supervisor::start::Announcement;

/// Starts `ana-supervisor` and returns the path of its socket.
pub(super) fn start(args: &Args) -> anyhow::Result<PathBuf> {
    let program = beside_us("ana-supervisor")?;
    let pid = Pid::this();
    let started = crate::gate::process::start_time(pid).context("cannot read our own start time")?;
    let mut command = match nix::unistd::geteuid().is_root() {
        true => Command::new(&program),
        false => {
            let mut sudo = Command::new("sudo");
            sudo.arg("--").arg(&program);
            sudo
        }
    };
    command.arg("start").arg("--owner").arg(format!("{pid}:{started}"));
    if let Some(user) = &args.user {
        command.arg("--user").arg(user);
    }
    // Our current folder is not the supervisor's.
    for (name, path) in [("--policy", &args.policy), ("--state", &args.state)] {
        if let Some(path) = path {
            let path = std::path::absolute(path).with_context(|| format!("{name} {}", path.display()))?;
            command.arg(name).arg(path);
        }
    }
    let mut starting = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    let mut line = String::new();
    if let Some(stdout) = starting.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).context("cannot hear from the supervisor")?;
    }
    let status = starting.wait().context("cannot wait for the supervisor to start")?;
    if line.is_empty() {
        bail!("the supervisor did not start ({status}); it needs root: may you use sudo here?");
    }
    match serde_json::from_str(&line).context("the supervisor said something unexpected")? {
        Announcement::Ready { socket, .. } => Ok(socket),
        Announcement::Failed { why } => bail!("{why}"),
    }
}

/// Our programs are installed side by side.
fn beside_us(name: &str) -> anyhow::Result<PathBuf> {
    let us = std::env::current_exe().context("cannot find our own program")?;
    let path = us.parent().unwrap_or(Path::new("/")).join(name);
    if !path.is_file() {
        bail!("{} is missing; install ana-run and ana-supervisor into one folder", path.display());
    }
    Ok(path)
}
