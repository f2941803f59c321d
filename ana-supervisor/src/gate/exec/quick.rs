//! The quick way: a protected program whose arguments the policy allows is not held. The arguments and the environment
//! are read while the exec is blocked, judged, and told to the guard, which compares them byte for byte with what is
//! executed in the end, and kills on a difference. Whatever is not as simple as that is held.

use std::{
    fs,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use nix::unistd::Pid;
use tokio::sync::oneshot;

use super::{
    Common,
    answerer::Blocked,
    call::Call,
    look::Seen,
    protected::{Protected, Stat},
};
use crate::{
    evidence::notes::{Note, Noted, Notes},
    gate::process::{self, Baseline, Threads},
    operation::Bytes,
    policy::{Action, Policy, Verdict},
    sys::{self, process::Info},
};

/// What was let through and is not written down yet; with more, everything is held, which is written down first.
const UNWRITTEN_MAX: usize = 1024;
/// How often a full disk is asked for room.
const ROOM_AGAIN: Duration = Duration::from_secs(1);

/// An exec that may be let through.
#[derive(Debug)]
pub struct Request {
    pub blocked: Blocked,
    pub stat: Stat,
    pub object: Arc<Protected>,
    pub meta: fs::Metadata,
    pub info: Option<Info>,
}

/// An exec that was let through, for the evidence.
#[derive(Debug)]
pub struct Passed {
    pub pid: Pid,
    pub process: Arc<OwnedFd>,
    pub argv: Vec<Bytes>,
    /// The block of it.
    pub environment: Vec<u8>,
    pub verdict: Verdict,
    pub object: Arc<Protected>,
    pub file: Arc<fs::File>,
    pub known: Known,
    pub at: jiff::Timestamp,
    pub note: Note,
}

/// What the quick way needs to decide.
pub struct Quick {
    /// Nothing is quick before its baseline is known.
    pub common: Arc<Common>,
    pub policy: Arc<Policy>,
    pub passed: Ledger,
    /// Of what is not in the evidence yet.
    pub notes: Notes,
}

impl Quick {
    /// Whether a look at the arguments can be worth it.
    pub fn may(&self, object: &Protected) -> bool {
        // What a program may connect to depends on its image having been judged.
        let connects = self.policy.connect_rules().iter().flat_map(crate::policy::ConnectRule::exe);
        !object.privileged
            && self.policy.may_allow(&object.paths())
            && !connects.into_iter().any(|exe| object.listed.iter().any(|listed| listed == exe))
    }

    /// The caller, and the program's hash, if they are nothing special.
    pub fn plain(&self, request: &Request) -> Option<(Info, [u8; 32])> {
        // The file of root's alone whose content is known already; any other is hashed first.
        let content = self.common.hashes.remembered(&request.meta)?;
        let info = match request.info {
            Some(info) => info,
            None => process::info(request.blocked.pid).ok()?,
        };
        let plain = info.uid == self.common.user.uid && info.euid == info.uid && info.egid == info.gid;
        (plain && content.executable).then_some((info, content.hash))
    }

    /// Lets the exec go on, if the policy allows what was seen and nothing is special about it.
    ///
    /// # Errors
    /// Gives it back when it has to be held.
    pub fn finish(&self, attempt: Attempt, seen: Seen) -> Result<(), Blocked> {
        let Attempt { request: Request { blocked, stat, object, .. }, known } = attempt;
        let (pid, file) = (blocked.pid, Arc::clone(&blocked.file));
        let Ok(Some(call)) = seen else { return Err(blocked) };
        let verdict = self.policy.judge_exec(&object.paths(), &call.argv);
        if verdict.action != Action::Allow
            || verdict.exclusive
            || !process::changed_hooks(&call.environment, &known.baseline).is_empty()
        {
            return Err(blocked);
        }
        let (Some(block), Some(entry)) = (call.block(), self.passed.entry()) else { return Err(blocked) };
        let Call { argv, environment } = call;
        let argv: Vec<Bytes> = argv.into_iter().map(Bytes).collect();
        let (tgid, at) = (pid.as_raw().unsigned_abs(), jiff::Timestamp::now());
        let Some(note) = self.note(pid, &object, &argv, &verdict.rule, at) else { return Err(blocked) };
        if self.common.maps.expect(tgid, object.key, known.started, &block).is_err() {
            note.settle();
            return Err(blocked);
        }
        self.common.admitted.owe(pid, &blocked.process, stat);
        let process = Arc::clone(&blocked.process);
        let allowed = blocked.allow().is_ok();
        if !allowed || sys::process::ended(process.as_fd()).unwrap_or(true) {
            // It has died, perhaps before the guard was told of it: its number will be another's.
            self.common.admitted.settle(pid);
            self.common.maps.forget_expected(tgid, known.started).ok();
        }
        if !allowed {
            note.settle();
            return Ok(());
        }
        entry.write(Passed { pid, process, argv, environment, verdict, object, file, known, at, note });
        Ok(())
    }

    /// So that it is known of even if nobody is left to write it down. `None`: it cannot be noted.
    fn note(
        &self,
        pid: Pid,
        object: &Protected,
        argv: &[Bytes],
        rule: &str,
        at: jiff::Timestamp,
    ) -> Option<Note> {
        let (program, at) = (object.name(), format!("{at:.3}"));
        self.notes.write(&Noted { program: &program, argv, rule, pid: pid.as_raw(), at: &at }).ok()
    }

    /// What else can be known of the caller without looking into its memory. `None`: something about it is special.
    pub fn known(&self, blocked: &Blocked, (info, hash): (Info, [u8; 32])) -> Option<Known> {
        let baseline = self.common.baseline.borrow().clone()?;
        let Threads { count, started } = process::threads(blocked.pid).ok()?;
        if count != 1 {
            return None;
        }
        // Without a user namespace of its own it has none of the other kinds, either, nor another root.
        let namespace = fs::metadata(format!("/proc/{}/ns/user", blocked.pid)).ok()?.ino();
        if !baseline.namespaces.is_user(namespace) {
            return None;
        }
        let cwd = process::working_directory(blocked.pid).ok()?;
        Some(Known { baseline, hash, cwd, parent: info.parent, started })
    }
}

/// An exec whose arguments are being looked at.
pub struct Attempt {
    pub request: Request,
    pub known: Known,
}

impl Attempt {
    pub fn give_up(self) -> Blocked {
        self.request.blocked
    }
}

/// What is known of an exec before its memory has been looked into.
#[derive(Debug)]
pub struct Known {
    pub baseline: Arc<Baseline>,
    pub hash: [u8; 32],
    pub cwd: Bytes,
    pub parent: i32,
    pub started: u64,
}

/// What was let through, on its way to the evidence.
#[derive(Clone, Debug, Default)]
pub struct Ledger(Arc<Book>);

#[derive(Debug, Default)]
struct Book {
    lines: Mutex<Lines>,
    told: Condvar,
    /// Lines that the evidence has not taken over.
    unwritten: AtomicUsize,
    /// The disk has no room for more.
    full: AtomicBool,
}

#[derive(Debug, Default)]
struct Lines {
    lines: Vec<Line>,
    /// They are to be taken.
    told: bool,
}

/// What the [`Ledger`] carries.
#[derive(Debug)]
pub enum Line {
    Passed(Box<Passed>),
    /// Told when everything before it has been written.
    Flush(oneshot::Sender<()>),
}

/// Room for one line in the [`Ledger`].
struct Room<'a>(&'a Book);

