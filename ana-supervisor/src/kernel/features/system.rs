//! What the rest of the kernel offers.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd},
    path::{Path, PathBuf},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        memfd::{MFdFlags, memfd_create},
        socket::{AddressFamily, SockFlag, SockType, getsockopt, socketpair, sockopt::PeerPidfd},
    },
};

use super::{AS_ROOT, Check};
use crate::sys::{
    self,
    fanotify::{Answer, Buffer, Group},
};

/// The first Landlock version that scopes signals and abstract sockets (Linux 6.12).
const LANDLOCK_SEAL: u32 = 6;
/// How long an open of our own file may take to arrive.
const ANSWER_LIMIT_MS: u16 = 2000;

/// `uname -r`.
pub fn kernel_release() -> String {
    match nix::sys::utsname::uname() {
        Ok(name) => name.release().to_string_lossy().into_owned(),
        Err(errno) => format!("unknown ({errno})"),
    }
}

pub(super) fn privilege() -> Check {
    let uid = nix::unistd::geteuid();
    if uid.is_root() {
        return Check::ok("privilege", "root");
    }
    Check::degraded(
        "privilege",
        format!("uid {uid}: not everything can be tried"),
        "run it as root: sudo ana doctor",
    )
}

pub(super) fn cgroup2() -> (Check, Option<PathBuf>) {
    let name = "cgroup2";
    let mounts = match fs::read_to_string("/proc/self/mountinfo") {
        Ok(mounts) => mounts,
        Err(error) => {
            return (Check::missing(name, format!("cannot read mountinfo: {error}"), "mount /proc"), None);
        }
    };
    let Some(path) = mount_of(&mounts, "cgroup2", None) else {
        let way_out = "mount it: mount -t cgroup2 none /sys/fs/cgroup (or boot with systemd.unified_cgroup_hierarchy=1)";
        return (Check::missing(name, "the v2 hierarchy is not mounted", way_out), None);
    };
    let hybrid =
        if mount_of(&mounts, "cgroup", None).is_some() { " (hybrid: v1 hierarchies beside it)" } else { "" };
    (Check::ok(name, format!("mounted at {}{hybrid}", path.display())), Some(path))
}

/// Where a file system of this type is mounted, with this super option if one is asked for.
fn mount_of(mounts: &str, kind: &str, option: Option<&str>) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (mount, source) = line.split_once(" - ")?;
        let mut source = source.split(' ');
        if source.next()? != kind {
            return None;
        }
        if let Some(option) = option {
            source.nth(1)?.split(',').find(|found| *found == option)?;
        }
        Some(PathBuf::from(unescape(mount.split(' ').nth(4)?)))
    })
}

