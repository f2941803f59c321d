//! The session's cgroups (cgroups(7), Documentation/admin-guide/cgroup-v2.rst):
//!
//! ```text
//! <cgroup2 mount>/ana/<session>/work        the agent and everything below it
//! <cgroup2 mount>/ana/<session>/hold-<id>   one held exec, frozen
//! ```
//!
//! Every directory is root's: a session cannot move itself.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{FileExt, MetadataExt},
    },
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use nix::{sys::signal::Signal, unistd::Pid};
use thiserror::Error;
use tokio::io::Interest;

use crate::sys::{self, readiness};

mod doomed;
mod standstill;

use standstill::Standing;

/// The name of our folder below the mount.
pub const BASE: &str = "ana";
/// Tasks (threads count) that a session may have: bounds what has to be killed when it ends.
pub const TASKS_MAX: u32 = 4096;

#[derive(Debug, Error)]
pub enum CgroupError {
    #[error("no cgroup2 file system is mounted; mount one: mount -t cgroup2 none /sys/fs/cgroup")]
    NoHierarchy,
    #[error("{path}: owned or writable by others than root; a session below it could move itself out")]
    Untrusted { path: PathBuf },
    #[error("{doing} {path}")]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("cgroup {path} still has processes {seconds} s after cgroup.kill")]
    StillPopulated { path: PathBuf, seconds: u64 },
}

fn failed<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> CgroupError + 'a {
    move |source| CgroupError::Io { doing, path: path.to_owned(), source }
}

/// Where the cgroup2 file system is, and how /proc/PID/cgroup names what is below it.
#[derive(Clone, Debug)]
pub struct Hierarchy {
    mount: PathBuf,
    /// The path of the mount's root as /proc/PID/cgroup would print it, without a trailing slash.
    root: String,
}

impl Hierarchy {
    /// # Errors
    /// [`CgroupError::NoHierarchy`] when no cgroup2 is mounted (a hybrid layout is fine).
    pub fn find() -> Result<Self, CgroupError> {
        let mounts = Path::new("/proc/self/mountinfo");
        let text = fs::read_to_string(mounts).map_err(failed("read", mounts))?;
        text.lines().find_map(Self::from_mountinfo).ok_or(CgroupError::NoHierarchy)
    }

    /// `id parent major:minor root mount-point options … - type source super-options` (proc_pid_mountinfo(5)).
    fn from_mountinfo(line: &str) -> Option<Self> {
        let (mount, file_system) = line.split_once(" - ")?;
        if file_system.split(' ').next()? != "cgroup2" {
            return None;
        }
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        Some(Self { mount: PathBuf::from(point), root: root.trim_end_matches('/').to_owned() })
    }

    /// The folder that holds the sessions.
    pub fn base(&self) -> PathBuf {
        self.mount.join(BASE)
    }

    /// What the line "0::…" of /proc/PID/cgroup starts with, for a process in any session.
    pub fn sessions_prefix(&self) -> String {
        format!("{}/{BASE}/", self.root)
    }

    /// How deep a session's cgroup lies below the root of the hierarchy; 0 when a cgroup namespace hides it.
    fn session_level(&self) -> u32 {
        /// PROC_CGROUP_INIT_INO: the inode of the initial cgroup namespace.
        const INITIAL: u64 = 0xEFFF_FFFB;
        match fs::metadata("/proc/self/ns/cgroup") {
            Ok(namespace) if namespace.ino() == INITIAL => {
                u32::try_from(self.root.matches('/').count() + 2).unwrap_or(0)
            }
            _ => 0,
        }
    }
}

/// The process's own cgroup in the v2 hierarchy, as /proc/PID/cgroup names it.
pub fn of_process(pid: Pid) -> io::Result<String> {
    let mut text = String::with_capacity(256);
    File::open(format!("/proc/{pid}/cgroup"))?.read_to_string(&mut text)?;
    let line = text.lines().find_map(|line| line.strip_prefix("0::"));
    line.map(str::to_owned).ok_or_else(|| io::Error::other("no cgroup2 line"))
}

