//! The protected files: marked for fanotify, known to the guard.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::{MetadataExt, OpenOptionsExt},
        },
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use ana_common::FileKey;

use crate::{gate::files::Hashes, operation::Bytes, policy::Policy};

/// Device and inode as fstat(2) shows them: the same for every descriptor of the file, in any mount namespace.
pub type Stat = (u64, u64);

/// The same of metadata.
pub fn stat_in(meta: &fs::Metadata) -> Stat {
    (meta.dev(), meta.ino())
}

/// A protected file.
#[derive(Clone, Debug)]
pub struct Protected {
    /// As the guard sees it.
    pub key: FileKey,
    /// The policy's paths that lead to it, or led to it once; none for a program that is protected only because it gives
    /// privilege.
    pub listed: Vec<PathBuf>,
    /// Whether the session's user could have made these paths lead here.
    pub bendable: bool,
    /// An exec of it can gain privilege.
    pub privileged: bool,
    /// It is not what the policy lists, but a compiled copy of it.
    pub compiled: bool,
    /// Open (O_PATH) as long as the session lasts: until then no other file can get this inode's number, which the guard
    /// and the marks know it by.
    pub file: Arc<OwnedFd>,
}

impl Protected {
    pub fn paths(&self) -> Vec<&Path> {
        self.listed.iter().map(PathBuf::as_path).collect()
    }

    /// What the policy calls it, by the first of its paths.
    pub fn name(&self) -> Bytes {
        let path = self.listed.first().map(|path| path.as_os_str().as_bytes().to_vec());
        Bytes(path.unwrap_or_default())
    }

    /// Opens it for reading, whatever lies at its path by now. An open of a marked file: the answering thread lets it pass.
    ///
    /// # Errors
    /// What open(2) says.
    pub fn open(&self) -> io::Result<File> {
        // Nonblocking: it waits for nobody's lease.
        let mut options = File::options();
        options.read(true).custom_flags(libc::O_NONBLOCK);
        options.open(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }

    /// The same file with one more path; `None` when that path adds nothing.
    ///
    /// A path that the session's user can bend adds nothing to a file that is protected already: a link from `~/bin/x` to
    /// git, or a script renamed from `~/bin/strict` to `~/bin/lax`, would be judged by the rule of that path. A fixed one is
    /// the administrator's, and stands instead of all those.
    fn with(&self, path: &Path, bendable: bool) -> Option<Self> {
        let listed = match (self.bendable, bendable) {
            (_, true) => return None,
            (true, false) => vec![path.to_owned()],
            (false, false) if self.listed.iter().any(|known| known == path) => return None,
            (false, false) => [self.listed.as_slice(), &[path.to_owned()]].concat(),
        };
        Some(Self { listed, bendable, ..self.clone() })
    }
}

type Table = HashMap<Stat, Arc<Protected>>;

/// All of a session's protected files. They become more while it runs, never fewer.
#[derive(Debug, Default)]
pub struct ProtectedFiles {
    /// Locked for as long as a pointer takes to be copied or replaced: the answering thread looks here.
    files: RwLock<Arc<Table>>,
    interpreters: Mutex<HashSet<Stat>>,
    /// Where the policy's interpreters may lie.
    candidates: Vec<PathBuf>,
    /// The session's PATH.
    path: Vec<u8>,
}

impl ProtectedFiles {
    /// No file yet; the interpreters that the policy names, in the folders of this PATH and the usual ones.
    pub fn new(policy: &Policy, path_variable: &[u8]) -> Self {
        let names = policy.interpreters().iter();
        let candidates: Vec<_> = names.flat_map(|name| candidates(name, path_variable)).collect();
        let interpreters = Mutex::new(candidates.iter().filter_map(|path| stat_of(path)).collect());
        Self { files: RwLock::default(), interpreters, candidates, path: path_variable.to_vec() }
    }

    /// Adds a file, or one more path that leads to it. True: the file was not known, so the guard has to be told.
    pub fn add(&self, stat: Stat, file: Protected) -> bool {
        let mut table = self.table();
        let known = table.get(&stat);
        let added = known.is_none();
        let file = match known {
            None => Some(file),
            Some(known) => file.listed.iter().fold(None, |merged: Option<Protected>, path| {
                merged.as_ref().unwrap_or(known).with(path, file.bendable).or(merged)
            }),
        };
        if let Some(file) = file {
            Arc::make_mut(&mut table).insert(stat, Arc::new(file));
            *self.files.write().unwrap_or_else(PoisonError::into_inner) = table;
        }
        added
    }