/// mountinfo writes blanks and backslashes in octal.
fn unescape(path: &str) -> String {
    path.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

pub(super) fn pids(cgroup2: Option<&Path>) -> Check {
    let name = "pids";
    let controllers = cgroup2.and_then(|path| fs::read_to_string(path.join("cgroup.controllers")).ok());
    if controllers.is_some_and(|text| text.split_whitespace().any(|controller| controller == "pids")) {
        return Check::ok(name, "controller in the v2 hierarchy");
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    match mount_of(&mounts, "cgroup", Some("pids")) {
        Some(path) => Check::ok(name, format!("controller in the v1 hierarchy at {}", path.display())),
        None => Check::degraded(
            name,
            "no pids controller: the number of a session's processes is not limited",
            "enable CONFIG_CGROUP_PIDS, or set a limit for the user with ulimit -u",
        ),
    }
}

/// The group that the gate needs, tried on a file of our own.
pub(super) fn fanotify() -> Check {
    let name = "fanotify";
    match permission_events() {
        Ok(()) => Check::ok(name, "an open was stopped and refused; permission events come with pidfds"),
        Err(io) if io.kind() == io::ErrorKind::PermissionDenied && !nix::unistd::geteuid().is_root() => {
            Check::degraded(name, "cannot be tried without root", AS_ROOT)
        }
        Err(error) => Check::missing(
            name,
            format!("no permission events: {error}"),
            "use a kernel of 5.15 or later with CONFIG_FANOTIFY_ACCESS_PERMISSIONS",
        ),
    }
}

/// Stops an open of a file of our own, and refuses it.
fn permission_events() -> io::Result<()> {
    let group = Group::new()?;
    // Nobody else can open it, so the mark holds nobody up.
    let file = memfd_create(c"ana-doctor", MFdFlags::MFD_CLOEXEC)?;
    group.protect(file.as_fd())?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let opener = std::thread::spawn(move || fs::File::open(path).map(drop));
    let stopped = refuse_one(&group);
    // Whatever still waits goes on when the group is gone.
    drop(group);
    let opened = opener.join().map_err(|_panic| io::Error::other("the opening thread died"))?;
    stopped?;
    match opened {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        Err(error) => Err(error),
        Ok(()) => Err(io::Error::other("an open was refused and went on")),
    }
}

fn refuse_one(group: &Group) -> io::Result<()> {
    let mut ready = [PollFd::new(group.as_fd(), PollFlags::POLLIN)];
    if poll(&mut ready, PollTimeout::from(ANSWER_LIMIT_MS))? == 0 {
        return Err(io::Error::other("an open was not stopped"));
    }
    let mut events = Vec::new();
    group.read(&mut Buffer::default(), &mut events)?;
    events.iter().try_for_each(|event| group.answer(event.file.as_fd(), Answer::Deny))
}

pub(super) fn seccomp() -> Check {
    let name = "seccomp";
    let way_out = "use a kernel with CONFIG_SECCOMP_FILTER";
    match fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail") {
        Ok(actions) if actions.split_whitespace().any(|action| action == "errno") => {
            Check::ok(name, format!("actions: {}", actions.trim()))
        }
        Ok(actions) => {
            Check::missing(name, format!("no errno among the actions: {}", actions.trim()), way_out)
        }
        Err(error) => Check::missing(name, format!("no filters: {error}"), way_out),
    }
}

pub(super) fn landlock() -> Check {
    let (name, way_out) = ("landlock", "use Linux 6.12 or later with landlock in lsm=");
    match sys::landlock::abi() {
        Ok(abi) if abi >= LANDLOCK_SEAL => Check::ok(name, format!("ABI {abi}: sessions are sealed")),
        Ok(abi) => Check::degraded(name, format!("ABI {abi}: too old for the seal"), way_out),
        Err(error) => Check::degraded(name, format!("not there, so there is no seal: {error}"), way_out),
    }
}

/// Matters where there is no seal: it keeps processes of one user from attaching to each other.
pub(super) fn yama(sealed: bool) -> Check {
    let name = "yama";
    let way_out = "enable Yama and set kernel.yama.ptrace_scope to 1 or more";
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
    let scope = scope.ok().and_then(|text| text.trim().parse::<u32>().ok());
    match scope {
        Some(scope) if sealed || scope >= 1 => Check::ok(name, format!("ptrace_scope {scope}")),
        Some(scope) => Check::degraded(name, format!("ptrace_scope {scope}, and no seal"), way_out),
        None if sealed => Check::ok(name, "not there; the seal does without"),
        None => Check::degraded(name, "not there, and no seal", way_out),
    }
}

pub(super) fn peer_pidfd() -> Check {
    let name = "peer-pidfd";
    let asked = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)
        .and_then(|(one, _other)| getsockopt(&one, PeerPidfd));
    match asked {
        Ok(_pidfd) => Check::ok(name, "a socket's peer is known by pidfd"),
        Err(errno) => Check::degraded(
            name,
            format!("SO_PEERPIDFD: {errno}: peers are known by pid only"),
            "use Linux 6.5 or later",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
36 23 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
38 23 0:38 / /sys/fs/cgroup/uni\\040fied rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate
";

    #[test]
    fn mounts_are_found_by_type_and_option() {
        assert_eq!(mount_of(HYBRID, "cgroup2", None), Some("/sys/fs/cgroup/uni fied".into()));
        assert_eq!(mount_of(HYBRID, "cgroup", Some("pids")), Some("/sys/fs/cgroup/pids".into()));
        assert_eq!(mount_of(HYBRID, "cgroup", Some("pid")), None);
        assert_eq!(mount_of(HYBRID, "bpf", None), None);
    }
}
