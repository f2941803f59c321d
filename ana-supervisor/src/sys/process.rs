//! Processes by descriptor (pidfd_open(2)), and the one place where we fork.

use std::{
    convert::Infallible,
    fs,
    io::{self, Read},
    mem::size_of,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    path::Path,
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout},
    sys::signal::Signal,
    unistd::Pid,
};

use super::check;

/// A descriptor of the process `pid`; it goes on naming that process when the number is used again.
pub fn pidfd_open(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    owned(fd)
}

/// What the kernel tells of a process at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// The id of its cgroup in the v2 hierarchy.
    pub cgroup: u64,
    pub parent: i32,
    pub uid: u32,
    pub euid: u32,
    pub gid: u32,
    pub egid: u32,
}

/// Looks at the process behind `pidfd` (PIDFD_GET_INFO, linux/pidfd.h). `None`: this kernel does not tell (before 6.13).
///
/// # Errors
/// ESRCH when it has been reaped.
pub fn info(pidfd: BorrowedFd) -> io::Result<Option<Info>> {
    const WANTED: u64 = (libc::PIDFD_INFO_CGROUPID | libc::PIDFD_INFO_CREDS) as u64;
    // SAFETY: the structure is plain integers, for which zero is a value.
    let mut info: libc::pidfd_info = unsafe { std::mem::zeroed() };
    info.mask = WANTED;
    // SAFETY: the request carries the structure's size, and the kernel writes no more than that into `info`.
    let done = unsafe { libc::ioctl(pidfd.as_raw_fd(), libc::PIDFD_GET_INFO, &raw mut info) };
    if done < 0 {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::ENOTTY | libc::EINVAL) => Ok(None),
            _ => Err(error),
        };
    }
    if info.mask & WANTED != WANTED {
        return Ok(None);
    }
    Ok(Some(Info {
        cgroup: info.cgroupid,
        parent: info.ppid.cast_signed(),
        uid: info.ruid,
        euid: info.euid,
        gid: info.rgid,
        egid: info.egid,
    }))
}

/// Sends a signal to exactly the process behind `pidfd` (pidfd_send_signal(2)).
///
/// # Errors
/// ESRCH when it has been reaped.
pub fn signal(pidfd: BorrowedFd, signal: Option<Signal>) -> io::Result<()> {
    let number = signal.map_or(0, |s| s as i32);
    // SAFETY: a null siginfo is allowed; the others are integers.
    let done = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), number, std::ptr::null::<u8>(), 0)
    };
    check(done).map(drop)
}

/// Whether the process has ended: a pidfd becomes readable when it does (a zombie counts as ended).
pub fn ended(pidfd: BorrowedFd) -> io::Result<bool> {
    wait_ended(pidfd, Duration::ZERO)
}

/// Waits for the process to end, at most `limit`; true if it did.
pub fn wait_ended(pidfd: BorrowedFd, limit: Duration) -> io::Result<bool> {
    let timeout = PollTimeout::try_from(limit).map_err(io::Error::other)?;
    let mut fds = [PollFd::new(pidfd, PollFlags::POLLIN)];
    loop {
        match nix::poll::poll(&mut fds, timeout) {
            Ok(n) => return Ok(n > 0),
            Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A copy of the process's descriptor `number`, with the open mode that the process has (pidfd_getfd(2)).
pub fn descriptor_of(pidfd: BorrowedFd, number: i32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_getfd takes three integers.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) })?;
    owned(fd)
}

fn owned(fd: i64) -> io::Result<OwnedFd> {
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just returned this descriptor, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Forks straight into a cgroup (clone3(2), CLONE_INTO_CGROUP): the child is never outside of it, and no migration
/// has to be waited for. The child runs `child` and ends.
///
/// # Errors
/// Refuses in a process with several threads: there the child could not safely allocate.
pub fn fork_into(cgroup: BorrowedFd, child: impl FnOnce() -> Infallible) -> io::Result<(Pid, OwnedFd)> {
    if fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("fork from a process with several threads"));
    }
    // linux/sched.h; libc has the first with the wrong width.
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    const CLONE_PIDFD: u64 = 0x1000;
    let mut pidfd: i32 = -1;
    // SAFETY: clone_args is plain integers, for which zero means "nothing asked for".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = CLONE_INTO_CGROUP | CLONE_PIDFD;
    args.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
    args.cgroup = u64::try_from(cgroup.as_raw_fd()).map_err(io::Error::other)?;
    args.pidfd = (&raw mut pidfd) as u64;
    // SAFETY: without CLONE_VM this is fork(2): the child has its own copy of everything. The process is
    // single-threaded (checked above), so no lock is held by a thread that the child does not have.
    let pid =
        check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) })?;
    if pid == 0 {
        child();
    }
    Ok((Pid::from_raw(i32::try_from(pid).map_err(io::Error::other)?), owned(pidfd.into())?))
}

