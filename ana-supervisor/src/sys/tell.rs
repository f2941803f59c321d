//! Writing to a descriptor of the agent's, with no more rights than the agent has.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    time::Duration,
};

use nix::{sys::signal::Signal, unistd::Pid};

use super::process;

/// The writer's own end, should nobody be left to kill it.
const ALARM_SECONDS: u32 = 2;
/// How long the agent's reader may take before the writer is killed.
const LIMIT: Duration = Duration::from_secs(1);

/// Writes `text` to `target`, if it is what a stderr usually is, in a throw-away child that has dropped to `uid`/`gid`: root never writes the agent's words,
/// and a reader that does not read blocks nobody but that child. Blocks for at most a second.
pub fn write_as(target: BorrowedFd, uid: u32, gid: u32, text: &[u8]) -> io::Result<()> {
    let fd = target.as_raw_fd();
    // SAFETY: the child calls only system calls (async-signal-safe), allocates nothing and never returns.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    if pid == 0 {
        // SAFETY: system calls on integers and on `text`, which this process has a copy of; it never returns. The raw
        // calls are used because glibc's wrappers would signal threads that do not exist here.
        unsafe { write_and_exit(fd, uid, gid, text) }
    }
    reap(Pid::from_raw(pid))
}

/// The child: lets go of everything of ours first (a copy of the fanotify group that outlived us would leave the host's
/// opens blocked), and dies with its parent, with the clock, or with what it writes.
///
/// # Safety
/// Only in a process that has just been forked; `fd` is open.
unsafe fn write_and_exit(fd: i32, uid: u32, gid: u32, text: &[u8]) -> ! {
    // SAFETY: as the caller promises: system calls only, on integers and on memory of our own.
    unsafe {
        let alone = (fd == 0 || libc::syscall(libc::SYS_dup3, fd, 0, 0) == 0)
            && libc::syscall(libc::SYS_close_range, 1, u32::MAX, 0) == 0
            && libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<u8>()) == 0
            && libc::syscall(libc::SYS_setresgid, gid, gid, gid) == 0
            && libc::syscall(libc::SYS_setresuid, uid, uid, uid) == 0;
        // Set last: a change of uid clears it. If the parent is gone already, the alarm remains.
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::alarm(ALARM_SECONDS);
        // Asked here, not by the supervisor: a file system that does not answer must not keep it, and what it holds.
        if alone && is_stderr_like(BorrowedFd::borrow_raw(0)).unwrap_or(false) {
            libc::write(0, text.as_ptr().cast(), text.len());
        }
        libc::_exit(i32::from(!alone))
    }
}

fn reap(pid: Pid) -> io::Result<()> {
    let writer = process::pidfd_open(pid)?;
    if !process::wait_ended(std::os::fd::AsFd::as_fd(&writer), LIMIT)? {
        process::signal(std::os::fd::AsFd::as_fd(&writer), Some(Signal::SIGKILL))?;
    }
    nix::sys::wait::waitpid(pid, None)?;
    Ok(())
}

/// Whether `fd` is what a stderr usually is: a pipe, a terminal or a regular file, open for writing.
fn is_stderr_like(fd: BorrowedFd) -> io::Result<bool> {
    use nix::{
        fcntl::{FcntlArg, OFlag, fcntl},
        sys::stat::{SFlag, fstat},
    };
    let kind = SFlag::from_bits_truncate(fstat(fd)?.st_mode) & SFlag::S_IFMT;
    let terminal = kind == SFlag::S_IFCHR && nix::unistd::isatty(fd)?;
    let mode = OFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GETFL)?) & OFlag::O_ACCMODE;
    Ok(mode != OFlag::O_RDONLY && (kind == SFlag::S_IFIFO || kind == SFlag::S_IFREG || terminal))
}

#[cfg(test)]
mod tests {
    use std::{io::Read, os::fd::AsFd};

    use super::*;

    #[test]
    fn text_arrives_and_a_full_pipe_costs_a_second_at_most() {
        let (read, write) = nix::unistd::pipe().unwrap();
        write_as(write.as_fd(), 65534, 65534, b"ana: denied\n").unwrap();
        drop(write);
        let mut text = String::new();
        std::fs::File::from(read).read_to_string(&mut text).unwrap();
        assert_eq!(text, "ana: denied\n");

        let (_read, write) = nix::unistd::pipe().unwrap();
        let start = std::time::Instant::now();
        write_as(write.as_fd(), 65534, 65534, &vec![b'x'; 1 << 20]).unwrap();
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}