/// One session's cgroup. [`SessionCgroup::end`] kills and removes it; dropping it does nothing, so that a failure on the
/// way out leaves the processes where they are guarded.
#[derive(Debug)]
pub struct SessionCgroup {
    path: PathBuf,
    /// As /proc/PID/cgroup prints it, with a trailing slash.
    prefix: String,
    level: u32,
    /// Moving a process into a hold, and moving a released one back to `work`, exclude each other: a process that is held
    /// again while its last hold is being emptied must not be carried out of the new one. With it, whether the session
    /// stands still.
    moves: Mutex<Option<Standing>>,
}

impl SessionCgroup {
    /// Makes the session's folders.
    ///
    /// # Errors
    /// When they cannot be made, or lie below a folder that others than root can write.
    pub fn create(hierarchy: &Hierarchy, session: &str) -> Result<Self, CgroupError> {
        let base = hierarchy.base();
        let path = base.join(session);
        for directory in [&base, &path, &path.join("work")] {
            match fs::create_dir(directory) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(failed("create", directory)(error));
                }
                _ => {}
            }
        }
        for ancestor in path.ancestors().take_while(|a| a.starts_with(&hierarchy.mount)) {
            let owner = fs::metadata(ancestor).map_err(failed("look at", ancestor))?;
            if owner.uid() != 0 || owner.mode() & 0o022 != 0 {
                return Err(CgroupError::Untrusted { path: ancestor.to_owned() });
            }
        }
        let prefix = format!("{}{session}/", hierarchy.sessions_prefix());
        Ok(Self { path, prefix, level: hierarchy.session_level(), moves: Mutex::default() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the cgroups of the session's processes start with in /proc/PID/cgroup.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// How deep it lies below the root of the hierarchy; 0 when a cgroup namespace hides it.
    pub fn level(&self) -> u32 {
        self.level
    }

    /// The kernel's id of the cgroup: the inode number of its folder.
    pub fn id(&self) -> Result<u64, CgroupError> {
        id_of(&self.path)
    }

    /// The folder itself, for attaching and for CLONE_INTO_CGROUP.
    pub fn open(&self) -> Result<File, CgroupError> {
        File::open(&self.path).map_err(failed("open", &self.path))
    }

    pub fn open_work(&self) -> Result<File, CgroupError> {
        let work = self.path.join("work");
        File::open(&work).map_err(failed("open", &work))
    }

    /// Every process of the session, held ones included.
    pub fn processes(&self) -> Result<Vec<Pid>, CgroupError> {
        let folders = fs::read_dir(&self.path).map_err(failed("list", &self.path))?;
        let mut all = Vec::new();
        for folder in folders.flatten().filter(|f| f.file_type().is_ok_and(|t| t.is_dir())) {
            // A hold may be removed while we look.
            all.extend(processes_of(&folder.path()).unwrap_or_default());
        }
        Ok(all)
    }

    fn standing(&self) -> MutexGuard<'_, Option<Standing>> {
        self.moves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a frozen cgroup for one held exec, of the process `pid`.
    pub fn hold(&self, id: &str, pid: Pid) -> Result<Hold, CgroupError> {
        let path = self.path.join(format!("hold-{id}"));
        self.adopt(&path, pid).map_err(failed("look at the process of", &path))?;
        fs::create_dir(&path).map_err(failed("create", &path))?;
        write(&path.join("cgroup.freeze"), "1")?;
        Ok(Hold { id: id_of(&path)?, path })
    }

    /// Moves the process into the hold, where the freezer stops it at its next return to user mode.
    pub fn move_into(&self, hold: &Hold, pid: Pid) -> Result<(), CgroupError> {
        let _one_at_a_time = self.standing();
        move_to(&hold.path.join("cgroup.procs"), pid)
    }

    /// Moves what is in the hold back to `work` (or to the program that runs alone and has started it) and removes the
    /// hold. It must have been disarmed and let go.
    pub fn empty(&self, hold: &Hold) -> Result<(), CgroupError> {
        loop {
            {
                let standing = self.standing();
                let work = self.home_of(hold, standing.as_ref()).join("cgroup.procs");
                for pid in processes_of(&hold.path)? {
                    // It may have ended since.
                    if let Err(CgroupError::Io { source, .. }) = move_to(&work, pid)
                        && source.raw_os_error() != Some(libc::ESRCH)
                    {
                        return Err(failed("move a process to", &work)(source));
                    }
                }
            }
            match fs::remove_dir(&hold.path) {
                Ok(()) => return Ok(()),
                // A child was forked meanwhile, or a zombie is still being taken away: look again.
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => std::thread::yield_now(),
                Err(error) => return Err(failed("remove", &hold.path)(error)),
            }
        }
    }

    /// Kills everything in the session and removes its folders.
    pub fn end(&self, limit: Duration) -> Result<(), CgroupError> {
        kill(&self.path, limit)?;
        remove(&self.path)
    }
}

/// A frozen cgroup for one held exec.
#[derive(Debug)]
pub struct Hold {
    path: PathBuf,
    id: u64,
}

impl Hold {
    /// The kernel's id of the cgroup.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Lets what is inside run on.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        write(&self.path.join("cgroup.freeze"), "0")
    }

    /// Kills what is inside; works on frozen processes.
    pub fn kill(&self) -> Result<(), CgroupError> {
        write(&self.path.join("cgroup.kill"), "1")
    }

    /// Waits until every process inside has stopped ("frozen 1" in cgroup.events), or has gone.
    pub async fn frozen(&self) -> Result<(), CgroupError> {
        let path = self.path.join("cgroup.events");
        let events = File::open(&path).map_err(failed("open", &path))?;
        let reader = events.try_clone().map_err(failed("open", &path))?;
        let changes =
            readiness::watch(OwnedFd::from(events), Interest::PRIORITY).map_err(failed("watch", &path))?;
        loop {
            let mut text = [0; 256];
            let length = reader.read_at(&mut text, 0).map_err(failed("read", &path))?;
            let text = String::from_utf8_lossy(&text[..length]);
            if text.contains("frozen 1") || text.contains("populated 0") {
                return Ok(());
            }
            let mut ready = changes.ready(Interest::PRIORITY).await.map_err(failed("watch", &path))?;
            ready.clear_ready();
        }
    }
}

