//! Where the questions of one session wait: many threads, one lock.
//!
//! The gate asks and waits for its answer; clients show, sign and deny; time expires. Each question gets exactly
//! one [`Decided`], and if the desk is gone, none: the waiting side then reads a closed channel, which is a denial.
//! Operations that are alike are shown as one question, the oldest of them: an assertion frees that one and no other,
//! a denial is for all of them. Denials in a row close the desk for a while (`backoff.rs`).
//! Deadlines and `now_ns` are nanoseconds of CLOCK_BOOTTIME.

mod answering;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use thiserror::Error;
use tokio::sync::{oneshot, watch};

use super::{
    Decided, Judged, Likeness, Reason, Verified,
    assertion::AssertionError,
    authenticator::{Offer, Options},
    backoff::Backoff,
    counters::{Counters, InMemory},
    passkeys::{Kind, Passkey, Passkeys},
    state::{Approval, Input, InputError},
};
use crate::{operation::Operation, policy::Action};
use answering::required;

/// So many decided operations are remembered, to tell a late answer from a wrong id.
const DECIDED_MAX: usize = 1024;

/// Why a client's answer was not taken.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DeskError {
    #[error("no operation {id} waits here; `ana pending` lists those that do")]
    Unknown { id: String },
    #[error("the operation {id} has expired: nobody answered in time, so it was denied")]
    Expired { id: String },
    #[error("the operation {id} is already decided: {how}")]
    AlreadyDecided { id: String, how: String },
    #[error("the operation {id} was not shown to anybody yet")]
    NotShown { id: String },
    #[error("the assertion for the operation {id} does not count")]
    Verification {
        id: String,
        #[source]
        source: AssertionError,
    },
    #[error(
        "the passkey {name:?} is a software passkey, and the policy does not accept those (allow_software_passkey = false)"
    )]
    SoftwarePasskey { name: String },
    #[error("no passkey is enrolled; enroll one with `sudo ana passkey enroll`")]
    NoPasskey,
    #[error(
        "only software passkeys are enrolled, and the policy does not accept those (allow_software_passkey = false); enroll a security key"
    )]
    OnlySoftwarePasskeys,
    #[error("the list of passkeys cannot be read, so nothing can be approved")]
    Passkeys(#[source] io::Error),
    #[error("the passkey's counter could not be stored, so the operation {id} was denied")]
    Counter {
        id: String,
        #[source]
        source: io::Error,
    },
}

/// The questions of one session.
#[derive(Debug)]
pub struct Desk {
    max_holds: usize,
    allow_software_passkey: bool,
    inner: Mutex<Inner>,
    changes: watch::Sender<u64>,
}

struct Inner {
    passkeys: Passkeys,
    counters: Box<dyn Counters>,
    holds: BTreeMap<String, Hold>,
    decided: VecDeque<(String, Remembered)>,
    /// How many were asked: the number of the next one.
    asked: u64,
    backoff: Backoff,
}

/// A question, and the operations like it that wait behind it.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// The oldest of them: what is shown and signed.
    pub operation: Arc<Operation>,
    /// How many more there are.
    pub more: usize,
}

struct Hold {
    approval: Approval,
    answer: oneshot::Sender<Decided>,
    alike: Option<Likeness>,
    /// The order of the questions. Ids do not tell within a millisecond.
    number: u64,
    /// CLOCK_BOOTTIME, nanoseconds.
    asked_ns: u64,
}

#[derive(Clone)]
enum Remembered {
    Expired,
    Decided(String),
}

impl Desk {
    /// `max_holds` questions at most wait at a time.
    pub fn new(max_holds: usize, passkeys: Passkeys, allow_software_passkey: bool) -> Self {
        let inner = Inner {
            passkeys,
            counters: Box::new(InMemory),
            holds: BTreeMap::new(),
            decided: VecDeque::new(),
            asked: 0,
            backoff: Backoff::default(),
        };
        Self { max_holds, allow_software_passkey, inner: Mutex::new(inner), changes: watch::Sender::new(0) }
    }

    /// Stores grown sign counters with `counters`.
    #[must_use]
    pub fn with_counters(self, counters: Box<dyn Counters>) -> Self {
        self.lock().counters = counters;
        self
    }

