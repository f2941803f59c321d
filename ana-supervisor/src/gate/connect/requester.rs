//! Which process asked for a connection. It is not stopped (its connection is), so what is read of it is a description: what
//! it was when it called connect(2) is what the kernel noted then, and what does not fit that is not shown.

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::Duration,
};

use ana_common::{FileKey, network::Origin};
use nix::{
    sys::eventfd::{EfdFlags, EventFd},
    unistd::Pid,
};
use tokio::sync::Semaphore;

use crate::{
    gate::{exec::Common, files, process},
    kernel::{identity, network::Refusal},
    operation::{self, Bytes},
    sys,
};

/// How long the look may take: the agent's memory and its program may lie where nobody answers. But a person wants to know who
/// asks, and a program of 400 MB on a busy disk takes its time to be hashed.
const LIMIT: Duration = Duration::from_secs(60);
/// Looks at a time, those that never come back included. Beyond it, processes are not described.
const AT_A_TIME: usize = 16;
/// The longest command line that is shown; of a longer one nothing is.
const ARGUMENTS_MAX: usize = 96 << 10;
/// Programs whose hashes are remembered.
const HASHES_MAX: usize = 64;

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

/// What is different once a file's content has changed: device, inode, size, and when it was changed. (Nobody can set
/// the last one; within the tick of the kernel's clock it may stay. For what a person is told, that will do.)
type Version = (u64, u64, u64, i64, i64);

/// Hashes of programs that others than root may write: an agent's own is large, and connects often. Whoever hashes one holds
/// its lock, so that of many that ask at once one does it.
type Remembered = Mutex<HashMap<Version, Arc<Mutex<Option<[u8; 32]>>>>>;

/// Whoever describes processes, a few at a time.
#[derive(Debug)]
pub struct Askers {
    permits: Arc<Semaphore>,
    remembered: Arc<Remembered>,
    /// The one descriptor that a look has.
    anchor: Arc<EventFd>,
}

impl Refusal {
    /// Who was refused, in the form in which the programs note who was redirected.
    pub fn origin(&self) -> Origin {
        Origin {
            tgid: self.tgid,
            started: self.started,
            exe: self.exe,
            boot_ns: self.boot_ns,
            ..Origin::default()
        }
    }
}

impl Askers {
    /// # Errors
    /// No descriptor can be had.
    pub fn new() -> io::Result<Self> {
        let anchor = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?);
        Ok(Self { permits: Arc::new(Semaphore::new(AT_A_TIME)), remembered: Arc::default(), anchor })
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
        // The standard library's: to wake a task of tokio's takes its descriptors, and the look has none of them.
        let (teller, told) = mpsc::sync_channel(1);
        let look = Look {
            pid,
            exe: origin.exe,
            common: Arc::clone(common),
            hash,
            remembered: Arc::clone(&self.remembered),
            anchor: Arc::clone(&self.anchor),
        };
        let looking = std::thread::Builder::new().name("ana-asker".to_owned()).spawn(move || {
            // Nobody waits for it any more if it took too long.
            drop(teller.send(look.take()));
            drop(permit);
        });
        if looking.is_ok()
            && let Ok(Ok(Ok(seen))) = tokio::task::spawn_blocking(move || told.recv_timeout(LIMIT)).await
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

/// One look at a process, in a thread of its own, with no descriptor of ours: what it waits for may never come, and must
/// hold nothing open.
struct Look {
    pid: Pid,
    exe: FileKey,
    common: Arc<Common>,
    hash: bool,
    remembered: Arc<Remembered>,
    anchor: Arc<EventFd>,
}

impl Look {
    fn take(self) -> io::Result<Seen> {
        sys::thread::with_no_descriptor_but(self.anchor.as_fd())?;
        let pid = self.pid;
        if !self.runs_it_still()? {
            // What it runs now has not asked.
            return Ok(Seen { program: None, argv: Vec::new(), cwd: None });
        }
        let program = self.program().unwrap_or_default();
        let mut arguments = sys::process::small_file(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if arguments.len() > ARGUMENTS_MAX {
            arguments.clear();
        }
        let argv = process::split(&arguments).into_iter().map(Bytes).collect();
        let seen = Seen { program, argv, cwd: process::working_directory(pid).ok() };
        match self.runs_it_still()? {
            true => Ok(seen),
            false => Ok(Seen { program: None, argv: Vec::new(), cwd: None }),
        }
    }

    /// Whether the process runs what it ran when it asked.
    fn runs_it_still(&self) -> io::Result<bool> {
        let path =
            File::options().read(true).custom_flags(libc::O_PATH).open(format!("/proc/{}/exe", self.pid))?;
        Ok(identity::file_key_seen_by(path.as_fd(), self.pid.as_raw().unsigned_abs())? == self.exe)
    }

    fn program(&self) -> io::Result<Option<operation::File>> {
        let file = File::open(format!("/proc/{}/exe", self.pid))?;
        let key = identity::file_key_seen_by(file.as_fd(), self.pid.as_raw().unsigned_abs())?;
        if key != self.exe {
            return Ok(None);
        }
        let Some(sha256) = self.sha256(&file)? else { return Ok(None) };
        files::describe(&file, key, sha256, &self.common.user).map(Some)
    }

    fn sha256(&self, file: &File) -> io::Result<Option<[u8; 32]>> {
        let meta = file.metadata()?;
        if let Some(content) = self.common.hashes.remembered(&meta) {
            return Ok(Some(content.hash));
        }
        let version = (meta.dev(), meta.ino(), meta.size(), meta.ctime(), meta.ctime_nsec());
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.hash {
            let known = remembered.get(&version).map(|known| known.try_lock().map(|hash| *hash));
            return Ok(known.and_then(Result::ok).flatten());
        }
        if remembered.len() >= HASHES_MAX && !remembered.contains_key(&version) {
            remembered.clear();
        }
        let known = Arc::clone(remembered.entry(version).or_default());
        drop(remembered);
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none() {
            *known = Some(self.common.hashes.of(file)?);
        }
        Ok(*known)
    }
}
