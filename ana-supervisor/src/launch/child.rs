//! The last steps before the agent's first instruction, in its own process: every fence goes up, then exec.

use std::{
    convert::Infallible,
    ffi::CString,
    fs::{self, File},
    io::{self, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use caps::{CapSet, Capability};
use landlock::RulesetCreated;
use nix::unistd::{
    Gid, Pid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, setgroups, setpgid, setresgid, setresuid,
};

use super::{
    filter, seal,
    spec::{Failure, Preparation},
};
use crate::sys;

/// What `ana-run` exits with when it is ana that failed.
pub const OURS: u8 = 125;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// A step of the launch that failed.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {error}")]
pub struct Step {
    doing: String,
    error: String,
    code: u8,
}

impl Step {
    /// For `map_err`: names what was being done.
    pub fn doing<E: std::error::Error>(doing: impl Into<String>) -> impl FnOnce(E) -> Self {
        move |error| {
            let mut text = error.to_string();
            let mut cause = error.source();
            while let Some(inner) = cause {
                text = format!("{text}: {inner}");
                cause = inner.source();
            }
            Self { doing: doing.into(), error: text, code: OURS }
        }
    }
}

impl From<Step> for Failure {
    fn from(step: Step) -> Self {
        Self { doing: step.doing, error: step.error, code: step.code }
    }
}

/// Never given to a session: they lead around a gate, into another process, or into the kernel. An approved root inside
/// has the rest.
const CUT: [Capability; 13] = [
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_SYS_MODULE,
    Capability::CAP_SYS_RAWIO,
    Capability::CAP_SYS_BOOT,
    Capability::CAP_BPF,
    Capability::CAP_PERFMON,
    Capability::CAP_SYSLOG,
    Capability::CAP_MKNOD,
    Capability::CAP_MAC_ADMIN,
    Capability::CAP_MAC_OVERRIDE,
    Capability::CAP_CHECKPOINT_RESTORE,
    // Opens files by handle: no path, no mount, hence nothing that a rule about folders would see.
    Capability::CAP_DAC_READ_SEARCH,
];

/// What the child takes over from the session leader.
#[derive(Debug)]
pub struct Outfit {
    pub preparation: Preparation,
    /// stdin, stdout, stderr.
    pub streams: [OwnedFd; 3],
    /// The session's terminal, if it has one.
    pub terminal: Option<OwnedFd>,
    pub ruleset: Option<RulesetCreated>,
    /// cgroup.procs of the session's v1 pids group.
    pub pids: Option<File>,
    /// The oom_score_adj that ana itself was started with.
    pub oom_score_adj: Option<String>,
}

/// Becomes the agent; on failure reports on `report` and ends. Runs in the forked child.
pub fn become_agent(outfit: Outfit, mut report: File) -> Infallible {
    let Err(step) = try_become(outfit);
    let failure = Failure::from(step);
    if let Ok(bytes) = serde_json::to_vec(&failure) {
        // The leader learns of the failure by the end of file as well.
        drop(report.write_all(&bytes));
    }
    std::process::exit(i32::from(failure.code))
}

fn try_become(outfit: Outfit) -> Result<Infallible, Step> {
    let Outfit { preparation, streams, terminal, ruleset, pids, oom_score_adj } = outfit;
    let Preparation { spec, identity, switches, .. } = preparation;

    setpgid(Pid::from_raw(0), Pid::from_raw(0)).map_err(Step::doing("make a process group"))?;
    if let Some(terminal) = &terminal {
        foreground(terminal)?;
    }
    dup2_stdin(&streams[0]).map_err(Step::doing("set stdin"))?;
    dup2_stdout(&streams[1]).map_err(Step::doing("set stdout"))?;
    dup2_stderr(&streams[2]).map_err(Step::doing("set stderr"))?;
    if let Some(mut pids) = pids {
        pids.write_all(b"0").map_err(Step::doing("enter the session's pids group"))?;
    }
    if let Some(score) = oom_score_adj {
        fs::write("/proc/self/oom_score_adj", score).map_err(Step::doing("reset oom_score_adj"))?;
    }
    for capability in CUT {
        caps::drop(None, CapSet::Bounding, capability)
            .map_err(Step::doing(format!("drop {capability} from the bounding set")))?;
    }
    caps::clear(None, CapSet::Inheritable).map_err(Step::doing("clear the inheritable capabilities"))?;
    if let Some(ruleset) = ruleset {
        seal::enter(ruleset).map_err(Step::doing("enter the seal"))?;
    }
    filter::base(switches).install().map_err(Step::doing("install the base filter"))?;

    let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    setgroups(&groups).map_err(Step::doing("set the agent's groups"))?;
    setresgid(gid, gid, gid).map_err(Step::doing("set the agent's gid"))?;
    setresuid(uid, uid, uid).map_err(Step::doing("set the agent's uid"))?;

    // From here on with the agent's own rights.
    let cwd = PathBuf::from(std::ffi::OsStr::from_bytes(&spec.cwd.0));
    std::env::set_current_dir(&cwd).map_err(Step::doing(format!("enter the folder {}", cwd.display())))?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(spec.umask));
    sys::process::default_signals().map_err(Step::doing("reset the signals"))?;
    sys::process::close_from(3).map_err(Step::doing("close our descriptors"))?;
    let path = spec.variable("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let strings = |bytes: &[crate::operation::Bytes]| {
        bytes.iter().map(|b| CString::new(b.0.as_slice())).collect::<Result<Vec<_>, _>>()
    };
    let argv = strings(&spec.argv).map_err(Step::doing("use the command line"))?;
    let environment = strings(&spec.environment).map_err(Step::doing("use the environment"))?;
    Err(exec(&argv, &environment, path.as_bytes()))
}

/// Puts our group into the terminal's foreground. A background group that asks for it gets SIGTTOU, unless blocked.
fn foreground(terminal: &OwnedFd) -> Result<(), Step> {
    use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
    let mut blocked = SigSet::empty();
    blocked.add(Signal::SIGTTOU);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&blocked), None).map_err(Step::doing("block SIGTTOU"))?;
    nix::unistd::tcsetpgrp(terminal.as_fd(), nix::unistd::getpgrp())
        .map_err(Step::doing("put the agent into the terminal's foreground"))
}

