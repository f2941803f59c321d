//! Appending: under the lock, one write, one sync, and only then success. Records that come while another one is being
//! synced are written together.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use nix::fcntl::{Flock, FlockArg, OFlag};
use serde_json::json;

use super::error::EvidenceError;
use super::record::{Entry, Event, Payload};
use super::sign::Signer;
use super::{LOCK, Notes, SEGMENT_BYTES_MAX, VERSION, chain, notes, read};
use crate::state::{Folder, State};

mod batch;
pub(super) mod open;
mod room;
mod tail;

use batch::{Answer, Batch, Waiting};
use open::Open;
use tail::Tail;

/// Proof that a record is on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The record's place in the log, from 1.
    pub seq: u64,
    /// SHA-256 of its line, base64url.
    pub hash: String,
}

/// The log, open for appending. Any number of processes may have it open; threads share one.
pub struct Store {
    folder: Folder,
    /// Where the heads and the open sessions are kept.
    base: Folder,
    /// Where the sessions' notes are.
    run: Folder,
    signer: Signer,
    host: String,
    development: Arc<OnceLock<String>>,
    /// What waits for its turn; whoever gets the turn writes all of it.
    waiting: Mutex<Vec<Waiting>>,
    tail: Mutex<Option<Tail>>,
    /// The system journal's socket.
    pub(super) journal: PathBuf,
    pub(super) disk: Disk,
    pub(super) segment_bytes_max: u64,
    /// What is kept free for the ends of sessions, as [`Store::room`] says.
    pub(super) reserve_bytes: u64,
}

/// The two calls that decide whether a record is there; tests put failing ones in their place.
pub(super) struct Disk {
    pub(super) write: Box<Write>,
    pub(super) sync: Box<Sync>,
}

type Write = dyn Fn(&File, &[u8]) -> io::Result<usize> + Send + std::marker::Sync;
type Sync = dyn Fn(&File) -> io::Result<()> + Send + std::marker::Sync;

impl Default for Disk {
    fn default() -> Self {
        Self { write: Box::new(|mut file, bytes| file.write(bytes)), sync: Box::new(File::sync_data) }
    }
}

impl Store {
    /// Opens the log and the signing key, which is made on first use.
    ///
    /// # Errors
    /// The folders cannot be used, the key is unusable, or the end of the log is damaged.
    pub fn open(state: &State) -> Result<Self, EvidenceError> {
        let folder = state.evidence_dir().try_clone()?;
        let base = state.base_dir().try_clone()?;
        let run = state.run_dir().try_clone()?;
        let lock = lock(&folder)?;
        let signer = Signer::open(state)?;
        // A damaged log is told now, not at the first decision.
        Tail::find(&folder)?;
        drop(lock);
        let host = nix::unistd::gethostname().map_err(EvidenceError::Host)?.to_string_lossy().into_owned();
        Ok(Self {
            folder,
            base,
            run,
            signer,
            host,
            development: state.mark(),
            waiting: Mutex::default(),
            tail: Mutex::new(None),
            journal: super::head::SOCKET.into(),
            disk: Disk::default(),
            segment_bytes_max: SEGMENT_BYTES_MAX,
            reserve_bytes: room::RESERVE_BYTES,
        })
    }

    /// Appends a record. When this returns `Ok`, the record is on the disk.
    ///
    /// # Errors
    /// The entry contradicts itself, or the record could not be written; what was written of it is cut off again
    /// (now, or before the next record). A decision or a session's start also when the disk is almost full.
    pub fn append(&self, entry: Entry) -> Result<Receipt, EvidenceError> {
        if matches!(entry.event, Event::Decision | Event::SessionStart) {
            self.room()?;
        }
        let waiting = Waiting::new(self.payload(entry)?);
        let answer = waiting.answer();
        self.write_together(vec![waiting]);
        answer.take()
    }

    /// Appends records with one sync, whatever room there is: for what has happened already. Their answers are in the
    /// order of the entries.
    pub(super) fn append_all(&self, entries: Vec<Entry>) -> Vec<Result<Receipt, EvidenceError>> {
        let (mut batch, mut answers) = (Vec::new(), Vec::new());
        for entry in entries {
            answers.push(self.payload(entry).map(|payload| {
                let waiting = Waiting::new(payload);
                let answer = waiting.answer();
                batch.push(waiting);
                answer
            }));
        }
        self.write_together(batch);
        answers.into_iter().map(|answer| answer.and_then(|answer| answer.take())).collect()
    }

    /// Ends the sessions that a supervisor left without an end when it died; to be called at a start, with what tells
    /// whether a session is running and why those that are not have ended. Gives the sessions that were ended.
    ///
    /// # Errors
    /// The log cannot be read, or as [`Store::append`].
    pub fn end_abandoned(
        &self,
        live: &dyn Fn(&str) -> bool,
        cause: &str,
    ) -> Result<Vec<String>, EvidenceError> {
        // Most of the time there is nothing to do, and no reason to keep anybody waiting.
        let open = Open::find(&self.base, &self.folder, read::segments(&self.folder)?)?;
        if open.sessions.iter().all(|session| live(session)) {
            return Ok(Vec::new());
        }
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let _lock = lock(&self.folder)?;
        // Again, under the lock: another process may be at it too.
        let open = Open::find(&self.base, &self.folder, read::segments_locked(&self.folder)?)?;
        let mut abandoned = open.sessions;
        abandoned.retain(|session| !live(session));
        let mut answers = Vec::new();
        let mut batch = Vec::new();
        for session in &abandoned {
            let detail = json!({ "cause": cause, "abandoned": true });
            let end = Entry::new(Event::SessionEnd).session(session).detail(detail);
            for entry in self.noted(session)?.into_iter().chain([end]) {
                let waiting = Waiting::new(self.payload(entry)?);
                answers.push(waiting.answer());
                batch.push(waiting);
            }
        }
        self.write_locked(&mut tail, batch);
        answers.iter().try_for_each(|answer| answer.take().map(drop))?;
        abandoned.iter().for_each(|session| notes::remove(&self.run, session));
        Ok(abandoned)
    }

