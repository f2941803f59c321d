//! How many tasks a session may have: bounds a fork storm, and what has to be killed at its end.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::cgroup::{SessionCgroup, TASKS_MAX};

/// Which controller bounds the session.
#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase", tag = "hierarchy")]
pub enum TaskLimit {
    /// `pids.max` of the session's own cgroup.
    V2,
    /// A group in the v1 pids hierarchy; the agent enters it.
    V1 {
        group: PathBuf,
        #[serde(skip)]
        procs: File,
    },
    /// No controller: degraded.
    None,
}

impl TaskLimit {
    /// Sets the limit in whichever hierarchy has the controller.
    pub fn set(session: &SessionCgroup, id: &str) -> Self {
        if v2(session.path()).is_ok() {
            return Self::V2;
        }
        match mount_of_v1().map(|mount| v1(&mount, id)) {
            Some(Ok((group, procs))) => Self::V1 { group, procs },
            Some(Err(_)) | None => Self::None,
        }
    }

    /// The v1 group, if it is one.
    pub fn group(&self) -> Option<&Path> {
        match self {
            Self::V1 { group, .. } => Some(group),
            Self::V2 | Self::None => None,
        }
    }
}

fn v2(session: &Path) -> io::Result<()> {
    let (Some(base), text) = (session.parent(), TASKS_MAX.to_string()) else {
        return Err(io::ErrorKind::NotFound.into());
    };
    // The controller has to be handed down from the mount to the session.
    for folder in base.parent().into_iter().chain([base]) {
        fs::write(folder.join("cgroup.subtree_control"), "+pids")?;
    }
    fs::write(session.join("pids.max"), text)
}

fn v1(mount: &Path, id: &str) -> io::Result<(PathBuf, File)> {
    let group = mount.join(format!("ana-{id}"));
    fs::create_dir(&group)?;
    fs::write(group.join("pids.max"), TASKS_MAX.to_string())?;
    let procs = OpenOptions::new().write(true).open(group.join("cgroup.procs"))?;
    Ok((group, procs))
}

/// The v1 pids group of a session, in a hybrid layout.
pub fn group_of(session: &str) -> Option<PathBuf> {
    Some(mount_of_v1()?.join(format!("ana-{session}")))
}

/// Where the v1 pids hierarchy is mounted, in a hybrid layout.
pub fn mount_of_v1() -> Option<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").ok()?;
    text.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut fields = file_system.split(' ');
        let is_pids =
            fields.next()? == "cgroup" && fields.next_back()?.split(',').any(|option| option == "pids");
        is_pids.then(|| mount.split(' ').nth(4).map(PathBuf::from))?
    })
}
