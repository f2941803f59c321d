//! What keeps a listed path protected after the session has started.
//!
//! A file is protected by its inode, a rule names a path. Between the two, files are replaced: a package is upgraded, a
//! folder renamed, a link retargeted, a listed file made at last. So every folder on the way to a listed path is watched,
//! and when a name that leads to one appears, the path is followed again and what it leads to is protected, beside
//! what it led to before. All of this happens on a thread of its own; the answering thread waits for none of it.
//!
//! What comes to a path is protected a moment after it got there, not at once: half a millisecond at the median and
//! some 40 ms at worst on a machine of two cores that was busy (`the_window_of_a_replacement_closes` measures it).

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use ana_common::FileKey;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use nix::{
    fcntl::{OFlag, open},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::stat::Mode,
};
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedSender;

use super::{
    Common, GateError, compiled, privilege,
    protected::{Protected, Stat},
    route::{End, Folder, Route},
};
use crate::{
    gate::files::Hashes,
    kernel::identity,
    operation::Bytes,
    policy::Policy,
    sys::fanotify::{Buffer, Change, Group, Watch},
};

/// What the evidence is told.
#[derive(Debug)]
pub enum News {
    Replaced(Replaced),
    /// The kernel dropped notifications; every listed path has been followed again.
    Overflow,
    /// What a listed path leads to cannot be protected: the session ends.
    Unprotected(GateError),
}

/// A listed path leads to something else than before; if that is a file, it is protected already.
#[derive(Debug)]
pub struct Replaced {
    pub path: PathBuf,
    pub before: Option<FileKey>,
    pub now: Option<Arc<Protected>>,
    pub by: Option<Doer>,
}

/// The process whose change led to it, as it was a moment later.
#[derive(Clone, Debug)]
pub struct Doer {
    pub pid: i32,
    /// `None` when it was gone.
    pub exe: Option<Vec<u8>>,
    /// Whether it is one of the session's; `None` when it was gone.
    pub inside: Option<bool>,
}

/// What protects.
pub struct Parts {
    pub common: Arc<Common>,
    pub group: Arc<Group>,
    /// What the session's cgroups start with in /proc/PID/cgroup.
    pub prefix: String,
}

/// Follows the listed paths, and protects what they lead to.
pub struct Watcher {
    parts: Parts,
    news: UnboundedSender<News>,
    watch: Watch,
    /// Becomes readable (POLLPRI) when something is mounted or unmounted (proc_pid_mounts(5)).
    mounts: File,
    listed: Vec<Listed>,
    folders: HashMap<Stat, Arc<Folder>>,
    /// Folders that could not be watched when the session started.
    unwatched: Vec<PathBuf>,
    names: HashSet<Vec<u8>>,
    started: bool,
}

/// A listed path, and where it led when it was last followed.
struct Listed {
    path: PathBuf,
    route: Option<Route>,
    file: Option<(Stat, FileKey)>,
}

impl Listed {
    fn passes(&self, names: &HashMap<Vec<u8>, i32>) -> bool {
        self.route.as_ref().is_none_or(|route| route.names.iter().any(|name| names.contains_key(name)))
    }

    fn bendable(&self) -> bool {
        self.route.as_ref().is_some_and(|route| route.bendable)
    }
}

impl Watcher {
    /// Protects everything that the policy lists, and the programs that give privilege. The answering thread must be running: from here on the kernel stops
    /// whoever opens these files.
    ///
    /// # Errors
    /// A listed path leads to something that is no regular file, or that cannot be protected.
    pub fn start(
        policy: &Policy,
        privileged: &[PathBuf],
        parts: Parts,
        news: UnboundedSender<News>,
    ) -> Result<Self, GateError> {
        let listed =
            policy.exec_files().map(|path| Listed { path: path.to_owned(), route: None, file: None });
        let mut watcher = Self {
            parts,
            news,
            watch: Watch::new().map_err(GateError::Watch)?,
            mounts: File::open("/proc/self/mountinfo").map_err(GateError::Watch)?,
            listed: listed.collect(),
            folders: HashMap::new(),
            unwatched: Vec::new(),
            names: HashSet::new(),
            started: false,
        };
        watcher.follow_all(&HashMap::new())?;
        for path in privileged {
            // What cannot be opened, or marked, is left to the guard: it kills.
            let role = Role { listed: Vec::new(), bendable: false, privileged: true, compiled: false };
            watcher.protect_beside(path, role).ok();
        }
        watcher.started = true;
        Ok(watcher)
    }

    /// Listed paths where no file is yet.
    pub fn missing(&self) -> Vec<PathBuf> {
        self.listed.iter().filter(|l| l.file.is_none()).map(|listed| listed.path.clone()).collect()
    }

    /// Folders on the way to listed paths in which replacements are not seen: their file system tells fanotify nothing.
    pub fn unwatched(&self) -> Vec<PathBuf> {
        self.unwatched.clone()
    }

    /// Waits for changes, for ever.
    ///
    /// # Errors
    /// What a listed path leads to cannot be protected: the session has to end.
    pub fn run(mut self) -> GateError {
        let (mut buffer, mut changes) = (Buffer::default(), Vec::new());
        loop {
            if let Err(error) = self.turn(&mut buffer, &mut changes) {
                return error;
            }
        }
    }