    /// An empty file for what a session lets go on before it is written down.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn notes(&self, session: &str) -> Result<Notes, EvidenceError> {
        Ok(Notes::create(&self.run, session)?)
    }

    /// Records what a session let go on and could not write down, before its end is. Then there are no notes of it any
    /// more.
    ///
    /// # Errors
    /// As [`Store::append`]; the notes stay.
    pub fn settle_notes(&self, session: &str) -> Result<(), EvidenceError> {
        if let Some(entry) = self.noted(session)? {
            self.append(entry)?;
        }
        notes::remove(&self.run, session);
        Ok(())
    }

    /// The record of what a session has let go on, and nothing else tells of.
    fn noted(&self, session: &str) -> Result<Option<Entry>, EvidenceError> {
        let left = notes::left(&self.run, session)?;
        let detail = json!({
            "reason": "a rule let it go on, and it could not be written down any more: whether it ran is not known",
            "let_through": left,
        });
        Ok((!left.is_empty()).then(|| Entry::new(Event::Loss).session(session).detail(detail)))
    }

    /// The key that signs this machine's records.
    pub fn kid(&self) -> &str {
        self.signer.public().kid()
    }

    /// How many records wait for their turn.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Waits for the turn and writes what waits by then; another thread may have written `batch` before.
    fn write_together(&self, batch: Vec<Waiting>) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).extend(batch);
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let batch = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        if batch.is_empty() {
            return;
        }
        match lock(&self.folder) {
            Ok(_lock) => self.write_locked(&mut tail, batch),
            Err(error) => batch::fail(batch.iter().map(Waiting::answer), error),
        }
    }

    /// Writes a batch under the lock, and answers each of it.
    fn write_locked(&self, tail: &mut Option<Tail>, batch: Vec<Waiting>) {
        let answers: Vec<Arc<Answer>> = batch.iter().map(Waiting::answer).collect();
        let repaired = self.repaired(tail);
        let (tail, loss) = match repaired {
            Ok(found) => found,
            Err(error) => return batch::fail(answers.into_iter(), error),
        };
        let mut lines = Batch::new(self, tail);
        for waiting in loss.into_iter().chain(batch) {
            lines.add(waiting);
        }
        lines.commit();
    }

    /// The end of the log without the unfinished line of a writer that was stopped, and the record of that.
    fn repaired<'a>(
        &self,
        tail: &'a mut Option<Tail>,
    ) -> Result<(&'a mut Tail, Option<Waiting>), EvidenceError> {
        let (tail, torn) = Tail::refresh(tail, &self.folder)?;
        let Some(torn) = torn else { return Ok((tail, None)) };
        tail.cut(&self.folder)?;
        let detail = json!({
            "bytes": torn,
            "segment": chain::segment_name(tail.number),
            "reason": "the unfinished record of a writer that was stopped",
        });
        let loss = Waiting::new(self.payload(Entry::new(Event::Loss).detail(detail))?);
        Ok((tail, Some(loss)))
    }

    fn payload(&self, entry: Entry) -> Result<Payload, EvidenceError> {
        let operation_hash = match &entry.operation {
            Some(operation) => Some(super::human::operation_hash(operation)?),
            None => None,
        };
        let payload = Payload {
            v: VERSION,
            seq: 0,
            prev: String::new(),
            iat: jiff::Timestamp::now().as_second(),
            host: self.host.clone(),
            session: entry.session,
            event: entry.event,
            operation: entry.operation,
            operation_hash,
            verdict: entry.verdict,
            rule: entry.rule,
            policy_sha256: entry.policy_sha256,
            assertion: entry.assertion,
            detail: entry.detail,
            development: self.development.get().is_some(),
        };
        payload.check().map_err(EvidenceError::Entry)?;
        Ok(payload)
    }

    fn write(&self, tail: &Tail, line: &[u8]) -> io::Result<()> {
        let mut rest = line;
        while !rest.is_empty() {
            match (self.disk.write)(&tail.file, rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        (self.disk.sync)(&tail.file)
    }
}

/// Waits for the lock that orders the writers. It is a file of its own, closed to everybody else (0600 in a 0700
/// folder): flock works on any file that one can read. Opened anew each time, so that a forked child never shares it
/// for longer than one append.
pub(crate) fn lock(folder: &Folder) -> Result<Flock<File>, EvidenceError> {
    hold(folder, OFlag::O_RDWR | OFlag::O_CREAT, FlockArg::LockExclusive)
}

/// The lock for readers: no record is half there while it is held. `None` where there is no lock file (a copy).
pub(crate) fn lock_shared(folder: &Folder) -> Result<Option<Flock<File>>, EvidenceError> {
    match hold(folder, OFlag::O_RDONLY, FlockArg::LockShared) {
        Err(EvidenceError::State(error)) if error.is_missing() => Ok(None),
        lock => lock.map(Some),
    }
}

fn hold(folder: &Folder, flags: OFlag, how: FlockArg) -> Result<Flock<File>, EvidenceError> {
    let mut file = folder.open_file(LOCK, flags, 0o600)?;
    loop {
        match Flock::lock(file, how) {
            Ok(lock) => return Ok(lock),
            Err((again, nix::errno::Errno::EINTR)) => file = again,
            Err((_, errno)) => {
                let path: PathBuf = folder.path().join(LOCK);
                return Err(EvidenceError::Write { path, source: errno.into() });
            }
        }
    }
}