/// As execvp(3), with the PATH of the new environment. Returns only on failure.
fn exec(argv: &[CString], environment: &[CString], path: &[u8]) -> Step {
    let Some(program) = argv.first().map(|a| a.to_bytes()).filter(|a| !a.is_empty()) else {
        return Step { doing: "start the agent".into(), error: "no command".into(), code: NOT_FOUND };
    };
    let shown = crate::operation::Bytes::from(program).escaped();
    let mut candidates: Vec<PathBuf> = Vec::new();
    if program.contains(&b'/') {
        candidates.push(Path::new(std::ffi::OsStr::from_bytes(program)).to_owned());
    } else {
        for folder in path.split(|&b| b == b':') {
            let folder = if folder.is_empty() { b"." } else { folder };
            candidates.push(
                Path::new(std::ffi::OsStr::from_bytes(folder)).join(std::ffi::OsStr::from_bytes(program)),
            );
        }
    }
    let mut worst = io::Error::from_raw_os_error(libc::ENOENT);
    for candidate in candidates {
        let Ok(file) = CString::new(candidate.as_os_str().as_bytes()) else { continue };
        let Err(mut errno) = nix::unistd::execve(&file, argv, environment);
        if errno == nix::errno::Errno::ENOEXEC {
            // A text without #! line is a shell script, as every shell has it.
            let shell = [c"/bin/sh".to_owned(), file].into_iter().chain(argv.iter().skip(1).cloned());
            Err(errno) = nix::unistd::execve(c"/bin/sh", &shell.collect::<Vec<_>>(), environment);
        }
        if !matches!(errno, nix::errno::Errno::ENOENT | nix::errno::Errno::ENOTDIR) {
            worst = errno.into();
        }
        if worst.kind() != io::ErrorKind::NotFound && worst.kind() != io::ErrorKind::PermissionDenied {
            break;
        }
    }
    let (code, error) = match worst.kind() == io::ErrorKind::NotFound {
        true => (NOT_FOUND, "command not found".to_owned()),
        false => (NOT_EXECUTABLE, worst.to_string()),
    };
    Step { doing: format!("start {shown}"), error, code }
}

/// The pipe on which the child tells why it could not become the agent; its exec closes it.
pub fn report_pipe() -> io::Result<(File, File)> {
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    Ok((read.into(), write.into()))
}
