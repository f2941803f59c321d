//! Whether a process belongs to the session: by its cgroup, which no process of the session can change.

use std::{
    collections::HashMap,
    os::fd::{AsFd, OwnedFd},
    sync::{Mutex, PoisonError},
};

use crate::sys::process::{self, Info};

/// Cgroups that are remembered before all are looked at again.
const REMEMBERED_MAX: usize = 4096;

/// Where a process is.
#[derive(Debug)]
pub enum Place {
    /// Not in the session: not ours to stop.
    Outside,
    /// In the session; with what the kernel tells of it at once, from Linux 6.13 on.
    Inside(Option<Info>),
    /// It has ended, or cannot be looked at.
    Gone,
}

/// Tells the session's processes from others.
#[derive(Debug)]
pub struct Places {
    /// What the session's cgroups start with in /proc/PID/cgroup.
    prefix: String,
    /// Cgroups by their ids, which are never used again; whether they are the session's. A cgroup never moves.
    known: Mutex<HashMap<u64, bool>>,
}

impl Places {
    pub fn new(prefix: String) -> Self {
        Self { prefix, known: Mutex::default() }
    }

    /// `process` is the pidfd of `pid`, 0 for a process in no pid namespace that we see: every process of the session is
    /// in ours or one below.
    pub fn of(&self, pid: i32, process: Option<&OwnedFd>) -> Place {
        if pid == 0 {
            return Place::Outside;
        }
        let Some(process) = process else {
            // Reaped, or the kernel had no descriptor left for it: then it must not be ours to stop.
            return match self.by_path(pid, None) {
                Place::Inside(_) => Place::Gone,
                outside @ (Place::Outside | Place::Gone) => outside,
            };
        };
        let Ok(Some(info)) = process::info(process.as_fd()) else { return self.by_path(pid, None) };
        let known = self.known().get(&info.cgroup).copied();
        match known {
            Some(true) => Place::Inside(Some(info)),
            Some(false) => Place::Outside,
            None => self.first_of(pid, process, info),
        }
    }

    /// The first process of a cgroup that is met.
    fn first_of(&self, pid: i32, process: &OwnedFd, info: Info) -> Place {
        let cgroup = info.cgroup;
        let place = self.by_path(pid, Some(info));
        // It may have been moved in between; then the two do not belong together.
        let still =
            process::info(process.as_fd()).is_ok_and(|now| now.is_some_and(|now| now.cgroup == cgroup));
        if still && !matches!(place, Place::Gone) {
            let mut known = self.known();
            if known.len() >= REMEMBERED_MAX {
                known.clear();
            }
            known.insert(cgroup, matches!(place, Place::Inside(_)));
        }
        place
    }

    fn by_path(&self, pid: i32, info: Option<Info>) -> Place {
        // The v2 line is the last; those of v1 hierarchies before it may be long.
        let Ok(text) = process::small_file(format!("/proc/{pid}/cgroup")) else { return Place::Gone };
        let lines = text.split(|&b| b == b'\n');
        match lines.filter_map(|line| line.strip_prefix(b"0::")).next() {
            Some(path) if path.starts_with(self.prefix.as_bytes()) => Place::Inside(info),
            Some(_) => Place::Outside,
            None => Place::Gone,
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<u64, bool>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use nix::unistd::Pid;

    use super::*;

    #[test]
    fn a_process_is_where_its_cgroup_is() {
        let pid = Pid::this();
        let pidfd = process::pidfd_open(pid).unwrap();
        let own = crate::launch::cgroup::of_process(pid).unwrap();
        for (prefix, inside) in [(own, true), ("/no/such/cgroup/".to_owned(), false)] {
            let places = Places::new(prefix);
            // The second time from memory.
            for _ in 0..2 {
                let place = places.of(pid.as_raw(), Some(&pidfd));
                assert_eq!(matches!(place, Place::Inside(_)), inside, "{place:?}");
                if let Place::Inside(Some(info)) = place {
                    assert_eq!(info.uid, nix::unistd::getuid().as_raw());
                    assert_eq!(info.parent, nix::unistd::getppid().as_raw());
                }
            }
        }
        let places = Places::new("/".to_owned());
        assert!(matches!(places.of(0, Some(&pidfd)), Place::Outside));
        assert!(matches!(places.of(pid.as_raw(), None), Place::Gone), "inside, and no way to hold it");
        assert!(matches!(Places::new("/no/".to_owned()).of(pid.as_raw(), None), Place::Outside));
    }
}
