//! One open folder, and files in it, by file descriptor: what was checked is what is used.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, OnceLock};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::{FileStat, Mode, fchmod, fstat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::StateError;

/// What to do with a folder or file that someone other than root can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    /// Refuse it: the default paths.
    Required,
    /// Accept it and remember why it is for development only: a path that was named explicitly.
    Preferred,
}

impl Strictness {
    /// The strictness for a path that was, or was not, named explicitly.
    pub fn of(explicit: Option<&Path>) -> Self {
        match explicit {
            Some(_) => Self::Preferred,
            None => Self::Required,
        }
    }
}

/// What to do when the folder is not there (its parent has to be).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    Refuse,
    /// Create it. A mode without group and others also demands that an existing folder is closed to them.
    Create {
        mode: u32,
    },
}

/// An open folder.
#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
    path: PathBuf,
    strictness: Strictness,
    loose: Arc<OnceLock<String>>,
}

impl Folder {
    /// Opens `path` component by component; the mark `loose` is set when it is accepted although someone other
    /// than root can change it.
    ///
    /// # Errors
    /// A component is missing, a symbolic link, not a folder, or not root's alone where that is required.
    pub fn open(
        path: &Path,
        strictness: Strictness,
        missing: Missing,
        loose: Arc<OnceLock<String>>,
    ) -> Result<Self, StateError> {
        let path = std::path::absolute(path).map_err(|source| StateError::CurrentFolder { source })?;
        let mut components: Vec<&OsStr> = path
            .components()
            .filter_map(|component| match component {
                Component::Normal(name) => Some(name),
                Component::ParentDir => Some(OsStr::new("..")),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
            })
            .collect();
        let last = components.pop();
        let root = Path::new("/");
        let flags = if last.is_some() { OFlag::O_PATH } else { OFlag::O_RDONLY };
        let fd = nix::fcntl::open(root, flags | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|source| StateError::Open { path: root.to_path_buf(), source })?;
        let mut folder = Self { fd, path: root.to_path_buf(), strictness, loose };
        folder.check(false)?;
        for name in components {
            folder = folder.enter(name, OFlag::O_PATH, Missing::Refuse)?;
        }
        match last {
            Some(name) => folder.enter(name, OFlag::O_RDONLY, missing),
            None => Ok(folder),
        }
    }

    /// Opens a folder in this one.
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub fn subfolder(&self, name: &str, missing: Missing) -> Result<Self, StateError> {
        self.enter(OsStr::new(name), OFlag::O_RDONLY, missing)
    }

    /// Another handle on the same open folder.
    ///
    /// # Errors
    /// There are too many open files.
    pub fn try_clone(&self) -> Result<Self, StateError> {
        let fd = self.fd.try_clone();
        let fd = fd.map_err(|source| StateError::Read { path: self.path.clone(), source })?;
        let (path, loose) = (self.path.clone(), Arc::clone(&self.loose));
        Ok(Self { fd, path, strictness: self.strictness, loose })
    }

    /// The folder's absolute path, for messages and for calls that know no file descriptors (bind).
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names in the folder, sorted; names that are not UTF-8 with U+FFFD in them.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn names(&self) -> Result<Vec<String>, StateError> {
        let unreadable = |source: Errno| StateError::Open { path: self.path.clone(), source };
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut listing = Dir::openat(&self.fd, ".", flags, Mode::empty()).map_err(unreadable)?;
        let mut names = Vec::new();
        for entry in listing.iter() {
            let name = entry.map_err(unreadable)?.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// The content of a regular file, `None` when there is none of that name.
    ///
    /// # Errors
    /// The file is unreadable, not regular, larger than `limit` bytes, or not root's alone where required.
    pub fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, StateError> {
        self.read_checked(name, limit, false)
    }

    /// As [`Folder::read`], of a file that only root may read.
    ///
    /// # Errors
    /// As [`Folder::read`].
    pub fn read_private(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, StateError> {
        self.read_checked(name, limit, true)
    }

    /// Opens a regular file with `flags` (and `mode`, whatever the umask, if it has to be created).
    ///
    /// # Errors
    /// As [`Folder::read`]; [`StateError::Missing`] when it is not there.
    pub fn open_file(&self, name: &str, flags: OFlag, mode: u32) -> Result<File, StateError> {
        let path = self.path.join(name);
        // Non-blocking: a fifo in the file's place must not stop us.
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let fd = openat(&self.fd, name, flags, Mode::from_bits_truncate(mode)).map_err(|source| {
            let path = path.clone();
            if source == Errno::ENOENT {
                StateError::Missing { path }
            } else if [Errno::ELOOP, Errno::EISDIR, Errno::ENXIO].contains(&source) {
                StateError::NotAFile { path }
            } else {
                StateError::Open { path, source }
            }
        })?;
        let file = File::from(fd);
        let metadata = file.metadata().map_err(|source| StateError::Read { path: path.clone(), source })?;
        if !metadata.is_file() {
            return Err(StateError::NotAFile { path });
        }
        self.judge(&path, metadata.uid(), metadata.mode(), mode & 0o077 == 0 && mode != 0)?;
        Ok(file)
    }

    /// Replaces a file: the old or the new content is there, never a part, also after a power cut.
    ///
    /// # Errors
    /// The new content cannot be written; the old one is still there.
    pub fn replace(&self, name: &str, bytes: &[u8], mode: u32) -> Result<(), StateError> {
        let temporary = format!(".{name}.{}.{:?}.new", std::process::id(), std::thread::current().id());
        let written = self.write_new(&temporary, bytes, mode).and_then(|()| {
            renameat(&self.fd, temporary.as_str(), &self.fd, name)
                .map_err(|errno| StateError::Write { path: self.path.join(name), source: errno.into() })
        });
        if let Err(error) = written {
            self.remove(&temporary).ok();
            return Err(error);
        }
        self.sync()
    }

    /// Creates a file that must not be there, and writes it to the disk.
    ///
    /// # Errors
    /// The file is there, or cannot be written.
    pub fn write_new(&self, name: &str, bytes: &[u8], mode: u32) -> Result<(), StateError> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
        let mut file = self.open_file(name, flags, mode)?;
        let written = fchmod(&file, Mode::from_bits_truncate(mode)).map_err(std::io::Error::from);
        written
            .and_then(|()| file.write_all(bytes))
            .and_then(|()| file.sync_all())
            .map_err(|source| StateError::Write { path: self.path.join(name), source })
    }

    /// Removes a file.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(&self, name: &str) -> Result<(), StateError> {
        unlinkat(&self.fd, name, UnlinkatFlags::NoRemoveDir)
            .map_err(|errno| StateError::Write { path: self.path.join(name), source: errno.into() })
    }

    /// Brings the folder's entries to the disk.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn sync(&self) -> Result<(), StateError> {
        nix::unistd::fsync(&self.fd)
            .map_err(|errno| StateError::Write { path: self.path.clone(), source: errno.into() })
    }

