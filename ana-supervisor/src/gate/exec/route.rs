//! Where a listed path leads, name by name, as the kernel would follow it.
//!
//! Takes a path of the administrator's; gives every folder on the way, every name that was looked up in one, and what is
//! at the end. Everything is opened with O_PATH only, so that nothing that lies there is woken: no FIFO waits, no device is
//! opened, no event of a marked file is raised. FUSE and proc file systems are not entered.

use std::{
    fs::{self, File, Metadata},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::{
            ffi::{OsStrExt, OsStringExt},
            fs::MetadataExt,
        },
    },
    path::Path,
    sync::Arc,
};

use ana_common::FileKey;
use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, openat, readlinkat},
    sys::stat::Mode,
};

use super::protected::{Stat, stat_in};
use crate::{gate::files, launch::spec::Identity};

/// As many symbolic links as the kernel follows (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// A folder on the way, open (O_PATH).
#[derive(Debug)]
pub(super) struct Folder {
    pub fd: OwnedFd,
    /// As the guard sees it.
    pub key: FileKey,
}

/// Where a path leads now.
#[derive(Debug)]
pub(super) struct Route {
    /// Every folder in which a name was looked up.
    pub folders: Vec<Arc<Folder>>,
    /// Every name that was looked up: another file of such a name may lead elsewhere.
    pub names: Vec<Vec<u8>>,
    /// The folder and name of the file itself, and of each symbolic link that stood in for it.
    pub places: Vec<(Arc<Folder>, Vec<u8>)>,
    /// Whether the session's user can make the path lead elsewhere.
    pub bendable: bool,
    pub end: End,
}

/// What is at the end of a path.
#[derive(Debug)]
pub(super) enum End {
    /// A regular file, open (O_PATH).
    File(OwnedFd, Stat),
    /// A folder, FIFO, socket or device: nothing that can be executed.
    NoFile,
    Nothing,
}

/// Called with each folder before a name is looked up in it.
pub(super) type Enter<'a> = dyn FnMut(OwnedFd, Stat) -> io::Result<Arc<Folder>> + 'a;

impl Route {
    /// Follows an absolute path.
    ///
    /// # Errors
    /// Something on the way cannot be looked at, or is on a FUSE file system; or what `enter` says.
    pub(super) fn follow(path: &Path, user: &Identity, enter: &mut Enter) -> io::Result<Self> {
        let root = open(AT_FDCWD, b"/")?;
        let (mount, meta) = (mount_of(root.as_fd())?, meta_of(&root)?);
        let root = enter(root, stat_in(&meta))?;
        let mut walk = Walk {
            user,
            enter,
            above: vec![Step { folder: Arc::clone(&root), mount, meta }],
            left: Vec::new(),
            route: Self {
                folders: vec![root],
                names: Vec::new(),
                places: Vec::new(),
                bendable: false,
                end: End::NoFile,
            },
        };
        walk.put(path.as_os_str().as_bytes());
        walk.finish()?;
        Ok(walk.route)
    }
}

/// A folder that has been entered.
struct Step {
    folder: Arc<Folder>,
    mount: u64,
    meta: Metadata,
}

struct Walk<'a, 'b> {
    user: &'a Identity,
    enter: &'a mut Enter<'b>,
    /// The folder in which the next name is looked up, behind all those above it.
    above: Vec<Step>,
    /// The names that are left, the next one last.
    left: Vec<Vec<u8>>,
    route: Route,
}

impl Walk<'_, '_> {
    fn put(&mut self, path: &[u8]) {
        let names = path.split(|&byte| byte == b'/').filter(|name| !matches!(*name, b"" | b"."));
        self.left.extend(names.rev().map(<[u8]>::to_vec));
    }

    fn finish(&mut self) -> io::Result<()> {
        let mut links = 0;
        while let Some(name) = self.left.pop() {
            if name == b".." {
                if self.above.len() > 1 {
                    self.above.pop();
                }
                continue;
            }
            let Some((entry, mount, meta)) = self.look_up(&name)? else {
                self.route.end = End::Nothing;
                return Ok(());
            };
            let kind = meta.file_type();
            if kind.is_symlink() {
                links += 1;
                if links > LINKS_MAX {
                    self.route.end = End::Nothing;
                    return Ok(());
                }
                let target = readlinkat(&entry, "")?.into_vec();
                if target.starts_with(b"/") {
                    self.above.truncate(1);
                }
                self.put(&target);
            } else if kind.is_dir() {
                let folder = (self.enter)(entry, stat_in(&meta))?;
                self.route.folders.push(Arc::clone(&folder));
                self.above.push(Step { folder, mount, meta });
            } else {
                self.route.end = match (kind.is_file(), self.left.is_empty()) {
                    (true, true) => End::File(entry, stat_in(&meta)),
                    (false, true) => End::NoFile,
                    (_, false) => End::Nothing,
                };
                return Ok(());
            }
        }
        Ok(())
    }