    /// Hashes what the policy may allow: nothing is let through without a hold as long as it is not known what it is.
    pub fn hash(&self, policy: &Policy, hashes: &Hashes) {
        for file in self.table().values().filter(|file| policy.may_allow(&file.paths())) {
            // One that cannot be read is hashed, and denied, when it is held.
            drop(file.open().and_then(|file| hashes.of(&file)));
        }
    }

    /// The protected file behind an event's descriptor.
    pub fn find(&self, file: &File) -> Option<(Stat, Arc<Protected>)> {
        let stat = stat_in(&file.metadata().ok()?);
        self.get(stat).map(|found| (stat, found))
    }

    pub fn get(&self, stat: Stat) -> Option<Arc<Protected>> {
        self.table().get(&stat).cloned()
    }

    /// Whether a program may open a protected script as its interpreter: one of the policy's. (The script's own is known
    /// by the script.)
    pub fn is_interpreter(&self, program: Stat) -> bool {
        let mut interpreters = self.interpreters.lock().unwrap_or_else(PoisonError::into_inner);
        if !interpreters.contains(&program) {
            // Interpreters are replaced, too.
            interpreters.extend(self.candidates.iter().filter_map(|path| stat_of(path)));
        }
        interpreters.contains(&program)
    }

    /// Whether a program is one that env finds by this name in the session's PATH.
    pub fn is_found_as(&self, program: Stat, name: &[u8]) -> bool {
        programs(name, &self.path).contains(&program)
    }

    /// Whether a protected file is not what the policy lists, but a compiled copy of it.
    pub fn is_compiled(&self, file: Stat) -> bool {
        self.get(file).is_some_and(|file| file.compiled)
    }

    pub fn len(&self) -> usize {
        self.table().len()
    }

    pub fn is_empty(&self) -> bool {
        self.table().is_empty()
    }

    fn table(&self) -> Arc<Table> {
        Arc::clone(&self.files.read().unwrap_or_else(PoisonError::into_inner))
    }
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

/// The programs that env finds by a name in the session's own PATH, or by their path.
fn programs(name: &[u8], path_variable: &[u8]) -> Vec<Stat> {
    let path = Path::new(std::ffi::OsStr::from_bytes(name));
    match path.to_str().filter(|name| !name.contains('/')) {
        Some(name) => candidates(name, path_variable).filter_map(|path| stat_of(&path)).collect(),
        None => stat_of(path).into_iter().collect(),
    }
}

fn stat_of(path: &Path) -> Option<Stat> {
    fs::metadata(path).ok().map(|meta| stat_in(&meta))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(files: &ProtectedFiles, path: &str, bendable: bool) -> bool {
        let key = FileKey::new(2, 0, 1);
        let file = Arc::new(File::open("/usr/bin/env").unwrap().into());
        files.add(
            (1, 2),
            Protected { key, listed: vec![path.into()], bendable, privileged: false, compiled: false, file },
        )
    }

    fn listed(files: &ProtectedFiles) -> Vec<PathBuf> {
        files.get((1, 2)).unwrap().listed.clone()
    }

    #[test]
    fn a_path_that_can_be_bent_adds_nothing_to_a_protected_file() {
        let files = ProtectedFiles::default();
        assert!(add(&files, "/home/bob/bin/x", true));
        assert!(!add(&files, "/home/bob/bin/y", true));
        assert_eq!(listed(&files), [PathBuf::from("/home/bob/bin/x")]);
        assert!(!add(&files, "/usr/bin/git", false));
        assert_eq!(listed(&files), [PathBuf::from("/usr/bin/git")]);
        add(&files, "/home/bob/bin/x", true);
        add(&files, "/bin/git", false);
        add(&files, "/bin/git", false);
        assert_eq!(listed(&files), ["/usr/bin/git", "/bin/git"].map(PathBuf::from));
        assert_eq!(files.len(), 1);
    }
}