    /// Puts a question. The receiver gets its one answer; a closed channel means denied.
    ///
    /// # Errors
    /// The answer, when there is nothing to wait for: the policy decides alone, too many wait, a person has just said no
    /// again and again, it is over already.
    pub fn ask(
        &self,
        judged: Judged,
        now_ns: u64,
        deadline_ns: u64,
    ) -> Result<oneshot::Receiver<Decided>, Decided> {
        let judged = match judged.verdict.action {
            Action::Approve => judged,
            Action::Allow | Action::Deny => match Decided::by_rule(judged) {
                Ok(decided) => return Err(decided),
                Err(judged) => judged,
            },
        };
        let challenge = match judged.operation.challenge() {
            Ok(challenge) => challenge,
            Err(error) => return Err(Decided::refused(judged, "ana", &error.to_string())),
        };
        let id = judged.operation.id.clone();
        let mut inner = self.lock();
        if let Some(closed) = inner.backoff.closed(now_ns) {
            let seconds = closed.left_ns.div_ceil(1_000_000_000);
            return Err(Decided::new(judged, Reason::BackedOff { denials: closed.denials, seconds }));
        }
        if inner.holds.len() >= self.max_holds {
            return Err(Decided::new(judged, Reason::QueueFull { limit: self.max_holds }));
        }
        if inner.holds.contains_key(&id) || inner.remembered(&id).is_some() {
            return Err(Decided::refused(judged, "ana", "its id was used before"));
        }
        let (answer, receiver) = oneshot::channel();
        let (alike, number) = (judged.alike, inner.asked);
        inner.asked += 1;
        let approval = Approval::ask(judged, challenge, deadline_ns);
        inner.holds.insert(id, Hold { approval, answer, alike, number, asked_ns: now_ns });
        drop(inner);
        self.changed_now();
        Ok(receiver)
    }

    /// The questions, the oldest first.
    pub fn pending(&self) -> Vec<Waiting> {
        let inner = self.lock();
        let mut holds: Vec<&Hold> = inner.holds.values().collect();
        holds.sort_by_key(|hold| hold.number);
        let (mut waiting, mut places) = (Vec::<Waiting>::new(), HashMap::new());
        for hold in holds {
            let place = hold.alike.map(|alike| *places.entry(alike).or_insert(waiting.len()));
            match place.and_then(|place| waiting.get_mut(place)) {
                Some(first) => first.more += 1,
                None => {
                    let operation = Arc::clone(hold.approval.operation());
                    waiting.push(Waiting { operation, more: 0 });
                }
            }
        }
        waiting
    }

    /// Whether somebody has been shown the question and may be answering it.
    pub fn is_shown(&self, id: &str) -> bool {
        let inner = self.lock();
        inner.holds.get(id).is_some_and(|hold| !matches!(hold.approval, Approval::Asked(_)))
    }

    /// How many operations wait.
    pub fn waiting(&self) -> usize {
        self.lock().holds.len()
    }

    /// Hands out what a client needs to render the question and to sign it.
    ///
    /// # Errors
    /// It does not wait, or no passkey could answer it.
    pub fn show(&self, id: &str, now_ns: u64) -> Result<Options, DeskError> {
        let mut inner = self.lock();
        inner.refresh()?;
        let offered: Vec<Offer> = inner.offered(self.allow_software_passkey).into_iter().map(offer).collect();
        if offered.is_empty() && inner.holds.contains_key(id) {
            return Err(if inner.passkeys.passkeys.is_empty() {
                DeskError::NoPasskey
            } else {
                DeskError::OnlySoftwarePasskeys
            });
        }
        self.step(&mut inner, id, Input::Show, now_ns)?;
        let hold = inner.holds.get(id).ok_or_else(|| DeskError::Unknown { id: id.to_owned() })?;
        let operation = Operation::clone(hold.approval.operation());
        Ok(Options {
            verify: required(hold).unwrap_or(operation.verify),
            operation,
            rp_id: inner.passkeys.rp_id.clone(),
            origin: inner.passkeys.origin.clone(),
            offered,
        })
    }

    /// The process that asked is gone; false when the question was decided before.
    pub fn withdraw(&self, id: &str, now_ns: u64) -> bool {
        self.step(&mut self.lock(), id, Input::Withdraw, now_ns).is_ok()
    }

    /// Denies what has waited too long.
    pub fn expire(&self, now_ns: u64) {
        let mut inner = self.lock();
        let late: Vec<String> = inner
            .holds
            .iter()
            .filter(|(_, hold)| hold.approval.deadline_ns().is_none_or(|deadline| deadline <= now_ns))
            .map(|(id, _)| id.clone())
            .collect();
        for id in late {
            // An Expired is exactly what is wanted here, and the answer was sent.
            self.step(&mut inner, &id, Input::Tick, now_ns).ok();
        }
    }

    /// When [`Desk::expire`] has something to do next.
    pub fn next_deadline(&self) -> Option<u64> {
        self.lock().holds.values().filter_map(|hold| hold.approval.deadline_ns()).min()
    }

    /// Changes whenever a question comes or goes.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Takes over a list that was changed on disk, as a whole. Known counters never shrink by it.
    pub fn replace_passkeys(&self, passkeys: Passkeys) {
        self.lock().replace(passkeys);
    }

