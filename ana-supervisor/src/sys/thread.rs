//! Rights of one thread: the kernel keeps credentials and the file-system context for each thread (credentials(7),
//! unshare(2)), and only the C library pretends otherwise.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use nix::{
    sched::{CloneFlags, unshare},
    unistd::{Gid, Uid, chroot, fchdir, setfsgid, setfsuid},
};

use super::check;

/// From here on this thread looks up and opens files as somebody else: from that root and working directory, as that
/// user, with no capability. There is no way back: the thread should end when it is done.
///
/// # Errors
/// A step failed; the thread must not touch a file then.
pub fn look_up_as(
    root: BorrowedFd,
    directory: BorrowedFd,
    uid: u32,
    gid: u32,
    groups: &[u32],
) -> io::Result<()> {
    unshare(CloneFlags::CLONE_FS)?;
    fchdir(root)?;
    chroot(".")?;
    fchdir(directory)?;
    set_groups(groups)?;
    // They return the old value, whether it worked or not (setfsuid(2)); what is set is asked for with an invalid one.
    setfsgid(Gid::from_raw(gid));
    setfsuid(Uid::from_raw(uid));
    let is = (setfsgid(Gid::from_raw(u32::MAX)).as_raw(), setfsuid(Uid::from_raw(u32::MAX)).as_raw());
    if is != (gid, uid) {
        return Err(io::Error::other(format!("setfsgid and setfsuid: the thread is {is:?}")));
    }
    // A change of the user may make the process dumpable again (fs.suid_dumpable).
    nix::sys::prctl::set_dumpable(false)?;
    caps::clear(None, caps::CapSet::Effective).map_err(io::Error::other)
}

/// From here on this thread finds no files by their paths: its root is a folder of proc without entries of use. There is
/// no way back: the thread should end when it is done.
///
/// # Errors
/// EPERM without CAP_SYS_CHROOT.
pub fn without_files() -> io::Result<()> {
    unshare(CloneFlags::CLONE_FS)?;
    chroot("/proc/self/fdinfo")?;
    Ok(())
}

/// From here on this thread has a descriptor table of its own, with nothing but `kept` in it (close_range(2)): what it
/// holds up, it does not hold open.
///
/// # Errors
/// Too little memory.
pub fn with_no_descriptor_but(kept: BorrowedFd) -> io::Result<()> {
    let kept = kept.as_raw_fd().unsigned_abs();
    let close = |from: u32, to: u32| {
        // SAFETY: integers only. The other threads' descriptors are theirs: the table is copied first, and none that this
        // thread owns is left to be closed a second time, if it is called before the thread has opened one.
        check(unsafe { libc::syscall(libc::SYS_close_range, from, to, libc::CLOSE_RANGE_UNSHARE) }).map(drop)
    };
    close(kept + 1, u32::MAX)?;
    if kept > 0 { close(0, kept - 1) } else { Ok(()) }
}

/// setgroups(2) for this thread alone: the C library's would change all of them.
fn set_groups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: the kernel reads `groups.len()` ids from the slice.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

/// What a thread that looks up files needs of the supervisor's own surroundings.
#[derive(Debug)]
pub struct OwnDescriptors(std::fs::File);

impl OwnDescriptors {
    /// # Errors
    /// /proc is not there.
    pub fn open() -> io::Result<Self> {
        Ok(Self(std::fs::File::open("/proc/self/fd")?))
    }

    /// Opens for reading exactly the file that an O_PATH descriptor of this process names, with the calling thread's
    /// rights: nothing is looked up again.
    ///
    /// # Errors
    /// The thread's user may not read it.
    pub fn reopen(&self, path: BorrowedFd) -> io::Result<std::fs::File> {
        use nix::{
            fcntl::{OFlag, openat},
            sys::stat::Mode,
        };
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let name = std::os::fd::AsRawFd::as_raw_fd(&path).to_string();
        Ok(openat(self.0.as_fd(), name.as_str(), flags, Mode::empty())?.into())
    }
}
