//! What a session leaves in the system, and the one way to remove it: first everything in it is dead, then nothing guards
//! it any more.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    cgroup::{self, CgroupError},
    pids,
};
use crate::kernel::pins;

/// Where a session stands in the file system; not all of it needs to be there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remains {
    /// The session's cgroup.
    pub cgroup: PathBuf,
    /// The folder of the pinned links.
    pub pins: PathBuf,
    /// The session's socket.
    pub socket: PathBuf,
    /// The session's v1 pids group.
    pub pids: Option<PathBuf>,
}

impl Remains {
    /// Those of a session whose cgroup is below `base` and whose socket is in `run`.
    pub fn of(session: &str, base: &Path, run: &Path) -> Self {
        Self {
            cgroup: base.join(session),
            pins: Path::new(pins::BASE).join(session),
            socket: run.join(format!("{session}.sock")),
            pids: pids::group_of(session),
        }
    }

    /// Kills what lives in the session and waits for its end. A session without a cgroup is dead.
    ///
    /// # Errors
    /// Something is still alive after `limit`: the guard has to stay.
    pub fn kill(&self, limit: Duration) -> Result<(), CgroupError> {
        match cgroup::kill(&self.cgroup, limit) {
            Err(_) if !self.cgroup.exists() => Ok(()),
            killed => killed,
        }
    }

    /// Whether nobody whom [`Self::kill`] has left over runs any more ([`cgroup::is_doomed`]). What cannot be read may run.
    pub fn are_doomed(&self) -> bool {
        cgroup::is_doomed(&self.cgroup).unwrap_or(false)
    }

    /// Removes what is left once nothing lives any more. What is not there is fine.
    pub fn remove(&self) {
        pins::unpin(&self.pins).ok();
        cgroup::remove(&self.cgroup).ok();
        fs::remove_file(&self.socket).ok();
        // What went wrong stays readable.
        let log = self.socket.with_extension("log");
        if fs::metadata(&log).is_ok_and(|meta| meta.len() == 0) {
            fs::remove_file(&log).ok();
        }
        if let Some(pids) = &self.pids {
            fs::remove_dir(pids).ok();
        }
    }
}
