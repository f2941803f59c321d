//! The files that the arguments of a stopped process name: looked up as the process itself would, and hashed.
//!
//! Root opens none of the agent's paths: a thread of its own takes the process's root and working directory (by
//! descriptor) and the agent's rights, and lets go of every capability. It opens regular files only, nothing that is
//! protected (that would be an event of our own), and nothing that others serve while it waits (FUSE). A lookup that
//! does not come back costs a second, and one of a few threads.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::{MetadataExt, OpenOptionsExt},
        },
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use nix::{
    fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2},
    sys::statfs::{self, FsType, fstatfs},
    unistd::Pid,
};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{
    exec::protected::{ProtectedFiles, Stat, stat_in},
    files,
};
use crate::{
    launch::spec::Identity,
    operation::{ArgumentFile, Bytes},
    sys::thread::{OwnDescriptors, look_up_as},
};

/// Files of one operation that are hashed; further ones are shown without a hash.
const HASHED_MAX: usize = 16;
/// The largest file that is hashed, in bytes.
const SIZE_MAX: u64 = 64 << 20;
/// Arguments that are looked at; nobody reads more.
const ARGUMENTS_MAX: usize = 256;
/// The longest path (PATH_MAX, limits.h).
const PATH_MAX: usize = 4096;
/// How long all lookups of one operation may take, before a person is asked.
pub const LIMIT: Duration = Duration::from_secs(1);
/// How long they may take once more, after the answer: what cannot be looked at then counts as changed, so that hundreds of
/// answers at once on a busy machine should not fail by that.
pub const AGAIN_LIMIT: Duration = Duration::from_secs(10);
/// Lookups at a time; those that do not come back count.
const AT_A_TIME: usize = 8;

/// File systems whose files are no content of anybody's (proc, sysfs, cgroup2), and the one where a process serves them.
/// The numbers are those of linux/magic.h; nix 0.31 has no name for FUSE.
const PROC: FsType = statfs::PROC_SUPER_MAGIC;
const SYS: FsType = statfs::SYSFS_MAGIC;
const CGROUP2: FsType = statfs::CGROUP2_SUPER_MAGIC;
const FUSE: FsType = FsType(0x6573_5546);

/// Looks up the argument files of a session's processes.
#[derive(Debug)]
pub struct Lookups {
    user: Identity,
    protected: Arc<ProtectedFiles>,
    permits: Arc<Semaphore>,
}

/// What may name a file in one argument, in the order in which it is tried.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Candidate {
    index: u32,
    paths: Vec<Vec<u8>>,
}

/// What the thread says of one candidate after another.
type Answer = Option<ArgumentFile>;

impl Lookups {
    pub fn new(user: Identity, protected: Arc<ProtectedFiles>) -> Self {
        Self { user, protected, permits: Arc::new(Semaphore::new(AT_A_TIME)) }
    }

    /// The files that `argv` names, of a process that cannot move; but not `script`, which it runs. Takes `limit` at most.
    ///
    /// # Errors
    /// The process has gone.
    pub async fn of(
        &self,
        pid: Pid,
        argv: &[Vec<u8>],
        script: Option<Stat>,
        limit: Duration,
    ) -> io::Result<Vec<ArgumentFile>> {
        let candidates = candidates(argv);
        if candidates.is_empty() {
            return Ok(Vec::new());
        }
        let end = tokio::time::Instant::now() + limit;
        let (sender, mut answers) = mpsc::unbounded_channel();
        let permit = tokio::time::timeout_at(end, Arc::clone(&self.permits).acquire_owned()).await;
        if let Ok(Ok(permit)) = permit {
            let look = Look::at(pid, self.user.clone(), Arc::clone(&self.protected), script)?;
            let candidates = candidates.clone();
            // Not one of the runtime's threads: its rights are gone for good, and it may never come back.
            std::thread::Builder::new().name("ana-lookup".to_owned()).spawn(move || {
                look.through(&candidates, &sender);
                drop(permit);
            })?;
        }
        let mut found = Vec::new();
        for candidate in &candidates {
            match tokio::time::timeout_at(end, answers.recv()).await {
                Ok(Some(answer)) => found.extend(answer),
                // Nobody knows what it names: shown as what could not be read.
                Ok(None) | Err(_) => found.push(unread(candidate)),
            }
        }
        Ok(found)
    }
}

/// A program that was looked up.
#[derive(Debug)]
pub struct Program {
    /// O_PATH.
    pub file: File,
    pub path: Vec<u8>,
    /// The kernel loads it itself.
    pub is_image: bool,
}

