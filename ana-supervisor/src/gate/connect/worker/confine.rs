//! What the worker gives up before it sees the first byte: its user, its capabilities, every file, every system call but
//! those that it needs for what it was given.

use std::io;

use landlock::{ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, Scope};
use nix::{
    sys::{
        prctl,
        resource::{Resource, getrlimit, setrlimit},
        signal::Signal,
    },
    unistd::{Gid, Uid, setgroups, setresgid, setresuid},
};

use crate::sys::{
    self,
    seccomp::only::{Allowed, Only, When},
};

/// nobody, nogroup: what owns nothing.
const NOBODY: u32 = 65534;
/// How many descriptors it may have: two for a connection, and its share of the pipes.
const DESCRIPTORS: u64 = 1 << 20;
/// MSG_FASTOPEN (linux/socket.h): makes send(2) a connect(2).
const FAST_OPEN: u32 = 0x2000_0000;

/// A step that failed.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub struct ConfineError {
    doing: &'static str,
    source: io::Error,
}

fn doing<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> ConfineError {
    move |source| ConfineError { doing, source: source.into() }
}

/// Gives up everything; there is no way back. The process must have one thread, and be root.
///
/// # Errors
/// A step failed: the process must end.
pub fn confine() -> Result<(), ConfineError> {
    prctl::set_dumpable(false).map_err(doing("become non-dumpable"))?;
    prctl::set_name(c"ana-proxy").map_err(doing("take a name"))?;
    limits()?;
    sys::thread::without_files().map_err(doing("leave the root folder"))?;
    nix::unistd::chdir("/").map_err(doing("leave the working folder"))?;
    become_nobody()?;
    prctl::set_no_new_privs().map_err(doing("set no_new_privs"))?;
    // A change of user has undone both of these.
    prctl::set_pdeathsig(Some(Signal::SIGKILL)).map_err(doing("set the parent-death signal"))?;
    prctl::set_dumpable(false).map_err(doing("become non-dumpable"))?;
    landlock()?;
    Only(calls()).install().map_err(doing("install the filter"))
}

fn limits() -> Result<(), ConfineError> {
    let most = getrlimit(Resource::RLIMIT_NOFILE).map_err(doing("read a limit"))?.1;
    // More than the hard limit is for root, and never more than fs.nr_open.
    if setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS, DESCRIPTORS).is_err() {
        setrlimit(Resource::RLIMIT_NOFILE, most, most).map_err(doing("raise the limit of descriptors"))?;
    }
    for resource in [Resource::RLIMIT_NPROC, Resource::RLIMIT_FSIZE, Resource::RLIMIT_CORE] {
        setrlimit(resource, 0, 0).map_err(doing("set a limit"))?;
    }
    Ok(())
}

fn become_nobody() -> Result<(), ConfineError> {
    use caps::CapSet::{Ambient, Bounding, Effective, Inheritable, Permitted};
    let clear = |set| caps::clear(None, set).map_err(io::Error::other).map_err(doing("drop capabilities"));
    clear(Ambient)?;
    clear(Bounding)?;
    clear(Inheritable)?;
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    setgroups(&[]).map_err(doing("drop the groups"))?;
    setresgid(gid, gid, gid).map_err(doing("set the gid"))?;
    setresuid(uid, uid, uid).map_err(doing("set the uid"))?;
    clear(Effective)?;
    clear(Permitted)
}

/// No file, no socket of the network, no signal beyond itself, as far as this kernel knows how; the filter and the empty
/// root hold without it.
fn landlock() -> Result<(), ConfineError> {
    let abi = ABI::V6;
    let restrict = || {
        Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(abi))?
            .handle_access(AccessNet::from_all(abi))?
            .scope(Scope::from_all(abi))?
            .create()?
            .restrict_self()
    };
    restrict().map(drop).map_err(io::Error::other).map_err(doing("enter a Landlock domain"))
}

fn calls() -> Vec<Allowed> {
    let always = [
        // The connections.
        libc::SYS_splice,
        libc::SYS_recvfrom,
        libc::SYS_recvmsg,
        libc::SYS_shutdown,
        libc::SYS_close,
        libc::SYS_pipe2,
        libc::SYS_epoll_create1,
        libc::SYS_epoll_ctl,
        libc::SYS_epoll_wait,
        libc::SYS_epoll_pwait,
        libc::SYS_epoll_pwait2,
        // Memory, time and the end.
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_madvise,
        libc::SYS_brk,
        libc::SYS_futex,
        libc::SYS_sched_yield,
        libc::SYS_clock_gettime,
        libc::SYS_getrandom,
        libc::SYS_rt_sigreturn,
        libc::SYS_rt_sigprocmask,
        libc::SYS_sigaltstack,
        libc::SYS_restart_syscall,
        libc::SYS_exit,
        libc::SYS_exit_group,
        // A panic's words go to what stands for stderr.
        libc::SYS_write,
        libc::SYS_writev,
    ];
    let when = |call, when| Allowed { call, when };
    let no_code = |argument| When::Without { argument, flags: libc::PROT_EXEC.cast_unsigned() };
    // Not F_SETOWN and F_SETSIG, which signal others.
    let fcntls =
        &[libc::F_GETFL, libc::F_SETFL, libc::F_GETFD, libc::F_SETFD, libc::F_SETPIPE_SZ, libc::F_GETPIPE_SZ];
    let levels = &[libc::SOL_SOCKET, libc::IPPROTO_TCP];
    let mut calls: Vec<Allowed> = always.into_iter().map(|call| when(call, When::Always)).collect();
    calls.extend([
        when(libc::SYS_mmap, no_code(2)),
        when(libc::SYS_mprotect, no_code(2)),
        when(libc::SYS_fcntl, When::OneOf { argument: 1, values: fcntls }),
        when(libc::SYS_setsockopt, When::OneOf { argument: 1, values: levels }),
        when(libc::SYS_getsockopt, When::OneOf { argument: 1, values: levels }),
        // A client's socket that was reset could be connected to somewhere else by these.
        when(libc::SYS_sendto, When::Without { argument: 3, flags: FAST_OPEN }),
        when(libc::SYS_sendmsg, When::Without { argument: 2, flags: FAST_OPEN }),
    ]);
    calls
}
