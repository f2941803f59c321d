//! The exec gate: a protected program stops before its first instruction, a protected script before it is read.
//!
//! 1. fanotify blocks the exec inside the kernel, with the file already resolved ([`answerer`]);
//! 2. a worker moves the process into a frozen cgroup of its own, arms the guard for exactly this file and lets the exec
//!    complete: the freezer stops the new image before its first instruction (`hold.rs`);
//! 3. the frozen image is read ([`Held`]), judged by others, and goes on with a [`Ticket`] or dies.

pub mod admitted;
pub mod answerer;
mod armed;
mod call;
mod compiled;
mod exclusive;
mod hold;
mod judged;
pub mod look;
mod open;
mod passage;
pub mod place;
pub mod privilege;
pub mod protected;
pub mod quick;
pub mod replaced;
pub mod reports;
mod route;
mod script;

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nix::unistd::Pid;
use tokio::sync::watch;

pub use self::judged::JudgedImages;
use self::{
    admitted::Admitted,
    answerer::Blocked,
    armed::ArmedHold,
    exclusive::{Exclusive, Standstill},
    passage::{Approved, Passage},
    privilege::Gain,
    protected::{Protected, ProtectedFiles, Stat},
    reports::Router,
};
use super::{
    Ticket,
    arguments::{self, Lookups},
    files::{self, Hashes},
    image::Memory,
    process::{Baseline, Image},
    tell::{Refusal, Teller},
};
use crate::{
    evidence::Recorded,
    kernel::{KernelError, Maps, identity},
    launch::{
        cgroup::{CgroupError, SessionCgroup},
        spec::Identity,
    },
    operation::{self, Bytes},
    policy::Action,
};

/// How long an exec that was let through may take to come to its first instruction, and the image to be read. Longer:
/// the process is killed (an agent can stall an exec, on a page of a FUSE file say).
const ARRIVAL_LIMIT: Duration = Duration::from_secs(10);
/// How long the files of an exec may take to be hashed: a large one on a slow disk takes its time.
const HASH_LIMIT: Duration = Duration::from_secs(60);
/// Execs that are on their way into a hold at a time; more are refused.
const IN_FLIGHT_MAX: usize = 512;