    /// Feeds one question; sends its answer when that decided it.
    fn step(&self, inner: &mut Inner, id: &str, input: Input, now_ns: u64) -> Result<(), DeskError> {
        let Some(Hold { approval, answer, alike, number, asked_ns }) = inner.holds.remove(id) else {
            return Err(match inner.remembered(id) {
                Some(Remembered::Expired) => DeskError::Expired { id: id.to_owned() },
                Some(Remembered::Decided(how)) => DeskError::AlreadyDecided { id: id.to_owned(), how },
                None => DeskError::Unknown { id: id.to_owned() },
            });
        };
        let (next, outcome) = approval.handle(input, now_ns);
        let timed_out = match next {
            Approval::Decided(decided) => {
                let timed_out = matches!(decided.reason(), Reason::TimedOut { .. });
                inner.remember(id, &decided);
                // The waiting side may be gone; then there is nobody to tell, and nothing goes on.
                answer.send(*decided).ok();
                self.changed_now();
                timed_out
            }
            waiting @ (Approval::Asked(_) | Approval::Shown(_) | Approval::Signed(..)) => {
                let hold = Hold { approval: waiting, answer, alike, number, asked_ns };
                inner.holds.insert(id.to_owned(), hold);
                false
            }
        };
        match outcome {
            _ if timed_out => Err(DeskError::Expired { id: id.to_owned() }),
            Ok(()) => Ok(()),
            Err(error) => Err(refusal(error, id)),
        }
    }

    fn changed_now(&self) {
        self.changes.send_modify(|version| *version = version.wrapping_add(1));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A thread that panicked in here has taken its question with it, which denies it; the others are whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The list may have been changed on disk.
    fn refresh(&mut self) -> Result<(), DeskError> {
        let now = self.counters.list(&self.passkeys).map_err(DeskError::Passkeys)?;
        self.replace(now);
        Ok(())
    }

    fn replace(&mut self, mut passkeys: Passkeys) {
        for passkey in &mut passkeys.passkeys {
            let known = self.passkeys.passkeys.iter().find(|old| old.credential_id == passkey.credential_id);
            passkey.sign_count = passkey.sign_count.max(known.map_or(0, |old| old.sign_count));
        }
        self.passkeys = passkeys;
    }

    fn offered(&self, allow_software_passkey: bool) -> Vec<&Passkey> {
        self.passkeys.passkeys.iter().filter(|passkey| accepted(passkey, allow_software_passkey)).collect()
    }

    /// The ids of all that are alike.
    fn like(&self, alike: Option<Likeness>) -> Vec<String> {
        let same = self.holds.iter().filter(|(_, hold)| alike.is_some() && hold.alike == alike);
        same.map(|(id, _)| id.clone()).collect()
    }

    fn count(&mut self, verified: &Verified) {
        let id = &verified.assertion().credential_id;
        if let Some(passkey) = self.passkeys.passkeys.iter_mut().find(|passkey| passkey.credential_id == *id)
        {
            passkey.sign_count = verified.sign_count();
        }
    }

    fn remembered(&self, id: &str) -> Option<Remembered> {
        self.decided.iter().find(|(decided, _)| decided == id).map(|(_, how)| how.clone())
    }

    fn remember(&mut self, id: &str, decided: &Decided) {
        if self.decided.len() >= DECIDED_MAX {
            self.decided.pop_front();
        }
        let how = match decided.reason() {
            Reason::TimedOut { .. } => Remembered::Expired,
            reason @ (Reason::Rule { .. }
            | Reason::Person { .. }
            | Reason::Granted { .. }
            | Reason::Refused { .. }
            | Reason::CounterWentBack(_)
            | Reason::ProcessEnded
            | Reason::QueueFull { .. }
            | Reason::BackedOff { .. }) => Remembered::Decided(reason.to_string()),
        };
        self.decided.push_back((id.to_owned(), how));
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("holds", &self.holds.keys()).finish_non_exhaustive()
    }
}

fn accepted(passkey: &Passkey, allow_software_passkey: bool) -> bool {
    match passkey.kind {
        Kind::Software => allow_software_passkey,
        Kind::SecurityKey => true,
    }
}

fn offer(passkey: &Passkey) -> Offer {
    Offer {
        name: passkey.name.clone(),
        kind: passkey.kind,
        credential_id: passkey.credential_id.clone(),
        key_file: passkey.key_file.clone(),
    }
}

fn refusal(error: InputError, id: &str) -> DeskError {
    let id = id.to_owned();
    match error {
        InputError::NotShown => DeskError::NotShown { id },
        InputError::OtherChallenge => DeskError::Verification { id, source: AssertionError::Challenge },
        InputError::Expired => DeskError::Expired { id },
        InputError::AlreadySigned | InputError::AlreadyDecided => {
            DeskError::AlreadyDecided { id, how: "somebody else was first".to_owned() }
        }
        InputError::NotSigned => DeskError::NotShown { id },
    }
}

#[cfg(test)]
#[path = "desk_fold_tests.rs"]
mod fold_tests;
#[cfg(test)]
#[path = "desk_props_tests.rs"]
mod props_tests;
#[cfg(test)]
#[path = "desk_tests.rs"]
mod tests;
