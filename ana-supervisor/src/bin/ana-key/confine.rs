//! What this process gives up before it opens the first key.

use std::{io, os::fd::AsFd, path::Path};

use ana_supervisor::sys::{
    self,
    seccomp::{Filter, Table},
};
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, Scope,
};
use nix::{
    sys::{
        prctl,
        resource::{Resource, setrlimit},
        signal::Signal,
    },
    unistd::{Gid, Uid, setgroups, setresgid, setresuid},
};

/// Bytes of address space: what a key sends must not take more memory. The stacks and heaps of a dozen threads count, which
/// take much of it and use little.
const MEMORY_MAX: u64 = 4 << 30;

/// Gives up everything but the keys' device files and what is needed to find them; there is no way back. The process must
/// have one thread. `ids`: the user, the group and the further groups to have from here on; empty: those it has.
///
/// # Errors
/// A step failed: the process must end.
pub(crate) fn confine(ids: &[u32]) -> io::Result<()> {
    sys::process::close_inherited(3)?;
    // No terminal: a Ctrl-C that is meant for our parent would end us before the keys are dark.
    nix::unistd::setsid()?;
    if let [user, group, groups @ ..] = ids {
        become_person(*user, *group, groups)?;
    }
    // A change of user undoes this and the signal.
    prctl::set_dumpable(false)?;
    // The end of the pipe tells us to make the keys dark and to end; a process that was stopped has to go on for that.
    prctl::set_pdeathsig(Some(Signal::SIGCONT))?;
    prctl::set_name(c"ana-key")?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    setrlimit(Resource::RLIMIT_FSIZE, 0, 0)?;
    setrlimit(Resource::RLIMIT_AS, MEMORY_MAX, MEMORY_MAX)?;
    prctl::set_no_new_privs()?;
    for set in
        [caps::CapSet::Ambient, caps::CapSet::Inheritable, caps::CapSet::Effective, caps::CapSet::Permitted]
    {
        caps::clear(None, set).map_err(io::Error::other)?;
    }
    landlock().map_err(io::Error::other)?;
    filter().install()
}

/// Root's own files, disks among them, are root's without any capability; the keys are the person's.
fn become_person(user: u32, group: u32, groups: &[u32]) -> io::Result<()> {
    let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
    let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups)?;
    setresgid(group, group, group)?;
    Ok(setresuid(user, user, user)?)
}

/// What nothing here needs, and Landlock does not cover on every kernel: sockets (those of other daemons have paths),
/// programs, other processes, and the parts of the kernel that are for administrators. Signals to itself are how a
/// program aborts.
fn filter() -> Filter {
    let refuse = [
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_fork,
        libc::SYS_vfork,
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_pidfd_open,
        libc::SYS_pidfd_getfd,
        libc::SYS_pidfd_send_signal,
        libc::SYS_kill,
        libc::SYS_tkill,
        libc::SYS_rt_sigqueueinfo,
        libc::SYS_rt_tgsigqueueinfo,
        libc::SYS_connect,
        libc::SYS_bind,
        libc::SYS_io_uring_setup,
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_keyctl,
        libc::SYS_add_key,
        libc::SYS_request_key,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_mount,
        libc::SYS_fsopen,
        libc::SYS_open_tree,
        libc::SYS_move_mount,
        libc::SYS_chroot,
        libc::SYS_pivot_root,
        libc::SYS_open_by_handle_at,
        libc::SYS_shmget,
        libc::SYS_msgget,
        libc::SYS_semget,
        libc::SYS_mq_open,
    ];
    let native = Table {
        refuse: refuse.map(|call| (call, libc::EPERM)).into(),
        refuse_unless_zero: vec![(libc::SYS_prlimit64, &[0, 2], libc::EPERM)],
        // Of no family.
        socket_calls: vec![libc::SYS_socket, libc::SYS_socketpair],
        ..Table::default()
    };
    Filter { native, i386: None }
}

/// The device files to read and write; what describes them to read; no network, no signal to others. As far as this
/// kernel knows how.
fn landlock() -> Result<(), RulesetError> {
    let abi = ABI::V6;
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?;
    let look = AccessFs::ReadFile | AccessFs::ReadDir;
    let places: [(&str, BitFlags<AccessFs>); 3] =
        [("/dev", look | AccessFs::WriteFile | AccessFs::IoctlDev), ("/sys", look), ("/run/udev", look)];
    for (path, access) in places {
        // A machine without udev has no /run/udev.
        if !Path::new(path).exists() {
            continue;
        }
        if let Ok(place) = PathFd::new(path) {
            ruleset = ruleset.add_rule(PathBeneath::new(place.as_fd(), access))?;
        }
    }
    ruleset.restrict_self().map(drop)
}