    /// What lies under this name in the folder that was entered last.
    fn look_up(&mut self, name: &[u8]) -> io::Result<Option<(OwnedFd, u64, Metadata)>> {
        let Some(step) = self.above.last() else { return Ok(None) };
        self.route.names.push(name.to_vec());
        if self.left.is_empty() {
            self.route.places.push((Arc::clone(&step.folder), name.to_vec()));
        }
        let entry = match open(step.folder.fd.as_fd(), name) {
            Ok(entry) => entry,
            Err(Errno::ENOENT | Errno::ENAMETOOLONG) => {
                self.route.bendable |= files::writable(&step.meta, self.user);
                return Ok(None);
            }
            Err(errno) => return Err(errno.into()),
        };
        let mount = mount_of(entry.as_fd())?;
        if mount != step.mount
            && let Some(why) = refusal(mount)?
        {
            return Err(io::Error::other(why));
        }
        let meta = meta_of(&entry)?;
        self.route.bendable |= files::gives_way(&step.meta, meta.uid(), self.user);
        Ok(Some((entry, mount, meta)))
    }
}

fn open(folder: BorrowedFd, name: &[u8]) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(folder, std::ffi::OsStr::from_bytes(name), flags, Mode::empty())
}

fn meta_of(fd: &OwnedFd) -> io::Result<Metadata> {
    File::from(fd.try_clone()?).metadata()
}

/// The id of the mount through which a file was opened (proc_pid_fdinfo(5)). Unlike stat(2), this asks no file system.
fn mount_of(fd: BorrowedFd) -> io::Result<u64> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
    let id = info.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    id.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no mnt_id in /proc/self/fdinfo"))
}

/// Why no file of this mount can be protected, if so.
fn refusal(mount: u64) -> io::Result<Option<&'static str>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(match kind_of(&table, mount) {
        // Whoever serves it could stall us.
        Some(kind) if kind == "fuse" || kind == "fuseblk" || kind.starts_with("fuse.") => {
            Some("a file on a FUSE file system cannot be protected")
        }
        // The answering thread opens files there: one that is marked would have it wait for itself.
        Some("proc") => Some("a file on a proc file system cannot be protected"),
        // None: it was mounted or unmounted just now, and is looked at again.
        Some(_) | None => None,
    })
}

/// `36 35 98:0 /root /mountpoint … - ext3 …`: the file system's kind (proc_pid_mountinfo(5)).
fn kind_of(table: &str, mount: u64) -> Option<&str> {
    table.lines().find_map(|line| {
        if line.split(' ').next()?.parse() != Ok(mount) {
            return None;
        }
        line.split_once(" - ")?.1.split(' ').next()
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn follow(path: &Path) -> Route {
        let user = Identity { uid: 4242, gid: 4242, groups: vec![4242] };
        Route::follow(path, &user, &mut |fd, _| Ok(Arc::new(Folder { fd, key: FileKey::default() }))).unwrap()
    }

    fn names(route: &Route) -> Vec<String> {
        route.names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect()
    }

    fn places(route: &Route) -> Vec<String> {
        route.places.iter().map(|(_, name)| String::from_utf8_lossy(name).into_owned()).collect()
    }

    #[test]
    fn every_name_on_the_way_is_looked_up() {
        let top = tempfile::tempdir_in("/var/lib").unwrap();
        let (a, b) = (top.path().join("a"), top.path().join("b"));
        fs::create_dir(&a).unwrap();
        fs::create_dir(&b).unwrap();
        fs::write(b.join("real"), "x").unwrap();
        symlink("../b/./alias", a.join("listed")).unwrap();
        symlink(b.join("real"), b.join("alias")).unwrap();

        let route = follow(&a.join("listed"));
        let real = fs::metadata(b.join("real")).unwrap();
        assert!(matches!(route.end, End::File(_, stat) if stat == stat_in(&real)), "{route:?}");
        let above = top.path().strip_prefix("/var/lib").unwrap().to_string_lossy().into_owned();
        let path = ["var", "lib", &above];
        assert_eq!(
            names(&route),
            [&path[..], &["a", "listed", "b", "alias"], &path, &["b", "real"]].concat()
        );
        assert_eq!(places(&route), ["listed", "alias", "real"]);
        assert!(!route.bendable);

        std::os::unix::fs::chown(&b, Some(4242), None).unwrap();
        assert!(follow(&a.join("listed")).bendable);
    }

    #[test]
    fn what_is_not_there_or_no_file_is_said() {
        let top = tempfile::tempdir_in("/var/lib").unwrap();
        let missing = follow(&top.path().join("x/y/z"));
        assert!(matches!(missing.end, End::Nothing));
        assert_eq!(names(&missing).last().map(String::as_str), Some("x"));
        assert!(missing.places.is_empty(), "x stands for no file");
        assert!(matches!(follow(top.path()).end, End::NoFile));
        assert!(matches!(follow(Path::new("/dev/null")).end, End::NoFile));
        fs::write(top.path().join("file"), "").unwrap();
        assert!(matches!(follow(&top.path().join("file/x")).end, End::Nothing));
        symlink("loop", top.path().join("loop")).unwrap();
        assert!(matches!(follow(&top.path().join("loop")).end, End::Nothing));
        // Everybody may write to /tmp, but what is root's in it stays; what is not there can be put there.
        assert!(!follow(Path::new("/tmp")).bendable);
        assert!(follow(Path::new("/tmp/ana-nothing-is-here")).bendable);
    }

    #[test]
    fn a_mounts_kind_is_found_by_its_own_id_only() {
        let table = "23 1 254:0 / / rw - ext4 /dev/vda rw\n123 23 0:51 / /m rw shared:1 - fuse.sshfs x rw\n";
        assert_eq!(kind_of(table, 23), Some("ext4"));
        assert_eq!(kind_of(table, 123), Some("fuse.sshfs"));
        assert_eq!(kind_of(table, 12), None);
    }
}
