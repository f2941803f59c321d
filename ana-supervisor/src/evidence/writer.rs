//! Writes down what a rule allows, without making the operation wait.
//!
//! Takes what the policy allows by itself; one thread signs and appends them, many with one sync. The queue is bounded:
//! when it is full, the caller waits, so a flood slows itself. Beyond [`Budget::a_minute`] decisions are folded: one
//! record for each rule and [`Budget::fold`] carries the first operation and how many it stands for. What is still in
//! the queue when the supervisor is killed is noted ([`notes`](super::notes)); what a person decided never comes here.

use std::collections::HashMap;
use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::decision::entry;
use super::error::EvidenceError;
use super::notes::Note;
use super::record::Entry;
use super::store::Store;
use crate::approval::{Decided, Reason};

/// How much one session may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Decisions that are recorded one by one, in a minute.
    pub a_minute: u32,
    /// What is beyond that is folded into one record for each rule in this time.
    pub fold: Duration,
    /// Decisions that may wait to be written.
    pub queue: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { a_minute: 600, fold: Duration::from_secs(10), queue: 1024 }
    }
}

/// Why a decision was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LaterError {
    /// Everything else is on the disk first: [`Store::record`].
    #[error("only what the policy allows by itself may be written later")]
    NotByRule,
    /// The writer has stopped.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
}

enum Job {
    Decision(Box<Decided>, Option<Note>),
    /// Answered when everything before it is on the disk.
    Flush(SyncSender<()>),
}

/// The way to the writing thread. It ends when this is dropped, after it has written what waits.
pub struct Writer {
    jobs: SyncSender<Job>,
}

impl Writer {
    /// Starts the thread. `broken` is told once when evidence cannot be written: the session has to end.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(
        store: Arc<Store>,
        budget: Budget,
        broken: impl FnOnce(EvidenceError) + Send + 'static,
    ) -> io::Result<Self> {
        let (jobs, queue) = sync_channel(budget.queue);
        thread::Builder::new().name("ana-evidence".into()).spawn(move || {
            if let Err(error) = Pen::new(&store, budget).write(&queue) {
                broken(error);
            }
        })?;
        Ok(Self { jobs })
    }

    /// Hands over what a rule allows, and what has gone on already: it is written whatever room there is, so whoever lets
    /// things go on stops when [`Store::room`] says that there is none. The record follows within milliseconds; then the note of
    /// it is settled. Costs some microseconds, more only when the queue is full. From any thread; it may block, so not from a
    /// task.
    ///
    /// # Errors
    /// The decision is not a rule's "allow", or the writer has stopped.
    pub fn later(&self, decided: Decided, note: Option<Note>) -> Result<(), LaterError> {
        if !(matches!(decided.reason(), Reason::Rule { .. }) && decided.approved()) {
            return Err(LaterError::NotByRule);
        }
        self.jobs
            .send(Job::Decision(Box::new(decided), note))
            .map_err(|_stopped| EvidenceError::Stopped.into())
    }

    /// Waits until everything that was handed over is on the disk, what is folded included. Blocks; to be called before
    /// a session's end is recorded.
    ///
    /// # Errors
    /// The writer has stopped: something could not be written.
    pub fn flush(&self) -> Result<(), EvidenceError> {
        let (done, flushed) = sync_channel(1);
        self.jobs.send(Job::Flush(done)).map_err(|_stopped| EvidenceError::Stopped)?;
        flushed.recv().map_err(|_stopped| EvidenceError::Stopped)
    }
}

/// Decisions of one rule that share a record.
struct Fold {
    first: Box<Decided>,
    note: Option<Note>,
    count: u64,
    begun: Instant,
    begun_at: jiff::Timestamp,
}

/// The thread's state.
struct Pen<'a> {
    store: &'a Store,
    budget: Budget,
    /// Records that may still be written one by one, and when that was true.
    left: f64,
    counted: Instant,
    folds: HashMap<String, Fold>,
}

impl<'a> Pen<'a> {
    fn new(store: &'a Store, budget: Budget) -> Self {
        let left = f64::from(budget.a_minute);
        Self { store, budget, left, counted: Instant::now(), folds: HashMap::new() }
    }