/// Why an operation could not be stopped in an orderly way. Every one of these is a denial.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    #[error("protect {path}", path = path.display())]
    Protect { path: PathBuf, source: io::Error },
    #[error("watch what replaces protected files")]
    Watch(#[source] io::Error),
    #[error("hold the process")]
    Cgroup(#[from] CgroupError),
    #[error("talk to the guard")]
    Kernel(#[from] KernelError),
    #[error("read what is to be executed")]
    Read(#[from] io::Error),
    #[error("the process did not come to its first instruction within {} s", ARRIVAL_LIMIT.as_secs())]
    Stalled,
    #[error("its files could not be read within {} s", HASH_LIMIT.as_secs())]
    Slow,
    #[error("the process ended")]
    Ended,
    #[error("{IN_FLIGHT_MAX} execs of protected programs are on their way already")]
    TooMany,
    #[error("another thread of the program goes on while one executes a protected file")]
    Concurrent,
    #[error(transparent)]
    Script(#[from] script::ScriptError),
    #[error("this file is marked, but not one of the protected ones")]
    UnknownFile,
    #[error("only an interpreter may open a protected file, and only a script, to read it; run it instead")]
    NotAnInterpreter,
    #[error("its rule is exclusive, and process {0} of the session could not be stopped")]
    Restless(Pid),
    #[error("a file was changed after it was judged")]
    Changed,
}

/// The execs that are on their way into a hold.
#[derive(Default)]
pub struct OnTheirWay(Mutex<HashMap<Pid, OnItsWay>>);

impl OnTheirWay {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Pid, OnItsWay>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether what this process opens belongs to one of them.
    pub fn has(&self, pid: Pid) -> bool {
        self.lock().contains_key(&pid)
    }
}

/// The protected files of one exec that is on its way.
#[derive(Default)]
struct OnItsWay {
    files: Vec<(Stat, Arc<Protected>)>,
    /// Every other thread of the process has stopped: what the process opens now, its exec opens.
    alone: bool,
}

/// What all parts of a session's gate have in common: whoever answers, lets through, holds or watches.
pub struct Common {
    pub maps: Maps,
    pub protected: Arc<ProtectedFiles>,
    pub admitted: Admitted,
    /// Which processes run what was judged.
    pub judged: JudgedImages,
    pub on_their_way: OnTheirWay,
    pub hashes: Hashes,
    pub user: Identity,
    /// Groups that give no power.
    pub harmless_groups: HashSet<u32>,
    /// Known once the agent has been forked.
    pub baseline: watch::Receiver<Option<Arc<Baseline>>>,
}

/// The gate of one session.
pub struct ExecGate {
    pub common: Arc<Common>,
    pub cgroup: Arc<SessionCgroup>,
    pub router: Router,
    lookups: Lookups,
    pub teller: Teller,
    /// Taken by whoever looks whether a process has stopped.
    looks: Mutex<()>,
    exclusive: Exclusive,
}

impl ExecGate {
    pub fn new(common: Arc<Common>, cgroup: Arc<SessionCgroup>, router: Router) -> Self {
        Self {
            lookups: Lookups::new(common.user.clone(), Arc::clone(&common.protected)),
            teller: Teller::new(common.user.clone()),
            common,
            cgroup,
            router,
            looks: Mutex::default(),
            exclusive: Exclusive::default(),
        }
    }

    /// What the agent was started with; waits for it, briefly: the agent's own exec comes before we hear of its pid.
    async fn baseline(&self) -> Result<Arc<Baseline>, GateError> {
        let mut baseline = self.common.baseline.clone();
        let known = baseline.wait_for(Option::is_some);
        let known =
            tokio::time::timeout(ARRIVAL_LIMIT, known).await.map_err(|_elapsed| GateError::Stalled)?;
        known.ok().and_then(|value| value.clone()).ok_or(GateError::Ended)
    }

    /// Looks at the process, which may block, within the limit for that.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, GateError> + Send + 'static,
    ) -> Result<T, GateError> {
        self.within(ARRIVAL_LIMIT, work).await.unwrap_or(Err(GateError::Stalled))
    }

    /// Hashes files, within the limit for that.
    async fn hashing<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, GateError> + Send + 'static,
    ) -> Result<T, GateError> {
        self.within(HASH_LIMIT, work).await.unwrap_or(Err(GateError::Slow))
    }

    /// `None`: it takes longer.
    async fn within<T: Send + 'static>(
        self: &Arc<Self>,
        limit: Duration,
        work: impl FnOnce(&Self) -> Result<T, GateError> + Send + 'static,
    ) -> Option<Result<T, GateError>> {
        let gate = Arc::clone(self);
        let task = tokio::task::spawn_blocking(move || work(&gate));
        let ended = tokio::time::timeout(limit, task).await.ok()?;
        Some(ended.unwrap_or_else(|panicked| Err(GateError::Read(io::Error::other(panicked)))))
    }
}

/// What came of an event.
pub enum Arrival {
    /// Stopped; it waits for a [`Ticket`].
    Held(Box<Held>),
    /// Not to be held at all: it is still blocked, so that its process can be told; dropping it denies.
    Refused(Blocked, GateError),
    /// Nothing is left to be decided: a failed exec, a file that the process was approved to read.
    Passed,
}

/// An operation that is stopped in the kernel. Dropping it denies it.
#[must_use = "a held process waits until it is resumed or refused"]
pub struct Held {
    gate: Arc<ExecGate>,
    pub pid: Pid,
    pub process: Arc<OwnedFd>,
    /// The protected files of this exec: one, or a script and its interpreter.
    pub protected: Vec<Arc<Protected>>,
    pub subject: Subject,
    /// What the exec gained beyond what the caller had.
    pub gain: Option<Gain>,
    /// A script that was executed: its own arguments.
    pub script_arguments: Option<Vec<Vec<u8>>>,
    /// The judged file as the event gave it, and what was judged.
    file: Arc<File>,
    stat: Stat,
    hash: [u8; 32],
    /// The memory of the judged image.
    memory: Memory,
    /// The image is env's, on its way to the script's interpreter.
    passage: Option<Passage>,
    stop: Stop,
    /// The rule is exclusive. Dropped after `stop`.
    standstill: Option<Arc<Standstill>>,
}

/// What is to be judged.
#[derive(Debug)]
pub struct Subject {
    pub image: Image,
    pub program: operation::File,
    pub script: Option<operation::Script>,
    /// Looked up once it is known that a person is asked.
    pub argument_files: Vec<operation::ArgumentFile>,
    /// Nothing else of the session runs until it has ended.
    pub exclusive: bool,
}

impl Subject {
    /// The exec's part of the operation.
    pub fn exec(&self, nonce: &str, baseline: &Baseline) -> operation::Exec {
        operation::Exec {
            program: self.program.clone(),
            script: self.script.clone(),
            argv: self.image.argv.iter().map(|argument| Bytes(argument.clone())).collect(),
            cwd: self.image.cwd.clone(),
            environment: super::process::environment(&self.image.environment, nonce, baseline),
            ids: self.image.ids.clone(),
            foreign_namespaces: self.image.foreign_namespaces.clone(),
            argument_files: self.argument_files.clone(),
            exclusive: self.exclusive,
        }
    }
}

/// How the process is stopped.
enum Stop {
    /// Frozen at the first instruction of the new image.
    Frozen(ArmedHold),
    /// Blocked in open(2).
    Blocked(Blocked),
    /// Resumed or refused.
    Over,
}

impl Held {
    /// Looks up the files that the arguments name: a person will be asked about them.
    ///
    /// # Errors
    /// The process has gone.
    pub async fn look_up_arguments(&mut self) -> Result<(), GateError> {
        self.subject.argument_files = self.arguments_within(arguments::LIMIT).await?;
        Ok(())
    }

    async fn arguments_within(&self, limit: Duration) -> Result<Vec<operation::ArgumentFile>, GateError> {
        // A script is shown by itself.
        let script = self.subject.script.is_some().then_some(self.stat);
        Ok(self.gate.lookups.of(self.pid, &self.subject.image.argv, script, limit).await?)
    }

    /// Lets the operation go on; gives the decision back for the record of its outcome, if its end will be reported.
    ///
    /// # Errors
    /// When it cannot go on as it was judged: it has been killed then.
    pub async fn resume(mut self, ticket: Ticket) -> Result<Option<Recorded>, GateError> {
        let gate = Arc::clone(&self.gate);
        if self.changed(&ticket).await? {
            let operation = Arc::clone(ticket.recorded().decided().operation());
            self.refuse(Refusal::of(&operation, GateError::Changed.to_string())).await;
            return Err(GateError::Changed);
        }
        let (pid, process) = (self.pid, Arc::clone(&self.process));
        let stop = std::mem::replace(&mut self.stop, Stop::Over);
        if let Stop::Frozen(_) = stop {
            self.note_image();
        }
        let passage = self.passage.take();
        if self.subject.script.is_some() && passage.is_none() {
            gate.common.admitted.admit(pid, process.clone(), self.stat, self.hash, self.memory);
        }
        match stop {
            Stop::Frozen(hold) => {
                if self.gain.is_some() {
                    // What it does with it is its own affair: the guard must not kill it for that.
                    gate.common.maps.privileged(self.pid.as_raw().unsigned_abs())?;
                }
                // A full table only costs the outcome record.
                let watched = gate.common.maps.watch(pid.as_raw().unsigned_abs()).is_ok();
                match (passage, self.standstill.take()) {
                    (Some(passage), still) => {
                        let approved = Approved { pid, process, script: self.stat, hash: self.hash };
                        gate.pass(hold, passage, approved, still).await?;
                    }
                    (None, Some(still)) => exclusive::release(hold, process.try_clone()?, still)?,
                    (None, None) => hold.release()?,
                }
                Ok(watched.then(|| ticket.into_recorded()))
            }
            Stop::Blocked(blocked) => {
                blocked.allow()?;
                Ok(None)
            }
            Stop::Over => Ok(None),
        }
    }

    /// The process runs what was judged, until it executes something else.
    fn note_image(&self) {
        let (image, program) = (&self.subject.image, &self.subject.program);
        let is_program = |file: &&Arc<Protected>| {
            file.key.ino.to_string() == program.inode
                && format!("{}:{}", file.key.major(), file.key.minor()) == program.dev
        };
        if let Some(file) = self.protected.iter().find(is_program)
            && let Ok(started) = image.requester.start_time.parse()
        {
            self.gate.common.judged.add(self.pid, started, file.key, file.listed.clone());
        }
    }

    /// Whether a file that was judged has another content now.
    async fn changed(&self, ticket: &Ticket) -> Result<bool, GateError> {
        if self.subject.script.is_some() {
            // An executable that runs cannot be written (ETXTBSY); a script can.
            let file = Arc::clone(&self.file);
            if self.gate.hashing(move |gate| Ok(gate.common.hashes.of(&file)?)).await? != self.hash {
                return Ok(true);
            }
        }
        if ticket.recorded().decided().verdict().action != Action::Approve {
            return Ok(false);
        }
        let now = self.arguments_within(arguments::AGAIN_LIMIT).await?;
        Ok(!arguments::unchanged(&self.subject.argument_files, &now))
    }

    /// Ends the operation: tells the process why, then kills it (or fails its open with EPERM).
    pub async fn refuse(mut self, refusal: Refusal) {
        self.gate.teller.tell(Arc::clone(&self.process), refusal).await;
        self.end();
    }

    fn end(&mut self) {
        match std::mem::replace(&mut self.stop, Stop::Over) {
            Stop::Frozen(hold) => drop(hold),
            Stop::Blocked(blocked) => drop(blocked),
            Stop::Over => {}
        }
    }
}

/// The identity and hash of the program that a stopped process runs.
fn program_of(gate: &ExecGate, pid: Pid) -> Result<operation::File, GateError> {
    let file = File::open(format!("/proc/{pid}/exe"))?;
    let key = identity::file_key_seen_by(file.as_fd(), pid.as_raw().unsigned_abs())?;
    Ok(files::describe(&file, key, gate.common.hashes.of(&file)?, &gate.common.user)?)
}
