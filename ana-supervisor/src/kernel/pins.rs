//! Links that outlive this process: a directory on bpffs for each session.

use std::{
    fs::{self, File},
    io,
    os::{fd::AsFd, unix::fs::DirBuilderExt},
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{Flock, FlockArg},
    mount::{MsFlags, mount},
    sys::statfs::{FsType, statfs},
};

use crate::sys;

/// Where bpffs belongs.
pub const BPFFS: &str = "/sys/fs/bpf";
/// Below it, a directory for each session.
pub const BASE: &str = "/sys/fs/bpf/ana";

const BPF_FS_MAGIC: FsType = FsType(0xcafe_4a11);

/// Why links could not be pinned or unpinned.
#[derive(Debug, thiserror::Error)]
pub enum PinsError {
    /// No bpffs is mounted and it could not be mounted.
    #[error("cannot mount bpffs at {BPFFS}")]
    Mount(#[source] io::Error),
    /// The path given for the pins is somewhere else.
    #[error("cannot pin links in {}: it is not on bpffs", .0.display())]
    NotBpffs(PathBuf),
    /// The session's directory.
    #[error("cannot make the directory {}", path.display())]
    Create {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// One link.
    #[error("cannot pin a link at {}", path.display())]
    Pin {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// One link, or the session's directory.
    #[error("cannot remove the pin {}", path.display())]
    Unpin {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The directory of all sessions.
    #[error("cannot list the pins in {}", path.display())]
    List {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Is there a bpffs at its place?
pub fn is_mounted() -> bool {
    on_bpffs(Path::new(BPFFS))
}

/// Mounts bpffs if nothing is mounted at its place.
///
/// # Errors
/// Not root, or the kernel has none.
pub fn mount_if_needed() -> Result<(), PinsError> {
    if is_mounted() {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), BPFFS, Some("bpf"), flags, Some("mode=700"))
        .map_err(|errno| PinsError::Mount(errno.into()))?;
    tracing::info!("mounted bpffs at {BPFFS}: nothing was mounted there");
    Ok(())
}

/// Makes a session's directory, and those above it (0700), and locks it. It must not exist: two sessions never share one.
/// Whoever holds the lock of [`starts`] sees no directory whose lock has still to be taken.
pub(super) fn create(dir: &Path) -> Result<Flock<File>, PinsError> {
    if dir.starts_with(BPFFS) {
        mount_if_needed()?;
    }
    let failed = |path: &Path, source| PinsError::Create { path: path.to_owned(), source };
    let parent = dir.parent().ok_or_else(|| PinsError::NotBpffs(dir.to_owned()))?;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(parent)
        .map_err(|source| failed(parent, source))?;
    if !on_bpffs(parent) {
        return Err(PinsError::NotBpffs(dir.to_owned()));
    }
    let _starts = lock(parent, FlockArg::LockExclusive).map_err(|source| failed(parent, source))?;
    fs::DirBuilder::new().mode(0o700).create(dir).map_err(|source| failed(dir, source))?;
    lock(dir, FlockArg::LockExclusive).map_err(|source| {
        fs::remove_dir(dir).ok();
        failed(dir, source)
    })
}

/// Keeps every session from starting, as long as the value lives.
///
/// # Errors
/// There is no directory of sessions, or it cannot be locked.
pub fn starts(base: &Path) -> io::Result<Flock<File>> {
    lock(base, FlockArg::LockShared)
}

/// Whether somebody keeps the session of this directory: its supervisor or its warden. The kernel releases the lock when
/// both are gone; only root can take it.
///
/// # Errors
/// There is no such directory.
pub fn is_kept(dir: &Path) -> io::Result<bool> {
    match lock(dir, FlockArg::LockSharedNonblock) {
        Ok(_released_at_once) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) => Err(error),
    }
}

fn lock(dir: &Path, how: FlockArg) -> io::Result<Flock<File>> {
    Flock::lock(File::open(dir)?, how).map_err(|(_, errno)| errno.into())
}

pub(super) fn pin(link: &impl AsFd, path: &Path) -> Result<(), PinsError> {
    sys::bpf::pin(link.as_fd(), path).map_err(|source| PinsError::Pin { path: path.to_owned(), source })
}

/// Removes a session's pins and its directory: nothing guards it any more (tracing links go some 50 ms later, after a
/// grace period). Only when no process of the session is left. A directory that is not there is no error.
///
/// # Errors
/// Something could not be removed; everything else was.
pub fn unpin(dir: &Path) -> Result<(), PinsError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(PinsError::List { path: dir.to_owned(), source }),
    };
    let mut result = Ok(());
    for entry in entries {
        let removed = match entry {
            Ok(entry) => {
                let path = entry.path();
                fs::remove_file(&path).map_err(|source| PinsError::Unpin { path, source })
            }
            Err(source) => Err(PinsError::List { path: dir.to_owned(), source }),
        };
        result = result.and(removed);
    }
    result.and(fs::remove_dir(dir).map_err(|source| PinsError::Unpin { path: dir.to_owned(), source }))
}

/// The names of the directories in `base`: sessions whose guard is still pinned. None if `base` does not exist.
///
/// # Errors
/// It cannot be listed.
pub fn leftovers(base: &Path) -> Result<Vec<String>, PinsError> {
    let failed = |source| PinsError::List { path: base.to_owned(), source };
    let entries = match fs::read_dir(base) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn on_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
}