    fn write(mut self, queue: &Receiver<Job>) -> Result<(), EvidenceError> {
        loop {
            let first = match self.next(queue) {
                Ok(job) => Some(job),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => {
                    return self.put(Vec::new(), Vec::new(), true);
                }
            };
            let (mut entries, mut notes, mut flushed) = (Vec::new(), Vec::new(), Vec::new());
            // What has come meanwhile goes with it.
            for job in first.into_iter().chain(queue.try_iter().take(self.budget.queue)) {
                match job {
                    Job::Decision(decided, note) => {
                        if let Some((entry, note)) = self.take(decided, note)? {
                            entries.push(entry);
                            notes.extend(note);
                        }
                    }
                    Job::Flush(done) => flushed.push(done),
                }
            }
            self.put(entries, notes, !flushed.is_empty())?;
            for done in flushed {
                // Whoever asked may have gone.
                done.send(()).ok();
            }
        }
    }

    fn next(&self, queue: &Receiver<Job>) -> Result<Job, RecvTimeoutError> {
        match self.folds.values().map(|fold| fold.begun + self.budget.fold).min() {
            Some(due) => queue.recv_timeout(due.saturating_duration_since(Instant::now())),
            None => queue.recv().map_err(|_all_gone| RecvTimeoutError::Disconnected),
        }
    }

    /// A decision's record and the note of it, unless it is folded.
    fn take(
        &mut self,
        decided: Box<Decided>,
        note: Option<Note>,
    ) -> Result<Option<(Entry, Option<Note>)>, EvidenceError> {
        let now = Instant::now();
        self.left = refilled(self.left, now.duration_since(self.counted), self.budget.a_minute);
        self.counted = now;
        if self.left >= 1.0 {
            self.left -= 1.0;
            return Ok(Some((entry(&decided), note)));
        }
        match self.folds.entry(decided.operation().rule.clone()) {
            Vacant(place) => {
                let begun_at = jiff::Timestamp::now();
                place.insert(Fold { first: decided, note, count: 1, begun: now, begun_at });
            }
            Occupied(mut fold) => fold.get_mut().one_more(note).map_err(EvidenceError::Note)?,
        }
        Ok(None)
    }

    /// Writes these, and the folds whose time has come, with one sync.
    fn put(&mut self, mut entries: Vec<Entry>, mut notes: Vec<Note>, all: bool) -> Result<(), EvidenceError> {
        let (now, time) = (Instant::now(), self.budget.fold);
        for (_, mut fold) in self.folds.extract_if(|_, fold| all || now.duration_since(fold.begun) >= time) {
            notes.extend(fold.note.take());
            entries.push(fold.entry());
        }
        if entries.is_empty() {
            return Ok(());
        }
        self.store.append_all(entries).into_iter().try_for_each(|written| written.map(drop))?;
        notes.into_iter().for_each(Note::settle);
        Ok(())
    }
}

/// What may be written one by one after this time: never more than a minute's.
fn refilled(left: f64, time: Duration, a_minute: u32) -> f64 {
    let a_minute = f64::from(a_minute);
    (left + time.as_secs_f64() / 60.0 * a_minute).min(a_minute)
}

impl Fold {
    /// The note of the first stands for all of them.
    fn one_more(&mut self, note: Option<Note>) -> io::Result<()> {
        self.count += 1;
        if let Some(first) = &self.note {
            first.count(self.count)?;
        }
        if let Some(note) = note {
            note.settle();
        }
        Ok(())
    }

    /// The record of the first operation, which says how many it stands for.
    fn entry(self) -> Entry {
        let mut entry = entry(&self.first);
        if let (true, Some(members)) = (self.count > 1, entry.detail.as_mut().and_then(|d| d.as_object_mut()))
        {
            members.insert("folded".into(), json!(self.count));
            members.insert("folded_since".into(), json!(format!("{:.3}", self.begun_at)));
        }
        entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_gives_a_minutes_records_and_no_more() {
        let after = |left, seconds| refilled(left, Duration::from_secs(seconds), 600).round();
        assert_eq!([after(7.0, 0), after(7.0, 1), after(0.0, 30)], [7.0, 17.0, 300.0]);
        assert_eq!([after(0.0, 60), after(600.0, 1), after(7.0, 3600)], [600.0; 3]);
    }
}