    fn enter(&self, name: &OsStr, access: OFlag, missing: Missing) -> Result<Self, StateError> {
        let path = self.path.join(name);
        let flags = access | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let open = || openat(&self.fd, name, flags, Mode::empty());
        let (opened, private) = match (open(), missing) {
            (Err(Errno::ENOENT), Missing::Create { mode }) => {
                self.create(name, &path, mode)?;
                (open(), mode & 0o077 == 0)
            }
            (opened, Missing::Create { mode }) => (opened, mode & 0o077 == 0),
            (opened, Missing::Refuse) => (opened, false),
        };
        let fd = opened.map_err(|source| {
            let path = path.clone();
            if source == Errno::ENOENT {
                StateError::Missing { path }
            } else if [Errno::ELOOP, Errno::ENOTDIR].contains(&source) {
                StateError::NotAFolder { path }
            } else {
                StateError::Open { path, source }
            }
        })?;
        let folder = Self { fd, path, strictness: self.strictness, loose: Arc::clone(&self.loose) };
        folder.check(private)?;
        Ok(folder)
    }

    fn create(&self, name: &OsStr, path: &Path, mode: u32) -> Result<(), StateError> {
        let failed = |source: Errno| StateError::Write { path: path.to_path_buf(), source: source.into() };
        // Closed until it has its mode, whatever the umask.
        match mkdirat(&self.fd, name, Mode::from_bits_truncate(0o700)) {
            Ok(()) => {}
            // Another process was faster.
            Err(Errno::EEXIST) => return Ok(()),
            Err(errno) => return Err(failed(errno)),
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(&self.fd, name, flags, Mode::empty()).map_err(failed)?;
        fchmod(&fd, Mode::from_bits_truncate(mode)).map_err(failed)
    }

    fn read_checked(&self, name: &str, limit: u64, private: bool) -> Result<Option<Vec<u8>>, StateError> {
        let file = match self.open_file(name, OFlag::O_RDONLY, if private { 0o600 } else { 0 }) {
            Ok(file) => file,
            Err(StateError::Missing { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        // One byte more than allowed tells a file that is too large, also one that grows while it is read.
        file.take(limit.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|source| StateError::Read { path: self.path.join(name), source })?;
        if bytes.len() as u64 > limit {
            return Err(StateError::TooLarge { path: self.path.join(name), limit });
        }
        Ok(Some(bytes))
    }

    fn check(&self, private: bool) -> Result<(), StateError> {
        let stat: FileStat =
            fstat(&self.fd).map_err(|source| StateError::Open { path: self.path.clone(), source })?;
        self.judge(&self.path, stat.st_uid, stat.st_mode, private)
    }

    fn judge(&self, path: &Path, uid: u32, mode: u32, private: bool) -> Result<(), StateError> {
        let at = path.display();
        let (what, fix) = if uid != 0 {
            (format!("belongs to uid {uid}, not to root"), format!("chown root:root {at}"))
        } else if mode & 0o022 != 0 {
            (format!("can be written by others (mode {:04o})", mode & 0o7777), format!("chmod go-w {at}"))
        } else if private && mode & 0o077 != 0 {
            (format!("can be read by others (mode {:04o})", mode & 0o7777), format!("chmod go-rwx {at}"))
        } else {
            return Ok(());
        };
        match self.strictness {
            Strictness::Required => Err(StateError::Loose { path: path.to_path_buf(), what, fix }),
            Strictness::Preferred => {
                self.loose.get_or_init(|| format!("{at} {what}"));
                Ok(())
            }
        }
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
