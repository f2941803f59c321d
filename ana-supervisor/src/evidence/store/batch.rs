//! Group commit: many records, one write, one sync. Each still names the line before it, and each gets its own answer.

use std::sync::{Arc, Mutex, PoisonError};

use super::super::error::EvidenceError;
use super::super::head::Heralds;
use super::super::record::{Event, Payload};
use super::super::{LINE_BYTES_MAX, chain};
use super::tail::Tail;
use super::{Receipt, Store};

/// More bytes than this are not kept back for one sync.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// A record that waits to be written.
pub(super) struct Waiting {
    payload: Payload,
    answer: Arc<Answer>,
}

/// What became of a waiting record; taken by the one who waits.
#[derive(Default)]
pub(super) struct Answer(Mutex<Option<Result<Receipt, EvidenceError>>>);

impl Waiting {
    pub(super) fn new(payload: Payload) -> Self {
        Self { payload, answer: Arc::default() }
    }

    pub(super) fn answer(&self) -> Arc<Answer> {
        Arc::clone(&self.answer)
    }
}

impl Answer {
    /// The answer. None was given only if its writer died of a bug: then nothing is on the disk for sure.
    pub(super) fn take(&self) -> Result<Receipt, EvidenceError> {
        let answer = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        answer.unwrap_or(Err(EvidenceError::Stopped))
    }

    fn give(&self, result: Result<Receipt, EvidenceError>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
    }
}

/// Gives all of them the same error; the only one gets it as it is.
pub(super) fn fail(answers: impl Iterator<Item = Arc<Answer>>, error: EvidenceError) {
    let answers: Vec<_> = answers.collect();
    if let [only] = answers.as_slice() {
        return only.give(Err(error));
    }
    let error = Arc::new(error);
    for answer in answers {
        answer.give(Err(EvidenceError::Together(Arc::clone(&error))));
    }
}

/// Lines that follow the end of the log and are not written yet.
pub(super) struct Batch<'a> {
    store: &'a Store,
    tail: &'a mut Tail,
    lines: Vec<u8>,
    claims: Vec<Claim>,
}

/// What a line will be once it is on the disk.
struct Claim {
    receipt: Receipt,
    event: Event,
    answer: Arc<Answer>,
}

impl<'a> Batch<'a> {
    pub(super) fn new(store: &'a Store, tail: &'a mut Tail) -> Self {
        Self { store, tail, lines: Vec::new(), claims: Vec::new() }
    }

    /// Signs a record as the next one. What cannot be one is answered at once, and hinders no other.
    pub(super) fn add(&mut self, waiting: Waiting) {
        let Waiting { mut payload, answer } = waiting;
        if let Err(error) = self.place(&mut payload, &answer) {
            answer.give(Err(error));
        }
    }

    fn place(&mut self, payload: &mut Payload, answer: &Arc<Answer>) -> Result<(), EvidenceError> {
        if self.lines.len() > BATCH_BYTES_MAX {
            self.commit();
        }
        let mut line = self.sign(payload)?;
        let filled = self.tail.len.saturating_add(self.lines.len() as u64);
        if filled > 0 && filled.saturating_add(line.len() as u64) > self.store.segment_bytes_max {
            let before = (self.tail.seq, self.claims.len() as u64);
            self.commit();
            // A segment of which nothing could be written is still to be filled: an empty one in the middle is damage.
            if self.tail.len > 0 {
                self.tail.rotate(&self.store.folder)?;
            }
            // What could not be written is gone from the chain: this line follows another one now.
            if self.tail.seq != before.0 + before.1 {
                line = self.sign(payload)?;
            }
        }
        let receipt = Receipt { seq: payload.seq, hash: chain::link(line.as_bytes()) };
        self.lines.extend_from_slice(line.as_bytes());
        self.lines.push(b'\n');
        self.claims.push(Claim { receipt, event: payload.event, answer: Arc::clone(answer) });
        Ok(())
    }

    /// A line without its newline, after what is in the batch.
    fn sign(&self, payload: &mut Payload) -> Result<String, EvidenceError> {
        let (seq, prev) = match self.claims.last() {
            Some(Claim { receipt, .. }) => (receipt.seq, &receipt.hash),
            None => (self.tail.seq, &self.tail.prev),
        };
        payload.seq = seq + 1;
        payload.prev.clone_from(prev);
        let line = self.store.signer.sign(&serde_json::to_vec(payload)?)?;
        if line.len() > LINE_BYTES_MAX {
            return Err(EvidenceError::TooLong { bytes: line.len(), limit: LINE_BYTES_MAX });
        }
        Ok(line)
    }

    /// Writes the lines, syncs, and answers everybody.
    pub(super) fn commit(&mut self) {
        let (lines, claims) = (std::mem::take(&mut self.lines), std::mem::take(&mut self.claims));
        let Some(last) = claims.last() else { return };
        let (store, tail) = (self.store, &mut *self.tail);
        if let Err(source) = store.write(tail, &lines) {
            // Nobody may find half a record, nor a whole one that we said was not there. If this fails too, the
            // next append cuts off the half one.
            tail.file.set_len(tail.len).and_then(|()| (store.disk.sync)(&tail.file)).ok();
            let error = EvidenceError::Write { path: tail.path(&store.folder), source };
            return fail(claims.into_iter().map(|claim| claim.answer), error);
        }
        tail.len += lines.len() as u64;
        tail.seq = last.receipt.seq;
        tail.prev.clone_from(&last.receipt.hash);
        for Claim { receipt, event, answer } in claims {
            if event == Event::SessionEnd {
                let heralds = Heralds { journal: &store.journal, base: &store.base, evidence: &store.folder };
                if let Err(error) = heralds.tell(&store.signer, &store.host, &receipt) {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "there is no head of the evidence"
                    );
                }
            }
            answer.give(Ok(receipt));
        }
    }
}