fn id_of(path: &Path) -> Result<u64, CgroupError> {
    Ok(fs::metadata(path).map_err(failed("look at", path))?.ino())
}

fn write(path: &Path, text: &str) -> Result<(), CgroupError> {
    let mut file = OpenOptions::new().write(true).open(path).map_err(failed("open", path))?;
    file.write_all(text.as_bytes()).map_err(failed("write to", path))
}

/// Moves a process to the cgroup of this cgroup.procs. Never ourselves, which is what 0 means there (cgroups(7)).
fn move_to(procs: &Path, pid: Pid) -> Result<(), CgroupError> {
    match pid.as_raw() {
        1.. => write(procs, &pid.to_string()),
        _ => Err(failed("move a process to", procs)(io::Error::from_raw_os_error(libc::ESRCH))),
    }
}

fn processes_of(path: &Path) -> Result<Vec<Pid>, CgroupError> {
    let file = path.join("cgroup.procs");
    let text = fs::read_to_string(&file).map_err(failed("read", &file))?;
    Ok(numbers(&text))
}

/// The processes that cgroup.procs names. One that is just being taken away has no number any more: the kernel shows 0.
fn numbers(text: &str) -> Vec<Pid> {
    text.lines().filter_map(|line| line.parse().ok()).filter(|&pid| pid > 0).map(Pid::from_raw).collect()
}