/// Reads a small file of procfs, with one read(2) where it fits: what it tells is of one moment then. (The standard
/// library asks for the size, which is 0, and goes on in small steps.)
///
/// # Errors
/// What open(2) and read(2) say.
pub fn small_file(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    const STEP: usize = 2048;
    let mut file = fs::File::open(path)?;
    let mut bytes = vec![0; STEP];
    let mut length = 0;
    loop {
        let free = bytes.get_mut(length..).unwrap_or_default();
        let room = free.len();
        let got = match file.read(free) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            got => got?,
        };
        length += got;
        if got < room {
            bytes.truncate(length);
            return Ok(bytes);
        }
        bytes.resize(length + STEP, 0);
    }
}

/// [`small_file`] as text. A process's name may be any bytes: what is no UTF-8 is replaced.
///
/// # Errors
/// What open(2) and read(2) say.
pub fn small_text(path: impl AsRef<Path>) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&small_file(path)?).into_owned())
}

/// Whether /proc says of a process, or a thread, that there is none (any more).
pub fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// The fields of /proc/PID/stat from the third on (proc_pid_stat(5)). The name, the second one, may hold anything, parentheses
/// included: they are counted from its end. `None`: it says something else.
pub fn stat_fields(text: &str) -> Option<Vec<&str>> {
    let (_, rest) = text.rsplit_once(") ")?;
    Some(rest.split(' ').collect())
}

/// Lets this thread run before others (setpriority(2), −20), so that a machine full of work is not taken for a hang; what
/// leads its own session is a group of its own for the scheduler, which is preferred as well (sched(7), autogroup).
/// Within a cgroup whose CPU is limited this changes nothing.
pub fn prefer_this_thread() {
    // SAFETY: setpriority takes three integers; 0 means the calling thread.
    let raised = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) };
    if raised < 0 {
        tracing::warn!(error = %io::Error::last_os_error(), "the priority cannot be raised");
    }
    // Not on every kernel.
    fs::write("/proc/self/autogroup", "-20").ok();
}

/// Closes every descriptor from `first` on (close_range(2)), so that nothing of ours reaches the agent.
pub fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: only called right before an exec in a process of our own that uses none of them any more.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) })
        .map(drop)
}

/// Closes every descriptor from `first` on, now: for a program of ours that has not opened any yet, and was given none of
/// these.
pub fn close_inherited(first: u32) -> io::Result<()> {
    // SAFETY: called first of all in main, so no value of ours owns one of them.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) }).map(drop)
}

/// Takes a descriptor that the parent process left open for us under a known number.
///
/// # Errors
/// When nothing is open under that number. Call it once per number.
pub fn inherited(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: fcntl with F_SETFD takes integers only.
    check(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) }.into())?;
    // SAFETY: it is open (just checked), and by the contract of our own command line it is ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Every signal back to its default, none blocked: what a program expects at its start (execve(2) keeps "ignored").
pub fn default_signals() -> io::Result<()> {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, sigaction, sigprocmask};
    let action = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    for signal in Signal::iterator().filter(|s| !matches!(s, Signal::SIGKILL | Signal::SIGSTOP)) {
        // SAFETY: the default action runs no code of ours.
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?)
}

/// Random bytes of the kernel (getrandom(2)).
pub fn random(bytes: &mut [u8]) -> io::Result<()> {
    // SAFETY: the kernel writes at most `bytes.len()` bytes into the slice.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    match usize::try_from(got) {
        Ok(length) if length == bytes.len() => Ok(()),
        Ok(_) => Err(io::Error::other("too few random bytes")),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// The host's name (gethostname(2)).
pub fn host_name() -> io::Result<String> {
    nix::unistd::gethostname()?.into_string().map_err(|name| io::Error::other(format!("host name {name:?}")))
}
