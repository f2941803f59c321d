//! The protected files: marked for fanotify, known to the guard.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::AsFd,
        unix::{
            ffi::OsStrExt,
            fs::{FileExt, MetadataExt, OpenOptionsExt},
        },
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use ana_common::FileKey;

use super::{GateError, privilege};
use crate::{
    kernel::{Maps, identity},
    launch::spec::Identity,
    policy::Policy,
    sys::fanotify::Group,
};

/// Device and inode as fstat(2) shows them: the same for every descriptor of the file, in any mount namespace.
pub type Stat = (u64, u64);

/// A protected file.
#[derive(Debug)]
pub struct Protected {
    /// As the guard sees it.
    pub key: FileKey,
    /// The policy's paths that lead to it; none for a program that is protected only because it gives privilege.
    pub listed: Vec<PathBuf>,
    /// An exec of it can gain privilege.
    pub privileged: bool,
}

impl Protected {
    pub fn paths(&self) -> Vec<&Path> {
        self.listed.iter().map(PathBuf::as_path).collect()
    }
}

/// FUSE_SUPER_MAGIC (linux/magic.h); nix 0.31 has no name for it.
const FUSE: nix::sys::statfs::FsType = nix::sys::statfs::FsType(0x6573_5546);

/// All of a session's protected files.
#[derive(Debug, Default)]
pub struct ProtectedFiles {
    files: HashMap<Stat, Arc<Protected>>,
    interpreters: HashSet<Stat>,
    /// Listed paths where nothing is: a file that appears there later is not protected.
    pub missing: Vec<PathBuf>,
}

impl ProtectedFiles {
    /// Opens every file that the policy lists. Nothing is marked yet: a mark whose events nobody answers would block
    /// whoever opens the file, ourselves included (several listed paths may lead to one file).
    ///
    /// # Errors
    /// A listed path that is no regular file, or that cannot be opened.
    pub fn open(
        policy: &Policy,
        path_variable: &[u8],
        user: &Identity,
        harmless_groups: &HashSet<u32>,
    ) -> Result<(Self, Vec<Listed>), GateError> {
        let mut found: HashMap<Stat, Protected> = HashMap::new();
        let (mut all, mut opened) = (Self::default(), Vec::new());
        for path in policy.exec_files() {
            let failed = |source| GateError::Protect { path: path.to_owned(), source };
            let file = match open(path) {
                Ok(file) => file,
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
                {
                    all.missing.push(path.to_owned());
                    continue;
                }
                Err(error) => return Err(failed(error)),
            };
            let meta = file.metadata().map_err(failed)?;
            if !meta.is_file() {
                return Err(failed(io::Error::other("not a regular file")));
            }
            if nix::sys::statfs::fstatfs(&file).is_ok_and(|fs| fs.filesystem_type() == FUSE) {
                // Whoever serves it could stall the thread that answers the whole host's opens.
                return Err(failed(io::Error::other("a file on a FUSE file system cannot be protected")));
            }
            let stat = (meta.dev(), meta.ino());
            if let Some(known) = found.get_mut(&stat) {
                known.listed.push(path.to_owned());
                continue;
            }
            let key = identity::file_key(file.as_fd()).map_err(failed)?;
            if let Some(interpreter) = shebang(&file).map(|line| line.interpreter) {
                all.interpreters.extend(stat_of(&interpreter));
            }
            let privileged = privilege::gives(&file, user, harmless_groups).map_err(failed)?;
            found.insert(stat, Protected { key, listed: vec![path.to_owned()], privileged });
            opened.push(Listed { path: path.to_owned(), file, key });
        }
        for path in &privilege::find(path_variable, user, harmless_groups) {
            // What cannot be opened, or marked, is left to the guard: it kills.
            let Ok(file) = open(path) else { continue };
            let (Ok(meta), Ok(key)) = (file.metadata(), identity::file_key(file.as_fd())) else { continue };
            found.entry((meta.dev(), meta.ino())).or_insert_with(|| {
                opened.push(Listed { path: path.clone(), file, key });
                Protected { key, listed: Vec::new(), privileged: true }
            });
        }
        for name in policy.interpreters() {
            all.interpreters.extend(candidates(name, path_variable).filter_map(|path| stat_of(&path)));
        }
        all.files = found.into_iter().map(|(stat, file)| (stat, Arc::new(file))).collect();
        Ok((all, opened))
    }