    fn turn(&mut self, buffer: &mut Buffer, changes: &mut Vec<Change>) -> Result<(), GateError> {
        let remounted = self.wait().map_err(GateError::Watch)?;
        self.watch.read(buffer, changes).map_err(GateError::Watch)?;
        let (mut appeared, mut overflow) = (HashMap::new(), false);
        for change in changes.drain(..) {
            match change {
                Change::Appeared { name, pid } if self.names.contains(&name) => {
                    appeared.insert(name, pid);
                }
                Change::Appeared { .. } => {}
                Change::Overflow => overflow = true,
            }
        }
        if overflow || remounted {
            self.follow_all(&appeared)?;
        } else if !appeared.is_empty() {
            self.follow(&appeared, |listed| listed.passes(&appeared))?;
        }
        if overflow {
            // The receiver is gone only when the session ends.
            drop(self.news.send(News::Overflow));
        }
        Ok(())
    }

    /// Waits until something has appeared. True: or until something was mounted, which no folder tells.
    fn wait(&self) -> io::Result<bool> {
        let mut fds = [
            PollFd::new(self.watch.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.mounts.as_fd(), PollFlags::POLLPRI),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(fds[1].revents().is_some_and(|events| events.intersects(PollFlags::POLLPRI | PollFlags::POLLERR)))
    }

    fn follow_all(&mut self, appeared: &HashMap<Vec<u8>, i32>) -> Result<(), GateError> {
        self.follow(appeared, |_| true)
    }

    /// Follows these listed paths again.
    fn follow(
        &mut self,
        appeared: &HashMap<Vec<u8>, i32>,
        which: impl Fn(&Listed) -> bool,
    ) -> Result<(), GateError> {
        let mut order: Vec<usize> = (0..self.listed.len()).filter(|&at| which(&self.listed[at])).collect();
        // A file that just came is judged by a fixed path's rule, not by that of a path that was bent to it (see `Protected`).
        order.sort_by_key(|&at| self.listed[at].bendable());
        for at in order {
            self.follow_one(at, appeared)?;
        }
        self.names =
            self.listed.iter().filter_map(|l| l.route.as_ref()).flat_map(|r| r.names.clone()).collect();
        for (folder, name) in self.places() {
            self.parts.common.maps.place(folder, name)?;
        }
        // Those that no route has any more. What they lead to no longer is what a rule names.
        let watch = &self.watch;
        self.folders.retain(|_, folder| {
            let needed = Arc::strong_count(folder) > 1;
            if !needed {
                // ENOENT: it could not be watched, or was removed.
                watch.forget(folder.fd.as_fd()).ok();
            }
            needed
        });
        Ok(())
    }

    fn follow_one(&mut self, at: usize, appeared: &HashMap<Vec<u8>, i32>) -> Result<(), GateError> {
        let path = self.listed[at].path.clone();
        let failed = |source| GateError::Protect { path: path.clone(), source };
        let Self { watch, folders, unwatched, started, .. } = self;
        let mut enter = |fd: OwnedFd, stat| enter(watch, folders, unwatched, *started, fd, stat);
        let mut route = Route::follow(&path, &self.parts.common.user, &mut enter).map_err(failed)?;
        let file = match std::mem::replace(&mut route.end, End::Nothing) {
            End::File(file, stat) => {
                let key = self.protect(&path, route.bendable, file, stat)?;
                Some((stat, key))
            }
            // It cannot be executed. When it gets here later, there is nothing to be protected.
            End::NoFile if !self.started => return Err(failed(io::Error::other("not a regular file"))),
            End::NoFile | End::Nothing => None,
        };
        let listed = &mut self.listed[at];
        let before = std::mem::replace(&mut listed.file, file);
        if self.started && before.map(|(stat, _)| stat) != file.map(|(stat, _)| stat) {
            let pid = route.names.iter().rev().find_map(|name| appeared.get(name));
            let news = Replaced {
                path,
                before: before.map(|(_, key)| key),
                now: file.and_then(|(stat, _)| self.parts.common.protected.get(stat)),
                by: pid.map(|&pid| Doer::of(pid, &self.parts.prefix)),
            };
            drop(self.news.send(News::Replaced(news)));
        }
        self.listed[at].route = Some(route);
        Ok(())
    }

    /// Protects what a listed path leads to, and what would be run in its place.
    fn protect(&self, path: &Path, bendable: bool, file: OwnedFd, stat: Stat) -> Result<FileKey, GateError> {
        let failed = |source| GateError::Protect { path: path.to_owned(), source };
        let listed = vec![path.to_owned()];
        let Common { user, harmless_groups, .. } = &*self.parts.common;
        let privileged = privilege::gives(file.as_fd(), user, harmless_groups).map_err(failed)?;
        let role = Role { listed: listed.clone(), bendable, privileged, compiled: false };
        let key = self.add(path, file, stat, role)?;
        for copy in compiled::copies_of(path) {
            let role = Role { listed: listed.clone(), bendable, privileged: false, compiled: true };
            self.protect_beside(&copy, role)?;
        }
        Ok(key)
    }

    /// Protects a file that no rule lists.
    fn protect_beside(&self, path: &Path, role: Role) -> Result<(), GateError> {
        let failed =
            |errno: nix::errno::Errno| GateError::Protect { path: path.to_owned(), source: errno.into() };
        let options = OFlag::O_PATH | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let file = open(path, options, Mode::empty()).map_err(failed)?;
        let stat = nix::sys::stat::fstat(&file).map_err(failed)?;
        if stat.st_mode & libc::S_IFMT == libc::S_IFREG {
            self.add(path, file, (stat.st_dev, stat.st_ino), role)?;
        }
        Ok(())
    }

    /// Tells the judges, then the guard, then the kernel: whoever is stopped is known, and what cannot be stopped is killed.
    fn add(&self, path: &Path, file: OwnedFd, stat: Stat, role: Role) -> Result<FileKey, GateError> {
        let failed = |source| GateError::Protect { path: path.to_owned(), source };
        let key = identity::file_key(file.as_fd()).map_err(failed)?;
        let Role { listed, bendable, privileged, compiled } = role;
        let file = Arc::new(file);
        let protected = Protected { key, listed, bendable, privileged, compiled, file: Arc::clone(&file) };
        if self.parts.common.protected.add(stat, protected) {
            self.parts.common.maps.protect(key)?;
        }
        // Known or not: on overlayfs each hard link of a lower file has an inode of its own with the same number (Documentation/
        // filesystems/overlayfs.rst, "index"), and a mark is of one of them.
        self.parts.group.protect(file.as_fd()).map_err(failed)?;
        Ok(key)
    }

    /// Where the listed files lie: for each, the folder as the guard sees it, and the name in it. With a listed path that
    /// is a symbolic link, both the link's place and that of what it leads to.
    pub fn places(&self) -> BTreeSet<(FileKey, &[u8])> {
        let routes = self.listed.iter().filter_map(|listed| listed.route.as_ref());
        let places = routes.flat_map(|route| &route.places);
        places.map(|(folder, name)| (folder.key, name.as_slice())).collect()
    }
}

/// What a file is protected for; the fields of [`Protected`].
struct Role {
    listed: Vec<PathBuf>,
    bendable: bool,
    privileged: bool,
    compiled: bool,
}

/// Has a folder watched before a name is looked up in it, so that what appears after the look is told.
fn enter(
    watch: &Watch,
    folders: &mut HashMap<Stat, Arc<Folder>>,
    unwatched: &mut Vec<PathBuf>,
    started: bool,
    fd: OwnedFd,
    stat: Stat,
) -> io::Result<Arc<Folder>> {
    if let Some(known) = folders.get(&stat) {
        return Ok(Arc::clone(known));
    }
    match watch.folder(fd.as_fd()) {
        Ok(()) => {}
        // Said when the session starts, and accepted then. A path that moves to such a folder later is another matter.
        Err(error) if !started && cannot_be_watched(&error) => {
            unwatched.push(crate::gate::files::path_of(fd.as_fd())?);
        }
        Err(error) => return Err(error),
    }
    let folder = Arc::new(Folder { key: identity::file_key(fd.as_fd())?, fd });
    folders.insert(stat, Arc::clone(&folder));
    Ok(folder)
}

fn cannot_be_watched(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENODEV | libc::EXDEV))
}

