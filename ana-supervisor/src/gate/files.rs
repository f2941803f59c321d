//! Files by what they are: (device, inode, SHA-256).

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::{
            ffi::OsStrExt,
            fs::{FileExt, MetadataExt},
        },
    },
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use crate::{launch::spec::Identity, operation::Bytes};

/// Bytes of a file that are hashed at a time.
const CHUNK: usize = 256 << 10;
/// The largest file that is hashed; a larger one cannot be judged in time.
const SIZE_MAX: u64 = 2 << 30;
/// Hashes that are remembered.
const REMEMBERED_MAX: usize = 1024;

/// Two ticks of the slowest clock (CONFIG_HZ=100).
const SETTLED: Duration = Duration::from_millis(20);

/// What changes when the content of a file that only root can write changes.
type Version = (u64, u64, u64, i64, i64, i64, i64);

/// SHA-256 of file contents. Remembers only those of files that nobody but root can write.
#[derive(Debug, Default)]
pub struct Hashes(Mutex<HashMap<Version, Content>>);

/// What a file contains.
#[derive(Clone, Copy, Debug)]
pub struct Content {
    pub hash: [u8; 32],
    /// An ELF image: the kernel executes it itself.
    pub executable: bool,
}

impl Hashes {
    /// Hashes what the descriptor shows, wherever its offset is.
    ///
    /// # Errors
    /// A file beyond 2 GiB, or one that cannot be read.
    pub fn of(&self, file: &File) -> io::Result<[u8; 32]> {
        let meta = file.metadata()?;
        let version = version(&meta).filter(|_| settled(&meta, SystemTime::now()));
        if let Some(known) = version.as_ref().and_then(|version| self.lock().get(version).copied()) {
            return Ok(known.hash);
        }
        let hash = hash(file, SIZE_MAX)?;
        if let Some(version) = version {
            let mut remembered = self.lock();
            if remembered.len() >= REMEMBERED_MAX {
                remembered.clear();
            }
            remembered.insert(version, Content { hash, executable: is_executable_image(file) });
        }
        Ok(hash)
    }