    /// The protected file behind an event's descriptor.
    pub fn find(&self, file: &File) -> Option<(Stat, Arc<Protected>)> {
        let meta = file.metadata().ok()?;
        let stat = (meta.dev(), meta.ino());
        self.files.get(&stat).map(|found| (stat, Arc::clone(found)))
    }

    /// Whether a program may open a protected script as its interpreter: one of the policy's, or the script's own.
    pub fn is_interpreter(&self, program: Stat) -> bool {
        self.interpreters.contains(&program)
    }

    pub fn len(&self) -> usize {
        self.files.len()
    }

    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}

/// A file that is to be protected, open.
#[derive(Debug)]
pub struct Listed {
    path: PathBuf,
    file: File,
    key: FileKey,
}

impl Listed {
    /// Tells the guard, then has the kernel stop every open of the file. The answering thread must be running.
    ///
    /// # Errors
    /// When the file cannot be marked (its file system has no permission events), or the guard not be told.
    pub fn protect(&self, group: &Group, maps: &Maps) -> Result<(), GateError> {
        maps.protect(self.key)?;
        group
            .protect(self.file.as_fd())
            .map_err(|source| GateError::Protect { path: self.path.clone(), source })
    }
}

/// Without side effects, whatever lies at the path: no waiting for a FIFO, no controlling terminal.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

/// Where a program of this name may lie.
fn candidates(name: &str, path_variable: &[u8]) -> impl Iterator<Item = PathBuf> {
    const ALWAYS: [&[u8]; 4] = [b"/usr/local/bin", b"/usr/bin", b"/bin", b"/usr/sbin"];
    let folders: Vec<Vec<u8>> =
        path_variable.split(|&b| b == b':').chain(ALWAYS).map(<[u8]>::to_vec).collect();
    let name = name.to_owned();
    folders
        .into_iter()
        .filter(|folder| folder.starts_with(b"/"))
        .map(move |folder| Path::new(std::ffi::OsStr::from_bytes(&folder)).join(&name))
}

fn stat_of(path: &Path) -> Option<Stat> {
    fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// A script's first line.
#[derive(Debug, PartialEq, Eq)]
pub struct Shebang {
    pub interpreter: PathBuf,
    /// Everything behind the interpreter is one argument (execve(2)).
    pub argument: bool,
}

/// `None` for what does not start with `#!`.
pub fn shebang(file: &File) -> Option<Shebang> {
    /// BINPRM_BUF_SIZE: the kernel looks no further.
    const LINE_MAX: usize = 256;
    let mut start = [0; LINE_MAX];
    let length = file.read_at(&mut start, 0).ok()?;
    let line = start[..length].strip_prefix(b"#!")?;
    let line = line.split(|&b| b == b'\n').next()?;
    let mut words = line.split(|b| matches!(b, b' ' | b'\t')).filter(|word| !word.is_empty());
    let interpreter = PathBuf::from(std::ffi::OsStr::from_bytes(words.next()?));
    Some(Shebang { interpreter, argument: words.next().is_some() })
}

/// Whether the kernel loads the file itself (ELF), rather than handing it to an interpreter.
pub fn is_executable_image(file: &File) -> bool {
    let mut magic = [0; 4];
    file.read_exact_at(&mut magic, 0).is_ok() && &magic == b"\x7fELF"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_lines_are_read_as_the_kernel_reads_them() {
        let path = format!("/tmp/ana-shebang-{}", std::process::id());
        let line = |text: &str| {
            fs::write(&path, text).unwrap();
            shebang(&File::open(&path).unwrap())
        };
        let expected =
            |interpreter: &str, argument| Some(Shebang { interpreter: interpreter.into(), argument });
        assert_eq!(line("#!/bin/sh\necho"), expected("/bin/sh", false));
        assert_eq!(line("#! /usr/bin/env -S a b\n"), expected("/usr/bin/env", true));
        assert_eq!(line("#!/bin/sh \t\n"), expected("/bin/sh", false));
        assert_eq!(line("echo"), None);
        assert_eq!(line("#!"), None);
        fs::remove_file(&path).unwrap();
        assert!(is_executable_image(&File::open("/usr/bin/env").unwrap()));
    }
}
