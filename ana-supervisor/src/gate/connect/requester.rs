//! Which process asked for a connection. It is not stopped (its connection is), so what is read of it is a description: what
//! it was when it called connect(2) is what the kernel noted then, and what does not fit that is not shown.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use ana_common::{FileKey, network::Origin};
use nix::{
    sys::eventfd::{EfdFlags, EventFd},
    unistd::Pid,
};
use tokio::sync::{Semaphore, oneshot};

use crate::{
    gate::{exec::Common, files, process},
    kernel::{identity, network::Refusal},
    operation::{self, Bytes},
    sys,
};

/// How long the look may take: the agent's memory and its program may lie where nobody answers.
const LIMIT: Duration = Duration::from_millis(500);
/// Looks at a time, those that never come back included. Beyond it, processes are not described.
const AT_A_TIME: usize = 16;
/// The most of a command line that is shown.
const ARGUMENTS_MAX: usize = 32 << 10;

/// A process that asked.
#[derive(Clone, Debug)]
pub struct Asker {
    pub requester: operation::Requester,
    /// `None`: it has ended.
    pub process: Option<Arc<OwnedFd>>,
    /// What it runs, if that is what it ran when it asked.
    pub program: Option<operation::File>,
    pub argv: Vec<Bytes>,
    pub cwd: Option<Bytes>,
}

/// Whoever describes processes, a few at a time.
#[derive(Debug)]
pub struct Askers {
    permits: Arc<Semaphore>,
    /// The one descriptor that a look has.
    anchor: Arc<EventFd>,
}

impl Refusal {
    /// Who was refused, in the form in which the programs note who was redirected.
    pub fn origin(&self) -> Origin {
        Origin { tgid: self.tgid, started: self.started, exe: self.exe, boot_ns: self.boot_ns, ..Origin::default() }
    }
}

impl Askers {
    /// # Errors
    /// No descriptor can be had.
    pub fn new() -> io::Result<Self> {
        let anchor = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?);
        Ok(Self { permits: Arc::new(Semaphore::new(AT_A_TIME)), anchor })
    }

    /// Describes the process that opened a connection. `hash`: what its program is has to be known; otherwise only if it is
    /// known already.
    pub async fn describe(&self, origin: &Origin, common: &Arc<Common>, agent: Pid, hash: bool) -> Asker {
        let pid = Pid::from_raw(origin.tgid.cast_signed());
        let gone = || Asker {
            requester: operation::Requester {
                pid: pid.as_raw(),
                start_time: origin.started.to_string(),
                ancestry: Vec::new(),
            },
            process: None,
            program: None,
            argv: Vec::new(),
            cwd: None,
        };
        let Ok(process) = alive(pid, origin.started) else { return gone() };
        let parent = process::info(pid).map_or(0, |info| info.parent);
        let requester = process::requester(pid, origin.started, parent, agent);
        let mut asker = Asker { requester, process: Some(Arc::new(process)), ..gone() };
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else { return asker };
        let (teller, told) = oneshot::channel();
        let (exe, common, anchor) = (origin.exe, Arc::clone(common), Arc::clone(&self.anchor));
        let looking = std::thread::Builder::new().name("ana-asker".to_owned()).spawn(move || {
            // Nobody waits for it any more if it took too long.
            drop(teller.send(look(pid, exe, &common, hash, &anchor)));
            drop(permit);
        });
        if looking.is_ok()
            && let Ok(Ok(Ok(seen))) = tokio::time::timeout(LIMIT, told).await
        {
            (asker.program, asker.argv, asker.cwd) = (seen.program, seen.argv, seen.cwd);
        }
        asker
    }
}

/// The process, if it is still the one that started then.
fn alive(pid: Pid, started: u64) -> io::Result<OwnedFd> {
    let process = sys::process::pidfd_open(pid)?;
    match process::start_time(pid)?.parse() == Ok(started) {
        true => Ok(process),
        false => Err(io::Error::other("another process has its number")),
    }
}

struct Seen {
    program: Option<operation::File>,
    argv: Vec<Bytes>,
    cwd: Option<Bytes>,
}

/// Runs in a thread of its own, with no descriptor of ours: what it waits for may never come, and must hold nothing open.
fn look(pid: Pid, exe: FileKey, common: &Common, hash: bool, anchor: &EventFd) -> io::Result<Seen> {
    sys::thread::with_no_descriptor_but(anchor.as_fd())?;
    let program = program(pid, exe, common, hash).unwrap_or_default();
    let mut arguments = sys::process::small_file(&format!("/proc/{pid}/cmdline")).unwrap_or_default();
    arguments.truncate(ARGUMENTS_MAX);
    let argv = process::split(&arguments).into_iter().map(Bytes).collect();
    Ok(Seen { program, argv, cwd: process::working_directory(pid).ok() })
}

fn program(pid: Pid, exe: FileKey, common: &Common, hash: bool) -> io::Result<Option<operation::File>> {
    let file = File::open(format!("/proc/{pid}/exe"))?;
    let key = identity::file_key_seen_by(file.as_fd(), pid.as_raw().unsigned_abs())?;
    if key != exe {
        return Ok(None);
    }
    let sha256 = match common.hashes.remembered(&file.metadata()?) {
        Some(content) => content.hash,
        None if hash => common.hashes.of(&file)?,
        None => return Ok(None),
    };
    files::describe(&file, key, sha256, &common.user).map(Some)
}