impl Lookups {
    /// What execvp(3) would execute in a process that cannot move; `None` when nothing can be found within a second.
    ///
    /// # Errors
    /// The process has gone.
    pub async fn program(&self, pid: Pid, name: &[u8], path: Vec<u8>) -> io::Result<Option<Program>> {
        let end = tokio::time::Instant::now() + LIMIT;
        let permit = tokio::time::timeout_at(end, Arc::clone(&self.permits).acquire_owned()).await;
        let Ok(Ok(permit)) = permit else { return Ok(None) };
        let look = Look::at(pid, self.user.clone(), Arc::clone(&self.protected), None)?;
        let (sender, found) = oneshot::channel();
        let name = name.to_vec();
        std::thread::Builder::new().name("ana-lookup".to_owned()).spawn(move || {
            // Nobody waits for it any more: it took too long.
            drop(sender.send(look.program(&name, &path)));
            drop(permit);
        })?;
        Ok(tokio::time::timeout_at(end, found).await.ok().and_then(Result::ok).flatten())
    }
}

fn unread(candidate: &Candidate) -> ArgumentFile {
    let path = candidate.paths.first().cloned().unwrap_or_default();
    let (dev, inode, sha256) = (None, None, None);
    ArgumentFile { index: candidate.index, path: Bytes(path), dev, inode, sha256, not_fixed: true }
}

/// Whether what a person was shown is still there: what could be read has its content, and no argument has come to name
/// a file that did not.
pub fn unchanged(shown: &[ArgumentFile], now: &[ArgumentFile]) -> bool {
    let same = |file: &ArgumentFile| file.sha256.is_none() || now.contains(file);
    let known = |file: &ArgumentFile| shown.iter().any(|other| other.index == file.index);
    shown.iter().all(same) && now.iter().all(known)
}

/// `deploy.yaml`, `--file=deploy.yaml`, `-fdeploy.yaml`, `@data.json`, `--data=@data.json`.
fn candidates(argv: &[Vec<u8>]) -> Vec<Candidate> {
    let arguments = argv.iter().enumerate().skip(1).take(ARGUMENTS_MAX);
    let all = arguments.filter_map(|(index, argument)| {
        let mut paths: Vec<&[u8]> = Vec::new();
        let whole = match argument.as_slice() {
            [b'-', b'-', ..] => None,
            [b'-', _letter, rest @ ..] => Some(rest),
            plain => Some(plain),
        };
        paths.extend(whole);
        let value = argument.iter().position(|&byte| byte == b'=').map(|at| &argument[at + 1..]);
        paths.extend(value);
        for path in paths.clone() {
            paths.extend(path.strip_prefix(b"@"));
        }
        paths.retain(|path| !path.is_empty() && path.len() < PATH_MAX);
        let paths: Vec<Vec<u8>> = paths.into_iter().map(<[u8]>::to_vec).collect();
        let index = u32::try_from(index).ok()?;
        (!paths.is_empty()).then_some(Candidate { index, paths })
    });
    all.collect()
}

/// A lookup in the place of a process.
struct Look {
    root: OwnedFd,
    directory: OwnedFd,
    /// The working directory's path, for telling who can replace what lies below it.
    directory_path: PathBuf,
    own: OwnDescriptors,
    user: Identity,
    protected: Arc<ProtectedFiles>,
    script: Option<Stat>,
}

impl Look {
    fn at(
        pid: Pid,
        user: Identity,
        protected: Arc<ProtectedFiles>,
        script: Option<Stat>,
    ) -> io::Result<Self> {
        let folder = |name: &str| -> io::Result<OwnedFd> {
            let flags = libc::O_PATH | libc::O_DIRECTORY;
            let path = format!("/proc/{pid}/{name}");
            Ok(OpenOptions::new().read(true).custom_flags(flags).open(path)?.into())
        };
        Ok(Self {
            root: folder("root")?,
            directory: folder("cwd")?,
            directory_path: std::fs::read_link(format!("/proc/{pid}/cwd"))?,
            own: OwnDescriptors::open()?,
            user,
            protected,
            script,
        })
    }

    /// Takes the process's place, for good; false when that fails.
    fn begin(&self) -> bool {
        let user = &self.user;
        let rights = look_up_as(self.root.as_fd(), self.directory.as_fd(), user.uid, user.gid, &user.groups);
        rights
            .inspect_err(|error| tracing::warn!(?error, "the files of an operation cannot be looked up"))
            .is_ok()
    }

    /// Runs in a thread of its own.
    fn program(&self, name: &[u8], path: &[u8]) -> Option<Program> {
        if !self.begin() {
            return None;
        }
        // A name with a slash is no matter of the PATH; an empty part of it is the working directory.
        let folders: Vec<&[u8]> = match name.contains(&b'/') {
            true => vec![b""],
            false => path.split(|&byte| byte == b':').collect(),
        };
        folders.into_iter().find_map(|folder| {
            let folder = Path::new(std::ffi::OsStr::from_bytes(folder));
            let path = folder.join(std::ffi::OsStr::from_bytes(name));
            let file = find(&path)?;
            file.metadata().ok().filter(|meta| meta.is_file() && meta.mode() & 0o111 != 0)?;
            let protected = self.protected.find(&file).is_some();
            let served = fstatfs(&file).ok()?.filesystem_type() == FUSE;
            let opened = (!protected && !served).then(|| self.own.reopen(file.as_fd()));
            let is_image = matches!(opened, Some(Ok(file)) if files::is_executable_image(&file));
            Some(Program { file, path: path.into_os_string().into_encoded_bytes(), is_image })
        })
    }

