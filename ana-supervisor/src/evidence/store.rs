//! Appending: under the lock, one write, one sync, and only then success.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use nix::fcntl::{Flock, FlockArg, OFlag};
use serde_json::json;

use super::error::EvidenceError;
use super::record::{Entry, Event, Payload};
use super::sign::Signer;
use super::{LINE_BYTES_MAX, LOCK, SEGMENT_BYTES_MAX, VERSION, chain};
use crate::state::{Folder, State};

mod tail;

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
    signer: Signer,
    host: String,
    development: Arc<OnceLock<String>>,
    tail: Mutex<Option<Tail>>,
    /// The system journal's socket.
    pub(super) journal: PathBuf,
    pub(super) disk: Disk,
    pub(super) segment_bytes_max: u64,
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
        let lock = lock(&folder)?;
        let signer = Signer::open(state)?;
        // A damaged log is told now, not at the first decision.
        Tail::find(&folder)?;
        drop(lock);
        let host = nix::unistd::gethostname().map_err(EvidenceError::Host)?.to_string_lossy().into_owned();
        Ok(Self {
            folder,
            signer,
            host,
            development: state.mark(),
            tail: Mutex::new(None),
            journal: super::journal::SOCKET.into(),
            disk: Disk::default(),
            segment_bytes_max: SEGMENT_BYTES_MAX,
        })
    }

    /// Appends a record. When this returns `Ok`, the record is on the disk.
    ///
    /// # Errors
    /// The entry contradicts itself, or the record could not be written; what was written of it is cut off again
    /// (now, or before the next record).
    pub fn append(&self, entry: Entry) -> Result<Receipt, EvidenceError> {
        let mut payload = self.payload(entry)?;
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let _lock = lock(&self.folder)?;
        self.append_locked(&mut tail, &mut payload)
    }

    /// Ends the sessions that a supervisor left without an end when it died; to be called at a start, with what tells
    /// whether a session is running. Gives the sessions that were ended.
    ///
    /// # Errors
    /// The log cannot be read, or as [`Store::append`].
    pub fn end_abandoned(&self, live: &dyn Fn(&str) -> bool) -> Result<Vec<String>, EvidenceError> {
        // Most of the time there is nothing to do, and no reason to keep anybody waiting.
        if super::read::open_sessions(&self.folder)?.iter().all(|session| live(session)) {
            return Ok(Vec::new());
        }
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let _lock = lock(&self.folder)?;
        // Again, under the lock: another process may be at it too.
        let mut abandoned = super::read::open_sessions_locked(&self.folder)?;
        abandoned.retain(|session| !live(session));
        for session in &abandoned {
            let detail = json!({ "cause": "the supervisor died", "abandoned": true });
            let entry = Entry::new(Event::SessionEnd).session(session).detail(detail);
            self.append_locked(&mut tail, &mut self.payload(entry)?)?;
        }
        Ok(abandoned)
    }

    /// The key that signs this machine's records.
    pub fn kid(&self) -> &str {
        self.signer.public().kid()
    }

    fn append_locked(
        &self,
        tail: &mut Option<Tail>,
        payload: &mut Payload,
    ) -> Result<Receipt, EvidenceError> {
        let (tail, torn) = Tail::refresh(tail, &self.folder)?;
        if let Some(torn) = torn {
            tail.cut(&self.folder)?;
            let detail = json!({
                "bytes": torn,
                "segment": chain::segment_name(tail.number),
                "reason": "the unfinished record of a writer that was stopped",
            });
            self.put(tail, &mut self.payload(Entry::new(Event::Loss).detail(detail))?)?;
        }
        let receipt = self.put(tail, payload)?;
        if payload.event == Event::SessionEnd {
            // The record is on the disk; without a journal (a container) a cut tail shows by the missing end only.
            super::journal::tell(&self.journal, &self.signer, &self.host, &receipt).ok();
        }
        Ok(receipt)
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

    fn put(&self, tail: &mut Tail, payload: &mut Payload) -> Result<Receipt, EvidenceError> {
        payload.seq = tail.seq + 1;
        payload.prev.clone_from(&tail.prev);
        let mut line = self.signer.sign(&serde_json::to_vec(payload)?)?;
        if line.len() > LINE_BYTES_MAX {
            return Err(EvidenceError::TooLong { bytes: line.len(), limit: LINE_BYTES_MAX });
        }
        let hash = chain::link(line.as_bytes());
        line.push('\n');
        if tail.len > 0 && tail.len.saturating_add(line.len() as u64) > self.segment_bytes_max {
            tail.rotate(&self.folder)?;
        }
        if let Err(source) = self.write(tail, line.as_bytes()) {
            // Nobody may find half a record, nor a whole one that we said was not there. If this fails too, the
            // next append cuts off the half one.
            tail.file.set_len(tail.len).and_then(|()| (self.disk.sync)(&tail.file)).ok();
            return Err(EvidenceError::Write { path: tail.path(&self.folder), source });
        }
        tail.len += line.len() as u64;
        tail.seq = payload.seq;
        tail.prev.clone_from(&hash);
        Ok(Receipt { seq: payload.seq, hash })
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
