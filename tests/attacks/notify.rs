//! Executes the protected program under a system call filter whose answers this process gives (seccomp_unotify(2)): what
//! the program opens is what we hand it. Here it is its file for the marks. Arguments: the program, the file that the
//! program opens, the file that it gets.
#![allow(unsafe_code, reason = "a filter with a listener, and answering it, are the attack")]

use std::{
    fs::{File, OpenOptions},
    io::{IoSlice, IoSliceMut},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::fs::FileExt,
    },
    path::Path,
};

use ana_tests::attempt::{argument, c_environment, c_path, say, tell, tell_io};
use nix::{
    errno::Errno,
    sys::{
        prctl,
        socket::{
            AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
            sendmsg, socketpair,
        },
        wait::{WaitStatus, waitpid},
    },
    unistd::{ForkResult, execve, fork},
};

fn main() {
    let (program, opened, given) = (argument(1), argument(2), argument(3));
    let (path, environment) = (c_path(&program), c_environment());
    let pair = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC);
    let Some((ours, theirs)) = tell("socketpair", pair) else { return };
    // SAFETY: this process has one thread, so the child may do whatever it likes.
    let child = match unsafe { fork() } {
        Ok(ForkResult::Child) => {
            if let Some(listener) = tell("listener", listen()) {
                let fds = [listener.as_raw_fd()];
                let rights = [ControlMessage::ScmRights(&fds)];
                let sent = sendmsg::<()>(
                    theirs.as_raw_fd(),
                    &[IoSlice::new(b"l")],
                    &rights,
                    MsgFlags::empty(),
                    None,
                );
                tell("send", sent);
                tell("exec", execve(&path, &[c"deploy", c"status"], &environment));
            }
            std::process::exit(126);
        }
        Ok(ForkResult::Parent { child }) => child,
        Err(errno) => {
            tell::<()>("fork", Err(errno));
            return;
        }
    };
    drop(theirs);
    if let Some(listener) = receive(&ours) {
        // Before Linux 6.11 the kernel does not say that nobody is left who could ask: the end of the program ends it.
        std::thread::spawn(move || tell_io("serve", serve(&listener, &opened, &given)));
    }
    match waitpid(child, None) {
        Ok(WaitStatus::Exited(_, 0)) => say("attempt run: ok"),
        ended => say(&format!("attempt run: {ended:?}")),
    }
}

/// A filter that asks its listener about every openat(2).
fn listen() -> Result<OwnedFd, Errno> {
    prctl::set_no_new_privs()?;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    #[allow(clippy::cast_possible_truncation, reason = "a small number")]
    let openat = libc::SYS_openat as u32;
    // Load the number; openat asks, everything else goes on.
    let mut program = [
        step(0x20, 0, 0, 0),
        step(0x15, 0, 1, openat),
        step(0x06, 0, 0, libc::SECCOMP_RET_USER_NOTIF),
        step(0x06, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: 4, filter: program.as_mut_ptr() };
    // SAFETY: the kernel copies four instructions from an array that lives across the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const filter,
        )
    };
    let fd = RawFd::try_from(Errno::result(fd)?).map_err(|_large| Errno::EBADF)?;
    // SAFETY: a descriptor that the kernel has just made.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn receive(socket: &OwnedFd) -> Option<OwnedFd> {
    let mut byte = [0];
    let mut bytes = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut bytes, Some(&mut space), MsgFlags::empty());
    let message = tell("receive", message)?;
    let fds = message.cmsgs().ok()?.find_map(|control| {
        let ControlMessageOwned::ScmRights(fds) = control else { return None };
        fds.first().copied()
    });
    // SAFETY: a descriptor that the kernel has just put here.
    fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Answers until the program has ended: one file is replaced, the rest is as it would be.
fn serve(listener: &OwnedFd, opened: &Path, given: &Path) -> std::io::Result<()> {
    let given = OpenOptions::new().create(true).append(true).open(given)?;
    loop {
        // SAFETY: seccomp_notif is integers only; the kernel wants it zeroed.
        let mut asked: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SECCOMP_IOCTL_NOTIF_RECV
        // SAFETY: the kernel fills the structure that lives here.
        if unsafe { libc::ioctl(listener.as_raw_fd(), 0xc050_2100, &raw mut asked) } < 0 {
            // Nobody is left who could ask.
            return Ok(());
        }
        let mut answer = libc::seccomp_notif_resp { id: asked.id, val: 0, error: 0, flags: 1 };
        if path_of(&asked).is_some_and(|path| path == opened.as_os_str().as_encoded_bytes()) {
            let give =
                Give { id: asked.id, flags: 0, source: given.as_raw_fd().cast_unsigned(), target: 0, new: 0 };
            // SECCOMP_IOCTL_NOTIF_ADDFD
            // SAFETY: the kernel reads the structure that lives here.
            let fd = unsafe { libc::ioctl(listener.as_raw_fd(), 0x4018_2103, &raw const give) };
            (answer.val, answer.flags) = (fd.into(), 0);
        }
        // SECCOMP_IOCTL_NOTIF_SEND
        // SAFETY: the kernel reads the structure that lives here. A process that is gone needs no answer.
        unsafe { libc::ioctl(listener.as_raw_fd(), 0xc018_2101, &raw mut answer) };
    }
}

/// struct seccomp_notif_addfd (linux/seccomp.h).
#[repr(C)]
struct Give {
    id: u64,
    flags: u32,
    source: u32,
    target: u32,
    new: u32,
}

fn path_of(asked: &libc::seccomp_notif) -> Option<Vec<u8>> {
    let memory = File::open(format!("/proc/{}/mem", asked.pid)).ok()?;
    let mut bytes = vec![0; 256];
    let length = memory.read_at(&mut bytes, asked.data.args[1]).ok()?;
    bytes.truncate(length);
    bytes.split(|&byte| byte == 0).next().map(<[u8]>::to_vec)
}