    /// Runs in a thread of its own. What is not answered could not be read.
    fn through(&self, candidates: &[Candidate], answers: &mpsc::UnboundedSender<Answer>) {
        if !self.begin() {
            return;
        }
        let mut hashed = 0;
        for candidate in candidates {
            let found = candidate.paths.iter().find_map(|path| {
                let file = find(Path::new(std::ffi::OsStr::from_bytes(path)))?;
                self.describe(candidate.index, path, &file, hashed < HASHED_MAX)
            });
            hashed += usize::from(found.as_ref().is_some_and(|file| file.sha256.is_some()));
            if answers.send(found).is_err() {
                return;
            }
        }
    }

    /// `None`: no regular file.
    fn describe(&self, index: u32, path: &[u8], file: &File, hash: bool) -> Option<ArgumentFile> {
        let meta = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
        let kind = fstatfs(file).ok()?.filesystem_type();
        if [PROC, SYS, CGROUP2].contains(&kind) || self.script == Some(stat_in(&meta)) {
            return None;
        }
        // Opening a protected file would be an event of our own; what FUSE shows is whatever its server likes.
        let readable = hash && kind != FUSE && meta.len() <= SIZE_MAX && self.protected.find(file).is_none();
        let sha256 = readable.then(|| {
            let opened = self.own.reopen(file.as_fd())?;
            Ok::<_, io::Error>(BASE64_URL_SAFE_NO_PAD.encode(files::hash(&opened, SIZE_MAX)?))
        });
        let named = self.directory_path.join(Path::new(std::ffi::OsStr::from_bytes(path)));
        let not_fixed = kind == FUSE
            || files::not_fixed(file, &named, &self.user)
            || files::path_of(file.as_fd()).map_or(true, |path| files::not_fixed(file, &path, &self.user));
        Some(ArgumentFile {
            index,
            path: Bytes(path.to_vec()),
            dev: Some(format!("{}:{}", libc::major(meta.dev()), libc::minor(meta.dev()))),
            inode: Some(meta.ino().to_string()),
            sha256: sha256.and_then(Result::ok),
            not_fixed,
        })
    }
}

/// Finds, but does not open, what the path names for this thread. What /proc/PID/fd and its like lead to belongs to
/// another process than the one that is looked at.
fn find(path: &Path) -> Option<File> {
    let how =
        OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(AT_FDCWD, path, how).ok().map(File::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(argument: &str) -> Vec<String> {
        let argv = [b"program".to_vec(), argument.as_bytes().to_vec()];
        let found = candidates(&argv).pop().map(|candidate| candidate.paths).unwrap_or_default();
        found.into_iter().map(|path| String::from_utf8(path).unwrap()).collect()
    }

    #[test]
    fn arguments_name_files_in_the_usual_ways() {
        assert_eq!(paths("deploy.yaml"), ["deploy.yaml"]);
        assert_eq!(paths("-f"), [""; 0]);
        assert_eq!(paths("-fdeploy.yaml"), ["deploy.yaml"]);
        assert_eq!(paths("--file=deploy.yaml"), ["deploy.yaml"]);
        assert_eq!(paths("--file"), [""; 0]);
        assert_eq!(paths("@data.json"), ["@data.json", "data.json"]);
        assert_eq!(paths("--data=@data.json"), ["@data.json", "data.json"]);
        assert_eq!(paths("if=disk.img"), ["if=disk.img", "disk.img"]);
        assert!(candidates(&[b"program".to_vec()]).is_empty());
    }

    fn file(index: u32, sha256: Option<&str>) -> ArgumentFile {
        let dev = Some("1:2".to_owned());
        let (path, inode) = (Bytes::from("x"), Some("3".to_owned()));
        ArgumentFile { index, path, dev, inode, sha256: sha256.map(str::to_owned), not_fixed: true }
    }

    #[test]
    fn a_change_of_what_was_read_or_a_new_file_counts() {
        let one = [file(1, Some("a")), file(2, None)];
        assert!(unchanged(&one, &one));
        assert!(unchanged(&one, &[file(1, Some("a")), file(2, Some("b"))]));
        assert!(!unchanged(&one, &[file(1, Some("b")), file(2, None)]));
        assert!(!unchanged(&one, &[file(2, None)]));
        assert!(!unchanged(&one, &[file(1, Some("a")), file(2, None), file(3, None)]));
        assert!(unchanged(&[], &[]));
    }
}