impl Replaced {
    /// For the record. Reads the whole file, hence never on the watcher's thread.
    pub fn detail(&self, hashes: &Hashes) -> Value {
        let device = |key: FileKey| format!("{}:{}", key.major(), key.minor());
        let before = self.before.map(|key| json!({ "dev": device(key), "inode": key.ino.to_string() }));
        let now = self.now.as_ref().map(|file| {
            // What it is now: whoever made it may still be writing it.
            let hash = file.open().and_then(|opened| hashes.of(&opened)).ok();
            json!({
                "dev": device(file.key), "inode": file.key.ino.to_string(),
                "sha256": hash.map(|hash| BASE64_URL_SAFE_NO_PAD.encode(hash)),
            })
        });
        let by = self.by.as_ref().map(|doer| {
            let exe = doer.exe.as_ref().map(|exe| Bytes(exe.clone()).escaped());
            json!({ "pid": doer.pid, "exe": exe, "in_session": doer.inside })
        });
        let what = match (&before, &now) {
            (Some(_), Some(_)) => "replaced",
            (None, _) => "appeared",
            (Some(_), None) => "removed",
        };
        let path = Bytes::from(self.path.as_os_str().as_bytes()).escaped();
        json!({ "protected": what, "file": path, "before": before, "now": now, "by": by })
    }
}

impl Doer {
    fn of(pid: i32, prefix: &str) -> Self {
        let exe = fs::read_link(format!("/proc/{pid}/exe")).ok().map(|exe| exe.into_os_string().into_vec());
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok();
        let inside = groups.and_then(|groups| {
            let own = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
            Some(own.starts_with(prefix))
        });
        Self { pid, exe, inside }
    }
}
