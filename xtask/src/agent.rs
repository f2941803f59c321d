//! Whom the agent runs as.

use std::{
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use nix::unistd::{Uid, User, getuid};

use crate::{
    commands::{quietly, which},
    steps::step,
};

/// Made where root has no person behind it: an agent that is root could undo everything.
const DEMO_USER: &str = "ana-demo";

/// The agent's user.
pub(crate) struct Agent {
    pub(crate) user: User,
    /// Root acts, and nobody called sudo: `ana-run` has to be told the user.
    pub(crate) named: bool,
}

impl Agent {
    /// The person who calls us (through sudo or not), or a demo user.
    pub(crate) fn find() -> Result<Self> {
        let ours = getuid();
        if !ours.is_root() {
            return Ok(Self { user: account(ours)?, named: false });
        }
        match std::env::var("SUDO_UID").ok().filter(|uid| uid != "0") {
            Some(uid) => {
                let uid = Uid::from_raw(uid.parse().context("SUDO_UID is no number")?);
                Ok(Self { user: account(uid)?, named: false })
            }
            None => Ok(Self { user: demo_user()?, named: true }),
        }
    }

    /// A program with the agent's own rights and home.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if getuid().is_root() {
            // The supplementary groups go with the uid.
            command.uid(self.user.uid.as_raw()).gid(self.user.gid.as_raw()).env("HOME", &self.user.dir);
        }
        command
    }

    /// A folder that the agent can enter: this one, or its home.
    pub(crate) fn folder(&self) -> Result<PathBuf> {
        let here = std::env::current_dir().context("the current folder is gone")?;
        let entered = self.command(Path::new("/bin/true")).current_dir(&here).status();
        if entered.is_ok_and(|status| status.success()) {
            return Ok(here);
        }
        let home = self.user.dir.clone();
        step("folder", &format!("{} (the agent may not enter {})", home.display(), here.display()));
        Ok(home)
    }

    /// A new folder of the agent's own.
    pub(crate) fn temporary_folder(&self) -> Result<PathBuf> {
        let mut mktemp = self.command(Path::new("mktemp"));
        let made =
            crate::commands::output(mktemp.args(["--directory", "/tmp/ana-demo.XXXXXXXX"]).current_dir("/"))?;
        let folder = PathBuf::from(made);
        let owner = folder.metadata().context("the new folder is gone")?.uid();
        if owner != self.user.uid.as_raw() {
            bail!("{} is not {}'s", folder.display(), self.user.name);
        }
        Ok(folder)
    }
}

fn account(uid: Uid) -> Result<User> {
    User::from_uid(uid)?.with_context(|| format!("there is no account for uid {uid}"))
}

fn demo_user() -> Result<User> {
    if let Some(user) = User::from_name(DEMO_USER)? {
        step("user", &format!("the agent runs as {DEMO_USER}: root called, and nobody is behind it"));
        return Ok(user);
    }
    let useradd = which("useradd").context("there is no useradd (package passwd)")?;
    quietly(Command::new(useradd).args(["--create-home", "--shell", "/bin/bash", DEMO_USER]))?;
    step("user", &format!("made {DEMO_USER} for the agent: root called, and nobody is behind it"));
    User::from_name(DEMO_USER)?.with_context(|| format!("useradd made no {DEMO_USER}"))
}