impl Ledger {
    fn entry(&self) -> Option<Room<'_>> {
        let unwritten = self.0.unwritten.fetch_add(1, Ordering::Relaxed);
        let room = Room(&self.0);
        (unwritten < UNWRITTEN_MAX && !self.0.full.load(Ordering::Relaxed)).then_some(room)
    }

    /// Has the lines taken that are there.
    pub fn tell(&self) {
        self.0.lock().told = true;
        self.0.told.notify_one();
    }

    /// Waits until somebody [`tells`](Self::tell), and takes the lines; while there is no room on the disk not for long,
    /// so that somebody looks whether there is again.
    pub fn take(&self) -> Vec<Line> {
        let lines = self.0.lock();
        let untold = |lines: &mut Lines| !lines.told;
        let limit = if self.0.full.load(Ordering::Relaxed) { ROOM_AGAIN } else { Duration::MAX };
        let waited = self.0.told.wait_timeout_while(lines, limit, untold);
        let (mut lines, _) = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *lines).lines
    }

    /// Waits until everything that was let through so far has been written.
    pub async fn flush(&self) {
        let (done, written) = oneshot::channel();
        self.0.lock().lines.push(Line::Flush(done));
        self.tell();
        written.await.ok();
    }

    /// One line has been taken over by the evidence.
    pub fn written(&self) {
        self.0.unwritten.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether the disk has no room for more: then nothing is let through.
    pub fn full(&self, full: bool) {
        self.0.full.store(full, Ordering::Relaxed);
    }
}

impl Book {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Room<'_> {
    fn write(self, passed: Passed) {
        self.0.lock().lines.push(Line::Passed(Box::new(passed)));
        // It is given back by `written`.
        std::mem::forget(self);
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.0.unwritten.fetch_sub(1, Ordering::Relaxed);
    }
}