/// `cgroup.kill`, then waits for "populated 0": the kill is done only when nobody is left. Who is left after `limit` is killed
/// once more, each process by itself.
pub fn kill(path: &Path, limit: Duration) -> Result<(), CgroupError> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    write(&path.join("cgroup.kill"), "1")?;
    let events = path.join("cgroup.events");
    let file = File::open(&events).map_err(failed("open", &events))?;
    let end = Instant::now() + limit;
    loop {
        let mut text = [0; 256];
        let length = file.read_at(&mut text, 0).map_err(failed("read", &events))?;
        if String::from_utf8_lossy(&text[..length]).contains("populated 0") {
            return Ok(());
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            kill_each(path)?;
            return Err(CgroupError::StillPopulated { path: path.to_owned(), seconds: limit.as_secs() });
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(file.as_fd(), PollFlags::POLLPRI)], timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(failed("watch", &events)(error.into())),
        }
    }
}

/// The cgroups of a session: the holds, where it works, and last itself.
fn folders_of(path: &Path) -> Result<Vec<PathBuf>, CgroupError> {
    let entries = fs::read_dir(path).map_err(failed("list", path))?.flatten().map(|entry| entry.path());
    Ok(entries.filter(|entry| entry.is_dir()).chain([path.to_owned()]).collect())
}

/// Kills every process in a session by itself: `cgroup.kill` leaves out a process whose first thread has been killed (by the
/// exec of another of its threads, say), and the others go on.
fn kill_each(path: &Path) -> Result<(), CgroupError> {
    for folder in folders_of(path)? {
        for pid in processes_of(&folder)? {
            let Ok(process) = sys::process::pidfd_open(pid) else { continue };
            // The number is still this process's.
            if processes_of(&folder)?.contains(&pid) {
                sys::process::signal(process.as_fd(), Some(Signal::SIGKILL)).ok();
            }
        }
    }
    Ok(())
}

/// Whether nobody in a session that has been killed runs any more. Who waits for something that cannot be interrupted (a file
/// system that does not answer, say) dies when it comes, and until then is there.
pub fn is_doomed(path: &Path) -> Result<bool, CgroupError> {
    for folder in folders_of(path)? {
        if !processes_of(&folder)?.into_iter().all(doomed::is_doomed) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Removes a session's folders, which must be empty of processes.
pub fn remove(path: &Path) -> Result<(), CgroupError> {
    folders_of(path)?.iter().try_for_each(|folder| fs::remove_dir(folder).map_err(failed("remove", folder)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process that is reaped while the list is read is shown as 0, and to write that would move the supervisor.
    #[test]
    fn who_has_no_number_is_no_process_and_never_moved() {
        assert_eq!(numbers("0\n12\n-1\nx\n7\n"), [12, 7].map(Pid::from_raw));
        let procs = tempfile::NamedTempFile::new().unwrap();
        for pid in [0, -1] {
            let error = move_to(procs.path(), Pid::from_raw(pid)).unwrap_err();
            let CgroupError::Io { source, .. } = &error else { panic!("{error}") };
            assert_eq!(source.raw_os_error(), Some(libc::ESRCH));
        }
        assert_eq!(fs::read_to_string(procs.path()).unwrap(), "");
        move_to(procs.path(), Pid::from_raw(12)).unwrap();
        assert_eq!(fs::read_to_string(procs.path()).unwrap(), "12");
    }

    #[test]
    fn the_mount_is_found_in_pure_and_hybrid_layouts() {
        let line = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw";
        let found = Hierarchy::from_mountinfo(line).unwrap();
        assert_eq!(found.base(), Path::new("/sys/fs/cgroup/unified/ana"));
        assert_eq!(found.sessions_prefix(), "/ana/");
        let v1 = "39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids";
        assert!(Hierarchy::from_mountinfo(v1).is_none());
        let below = "41 31 0:38 /machine/x /sys/fs/cgroup rw - cgroup2 none rw";
        assert_eq!(Hierarchy::from_mountinfo(below).unwrap().sessions_prefix(), "/machine/x/ana/");
    }
}
