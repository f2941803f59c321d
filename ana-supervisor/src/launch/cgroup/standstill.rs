//! A session that stands still while one of its programs runs alone: `work` is frozen, and whatever else is let go
//! meanwhile joins it there without running first.

use std::{
    collections::HashSet,
    ffi::{OsStr, OsString},
    fs, io,
    path::{Path, PathBuf},
};

use nix::unistd::Pid;

use super::{CgroupError, Hold, SessionCgroup, failed, of_process, processes_of, write};

/// What goes on while the session stands still.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// Where what the program starts belongs; `None` once the program has ended.
    home: Option<PathBuf>,
    /// The folders of the program, and of what it (or what it has started) executes.
    family: HashSet<OsString>,
}

fn name_of(path: &Path) -> &OsStr {
    path.file_name().unwrap_or_default()
}

impl Standing {
    pub(super) fn is_family(&self, folder: &Path) -> bool {
        self.family.contains(name_of(folder))
    }
}

impl SessionCgroup {
    /// Freezes `work`, and from now on lets nothing run but what is in `hold`. It takes effect step by step: see
    /// [`Self::restless`].
    ///
    /// # Errors
    /// The folder cannot be frozen; [`Self::go_on`] undoes what was done.
    pub fn stand_still(&self, hold: &Hold) -> Result<(), CgroupError> {
        let mut standing = self.standing();
        let family = HashSet::from([name_of(&hold.path).to_owned()]);
        *standing = Some(Standing { home: Some(hold.path.clone()), family });
        write(&self.path.join("work/cgroup.freeze"), "1")
    }

    /// The processes that the kernel does not count as frozen, of those that should be.
    ///
    /// # Errors
    /// The folders cannot be listed.
    pub fn restless(&self) -> Result<Vec<Pid>, CgroupError> {
        let family = match &*self.standing() {
            Some(standing) => standing.family.clone(),
            None => HashSet::new(),
        };
        let mut all = Vec::new();
        for folder in fs::read_dir(&self.path).map_err(failed("list", &self.path))?.flatten() {
            let is_folder = folder.file_type().is_ok_and(|kind| kind.is_dir());
            if !is_folder || family.contains(&folder.file_name()) {
                continue;
            }
            // A hold may be removed while we look.
            let events = fs::read_to_string(folder.path().join("cgroup.events")).unwrap_or_default();
            if !events.contains("frozen 1") {
                all.extend(processes_of(&folder.path()).unwrap_or_default());
            }
        }
        Ok(all)
    }

    /// The program has ended: what it has left behind, and what it has started, belongs to `work`.
    pub fn leave(&self, hold: &Hold) {
        if let Some(standing) = &mut *self.standing()
            && standing.home.as_ref() == Some(&hold.path)
        {
            standing.home = None;
        }
    }

    /// Thaws `work`.
    ///
    /// # Errors
    /// The folder cannot be thawed: the session has to end.
    pub fn go_on(&self) -> Result<(), CgroupError> {
        let mut standing = self.standing();
        *standing = None;
        write(&self.path.join("work/cgroup.freeze"), "0")
    }

    /// Whether the hold is one of the program for which the session stands still, or of what that has started.
    pub fn is_family(&self, hold: &Hold) -> bool {
        self.standing().as_ref().is_some_and(|standing| standing.is_family(&hold.path))
    }

    /// Lets what is in the hold run on: at once, or, in a session that stands still, when it goes on. The hold is to be
    /// emptied next.
    ///
    /// # Errors
    /// It cannot be thawed.
    pub fn let_go(&self, hold: &Hold) -> Result<(), CgroupError> {
        match &*self.standing() {
            // Frozen, it is moved to `work`, and stays frozen there.
            Some(standing) if !standing.is_family(&hold.path) => Ok(()),
            Some(_) | None => hold.thaw(),
        }
    }

    /// Notes that a hold is for a process of the program that runs alone, if it is.
    pub(super) fn adopt(&self, hold: &Path, pid: Pid) -> io::Result<()> {
        let mut standing = self.standing();
        let Some(standing) = &mut *standing else { return Ok(()) };
        if standing.is_family(Path::new(&of_process(pid)?)) {
            standing.family.insert(name_of(hold).to_owned());
        }
        Ok(())
    }

    /// Where the processes of a hold belong.
    pub(super) fn home_of(&self, hold: &Hold, standing: Option<&Standing>) -> PathBuf {
        let home = standing.filter(|s| s.is_family(&hold.path)).and_then(|s| s.home.as_deref());
        home.filter(|home| *home != hold.path).map_or_else(|| self.path.join("work"), Path::to_path_buf)
    }
}