    /// The content of the file that has this metadata, if it is known already: then nobody but root can have changed the content since.
    pub fn remembered(&self, meta: &fs::Metadata) -> Option<Content> {
        self.lock().get(&version(meta)?).copied()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Version, Content>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the kernel loads the file itself (ELF), rather than handing it to an interpreter.
pub fn is_executable_image(file: &File) -> bool {
    let mut magic = [0; 4];
    file.read_exact_at(&mut magic, 0).is_ok() && &magic == b"\x7fELF"
}

/// `None`: others than root can write it.
fn version(meta: &fs::Metadata) -> Option<Version> {
    let roots_alone = meta.uid() == 0 && meta.mode() & 0o022 == 0;
    roots_alone.then(|| {
        (
            meta.dev(),
            meta.ino(),
            meta.size(),
            meta.mtime(),
            meta.mtime_nsec(),
            meta.ctime(),
            meta.ctime_nsec(),
        )
    })
}

/// Whether a later change would show in the metadata: not within the tick of the kernel's clock that the last change was in
/// (before Linux 6.13, times are as fine as that tick, 10 ms at most).
fn settled(meta: &fs::Metadata, now: SystemTime) -> bool {
    let changed = u64::try_from(meta.ctime()).ok().zip(u32::try_from(meta.ctime_nsec()).ok());
    let changed = changed.map(|(seconds, nanoseconds)| UNIX_EPOCH + Duration::new(seconds, nanoseconds));
    changed.is_some_and(|changed| now.duration_since(changed).is_ok_and(|age| age > SETTLED))
}

/// SHA-256 of a file of at most `limit` bytes.
///
/// # Errors
/// A larger file, or one that cannot be read.
pub fn hash(file: &File, limit: u64) -> io::Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    let mut offset = 0;
    loop {
        let length = file.read_at(&mut buffer, offset)?;
        if length == 0 {
            return Ok(hasher.finalize().into());
        }
        hasher.update(&buffer[..length]);
        offset += length as u64;
        if offset > limit {
            return Err(io::Error::other(format!("the file is larger than {limit} bytes")));
        }
    }
}

/// The path by which the kernel knows an open file. For people: it identifies nothing.
pub fn path_of(file: BorrowedFd) -> io::Result<PathBuf> {
    fs::read_link(format!("/proc/thread-self/fd/{}", file.as_raw_fd()))
}

/// Whether `user` can change the file's content, or put another file into its place.
pub fn not_fixed(file: &File, path: &Path, user: &Identity) -> bool {
    let Ok(meta) = file.metadata() else { return true };
    writable(&meta, user) || replaceable(path, meta.uid(), user)
}

/// Whether `user` can write it, or give himself the right to.
pub fn writable(meta: &fs::Metadata, user: &Identity) -> bool {
    // An owner can give himself the right to write.
    meta.uid() == user.uid
        || meta.mode() & 0o002 != 0
        || (meta.mode() & 0o020 != 0 && (meta.gid() == user.gid || user.groups.contains(&meta.gid())))
}

/// Whether `user` can put something else into the place of an entry of this folder; `owner` is the entry's.
pub fn gives_way(folder: &fs::Metadata, owner: u32, user: &Identity) -> bool {
    const STICKY: u32 = 0o1000;
    let sticky = folder.mode() & STICKY != 0 && owner != user.uid && folder.uid() != user.uid;
    writable(folder, user) && !sticky
}

fn replaceable(path: &Path, mut owner: u32, user: &Identity) -> bool {
    for folder in path.ancestors().skip(1) {
        // What cannot be looked at may be anything.
        let Ok(meta) = fs::metadata(folder) else { return true };
        if gives_way(&meta, owner, user) {
            return true;
        }
        owner = meta.uid();
    }
    false
}

/// The operation's form of a file.
pub fn describe(
    file: &File,
    key: ana_common::FileKey,
    hash: [u8; 32],
    user: &Identity,
) -> io::Result<crate::operation::File> {
    let path = path_of(file.as_fd())?;
    Ok(crate::operation::File {
        not_fixed: not_fixed(file, &path, user),
        path: Bytes(path.as_os_str().as_bytes().to_vec()),
        dev: format!("{}:{}", key.dev >> 20, key.dev & 0xf_ffff),
        inode: key.ino.to_string(),
        sha256: BASE64_URL_SAFE_NO_PAD.encode(hash),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_in_a_folder_of_the_users_is_not_fixed() {
        let user = Identity { uid: 4242, gid: 4242, groups: vec![4242] };
        let root = File::open("/usr/bin/env").unwrap();
        assert!(!not_fixed(&root, Path::new("/usr/bin/env"), &user));
        let folder = PathBuf::from(format!("/tmp/ana-files-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let path = folder.join("x");
        fs::write(&path, "1").unwrap();
        let file = File::open(&path).unwrap();
        // /tmp is everybody's, but sticky: what is root's in it stays.
        assert!(!not_fixed(&file, &path, &user));
        std::os::unix::fs::chown(&folder, Some(4242), None).unwrap();
        assert!(not_fixed(&file, &path, &user));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_changed_file_has_another_hash() {
        let path = format!("/tmp/ana-hash-{}", std::process::id());
        fs::write(&path, "one").unwrap();
        let hashes = Hashes::default();
        let file = File::open(&path).unwrap();
        let one = hashes.of(&file).unwrap();
        assert_eq!(one, <[u8; 32]>::from(Sha256::digest("one")));
        // At once, so that before Linux 6.13 the times of both are the same.
        fs::write(&path, "two").unwrap();
        assert_ne!(hashes.of(&file).unwrap(), one);
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn only_what_is_older_than_a_tick_is_remembered() {
        let meta = fs::metadata("/proc/self/exe").unwrap();
        let seconds = Duration::new(meta.ctime().cast_unsigned(), meta.ctime_nsec().try_into().unwrap());
        let changed = UNIX_EPOCH + seconds;
        assert!(settled(&meta, changed + SETTLED * 2));
        assert!(!settled(&meta, changed + SETTLED / 2));
        assert!(!settled(&meta, changed - SETTLED), "the clock was set back");
    }

    #[test]
    fn an_image_is_told_from_a_script() {
        assert!(is_executable_image(&File::open("/usr/bin/env").unwrap()));
        assert!(!is_executable_image(&File::open("/etc/passwd").unwrap()));
    }
}
