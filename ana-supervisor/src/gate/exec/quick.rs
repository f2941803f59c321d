//! The quick way: a protected program whose arguments the policy allows is not held. The arguments and the environment
//! are read while the exec is blocked, judged, and told to the guard, which compares them byte for byte with what is
//! executed in the end, and kills on a difference. Whatever is not as simple as that is held.

use std::{
    fs,
    os::{fd::AsFd, unix::fs::MetadataExt},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::{
    mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    oneshot,
};

use super::{
    Common,
    answerer::Blocked,
    call::Call,
    look::Looker,
    protected::{self, Protected, Stat},
};
use crate::{
    evidence::Store,
    gate::process::{self, Baseline, Threads},
    operation::Bytes,
    policy::{Action, Policy, Verdict},
    sys::{self, process::Info},
};

/// What was let through and is not written down yet; with more, everything is held, which is written down first.
const UNWRITTEN_MAX: usize = 1024;

/// An exec that may be let through.
#[derive(Debug)]
pub struct Request {
    pub blocked: Blocked,
    pub stat: Stat,
    pub object: Arc<Protected>,
    pub info: Option<Info>,
}

/// An exec that was let through, for the evidence.
#[derive(Debug)]
pub struct Passed {
    pub pid: nix::unistd::Pid,
    pub call: Call,
    pub verdict: Verdict,
    pub object: Arc<Protected>,
    pub file: Arc<fs::File>,
    pub hash: [u8; 32],
    pub cwd: Bytes,
    pub parent: i32,
    pub started: u64,
    pub at: jiff::Timestamp,
}

/// What the quick way needs to decide.
pub struct Quick {
    /// Nothing is quick before its baseline is known.
    pub common: Arc<Common>,
    pub policy: Arc<Policy>,
    /// What is let through is written down later: there has to be room for it now.
    pub store: Arc<Store>,
    pub passed: Ledger,
}

impl Quick {
    /// Whether a look at the arguments can be worth it.
    pub fn may(&self, object: &Protected) -> bool {
        !object.privileged && self.policy.may_allow(&object.paths())
    }

    /// Lets the exec go on, if the policy allows it and nothing is special about it.
    ///
    /// # Errors
    /// Gives it back when it has to be held.
    pub fn attempt(&self, looker: &mut Looker, request: Request) -> Result<(), Blocked> {
        let Request { blocked, stat, object, info } = request;
        let Some(known) = self.known(&blocked, info) else { return Err(blocked) };
        let (pid, file) = (blocked.pid, Arc::clone(&blocked.file));
        let Ok(Some(call)) = looker.read(pid) else { return Err(blocked) };
        let verdict = self.policy.judge_exec(&object.paths(), &call.argv);
        if verdict.action != Action::Allow
            || verdict.exclusive
            || !process::changed_hooks(&call.environment, &known.baseline).is_empty()
        {
            return Err(blocked);
        }
        let Some(block) = call.block() else { return Err(blocked) };
        let (Some(entry), Ok(())) = (self.passed.entry(), self.store.room()) else { return Err(blocked) };
        let tgid = pid.as_raw().unsigned_abs();
        if self.common.maps.expect(tgid, object.key, known.started, &block).is_err() {
            return Err(blocked);
        }
        self.common.admitted.owe(pid, &blocked.process, stat);
        let process = Arc::clone(&blocked.process);
        let allowed = blocked.allow().is_ok();
        if !allowed || sys::process::ended(process.as_fd()).unwrap_or(true) {
            // It has died, perhaps before the guard was told of it: its number will be another's.
            self.common.admitted.settle(pid);
            self.common.maps.forget_expected(tgid).ok();
        }
        if !allowed {
            return Ok(());
        }
        let Known { hash, cwd, parent, started, .. } = known;
        let at = jiff::Timestamp::now();
        entry.write(Passed { pid, call, verdict, object, file, hash, cwd, parent, started, at });
        Ok(())
    }

    /// What can be known of the caller without looking into its memory. `None`: something about it is special.
    fn known(&self, blocked: &Blocked, info: Option<Info>) -> Option<Known> {
        let baseline = self.common.baseline.borrow().clone()?;
        let info = match info {
            Some(info) => info,
            None => process::info(blocked.pid).ok()?,
        };
        let plain = info.uid == self.common.user.uid && info.euid == info.uid && info.egid == info.gid;
        if !plain || !protected::is_executable_image(&blocked.file) {
            return None;
        }
        // The file of root's alone whose content is known already; any other is hashed first.
        let hash = self.common.hashes.remembered(&blocked.file)?;
        let Threads { count, started } = process::threads(blocked.pid).ok()?;
        // Without a user namespace of its own it has none of the other kinds, either.
        let namespace = fs::metadata(format!("/proc/{}/ns/user", blocked.pid)).ok()?.ino();
        if count != 1 || !baseline.namespaces.is_user(namespace) {
            return None;
        }
        let cwd = process::working_directory(blocked.pid).ok()?;
        Some(Known { baseline, hash, cwd, parent: info.parent, started })
    }
}

struct Known {
    baseline: Arc<Baseline>,
    hash: [u8; 32],
    cwd: Bytes,
    parent: i32,
    started: u64,
}

/// What was let through, on its way to the evidence.
#[derive(Clone, Debug)]
pub struct Ledger {
    sender: UnboundedSender<Line>,
    unwritten: Arc<AtomicUsize>,
}

/// What the [`Ledger`] carries.
#[derive(Debug)]
pub enum Line {
    Passed(Box<Passed>),
    /// Told when everything before it has been written.
    Flush(oneshot::Sender<()>),
}

/// Room for one line in the [`Ledger`].
struct Room<'a>(&'a Ledger);

impl Ledger {
    pub fn new() -> (Self, UnboundedReceiver<Line>) {
        let (sender, receiver) = unbounded_channel();
        (Self { sender, unwritten: Arc::default() }, receiver)
    }

    fn entry(&self) -> Option<Room<'_>> {
        if self.unwritten.fetch_add(1, Ordering::Relaxed) < UNWRITTEN_MAX {
            return Some(Room(self));
        }
        self.written();
        None
    }

    /// Waits until everything that was let through so far has been written.
    pub async fn flush(&self) {
        let (done, written) = oneshot::channel();
        // No writer: there is nothing left to be written.
        if self.sender.send(Line::Flush(done)).is_ok() {
            written.await.ok();
        }
    }

    /// One line has been taken over by the evidence.
    pub fn written(&self) {
        self.unwritten.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Room<'_> {
    fn write(self, passed: Passed) {
        let Self(ledger) = &self;
        if ledger.sender.send(Line::Passed(Box::new(passed))).is_ok() {
            // It is given back by `written`.
            std::mem::forget(self);
        }
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.0.written();
    }
}
