//! What goes on at a key, shared by its threads and by the test: the person, the request under way, the faults to
//! order, and the list of what was asked.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use nix::time::{ClockId, clock_gettime};

use crate::{
    ctap::Status,
    fault::{Fault, Misbehaviour},
    person::{Hand, Person, Presence},
    seen::{Command, Request},
};

pub(crate) struct Live {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    person: Person,
    misbehaviour: Misbehaviour,
    seen: Vec<Request>,
    /// The request under way, by its place in `seen`. CTAPHID has one at a time.
    current: Option<usize>,
    blinking_since: Option<Instant>,
    hand: Option<Hand>,
    cancelled: bool,
    dropped: bool,
    /// CLOCK_BOOTTIME, nanoseconds.
    answered_at: Option<u64>,
}

/// One request under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    number: usize,
    pub(crate) command: Command,
}

/// What the keepalive thread is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tick {
    Processing,
    UserPresenceNeeded,
    Over,
}

impl Live {
    pub(crate) const fn new() -> Self {
        let state = State {
            person: Person::Touches,
            misbehaviour: Misbehaviour::NONE,
            seen: Vec::new(),
            current: None,
            blinking_since: None,
            hand: None,
            cancelled: false,
            dropped: false,
            answered_at: None,
        };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state());
        self.changed.notify_all();
        result
    }

    /// Waits for a change, at most until then.
    fn wait<'a>(&self, state: MutexGuard<'a, State>, until: Option<Instant>) -> MutexGuard<'a, State> {
        match until {
            None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(until) => {
                let left = until.saturating_duration_since(Instant::now());
                self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }

    // The test's side.

    pub(crate) fn set_person(&self, person: Person) {
        self.change(|state| state.person = person);
    }

    pub(crate) fn misbehave(&self, misbehaviour: Misbehaviour) {
        self.change(|state| state.misbehaviour = misbehaviour);
    }

    /// A touch of a dark key does nothing.
    pub(crate) fn hand(&self, hand: Hand) {
        self.change(|state| state.hand = state.blinking_since.map(|_| hand));
    }

    pub(crate) fn is_blinking(&self) -> bool {
        self.state().blinks()
    }

    pub(crate) fn seen(&self) -> Vec<Request> {
        self.state().seen.clone()
    }

    /// Whether it became so in time.
    pub(crate) fn until(&self, limit: Duration, so: impl Fn(bool, &[Request]) -> bool) -> bool {
        let end = Instant::now() + limit;
        let mut state = self.state();
        while !so(state.blinks(), &state.seen) {
            if Instant::now() >= end {
                return false;
            }
            state = self.wait(state, Some(end));
        }
        true
    }

    pub(crate) fn answered_at(&self) -> Option<u64> {
        self.state().answered_at
    }

    // The key's side.

    /// An answer has gone out.
    pub(crate) fn answered(&self) {
        let now = clock_gettime(ClockId::CLOCK_BOOTTIME).ok();
        let now = now.and_then(|time| {
            let (seconds, nanos) = (u64::try_from(time.tv_sec()).ok()?, u64::try_from(time.tv_nsec()).ok()?);
            Some(seconds * 1_000_000_000 + nanos)
        });
        self.change(|state| state.answered_at = now);
    }

    /// A request that is answered at once.
    pub(crate) fn note(&self, command: Command) {
        self.change(|state| state.seen.push(Request::new(command)));
    }

    pub(crate) fn begin(&self, command: Command) -> Turn {
        self.change(|state| {
            let number = state.seen.len();
            state.seen.push(Request::new(command));
            state.current = Some(number);
            (state.hand, state.cancelled, state.dropped) = (None, false, false);
            Turn { number, command }
        })
    }

    /// Fills in what the request turned out to ask.
    pub(crate) fn describe(&self, turn: Turn, describe: impl FnOnce(&mut Request)) {
        self.change(|state| state.seen.get_mut(turn.number).map(describe));
    }

    pub(crate) fn end(&self, turn: Turn, status: Option<Status>) {
        self.change(|state| {
            if state.current == Some(turn.number) {
                state.current = None;
            }
            if let Some(request) = state.seen.get_mut(turn.number) {
                request.status = status;
            }
        });
    }

    /// `CTAPHID_CANCEL` for the request under way.
    pub(crate) fn cancel(&self) {
        self.change(|state| state.cancelled = true);
    }

    /// Nobody waits for the answer any more: unplugged, or the channel initialized anew.
    pub(crate) fn drop_request(&self) {
        self.change(|state| state.dropped = true);
    }

    pub(crate) fn fault(&self, command: Command) -> Option<Fault> {
        self.state().misbehaviour.concerning(command)
    }

    pub(crate) fn has(&self, turn: Turn, fault: Fault) -> bool {
        self.fault(turn.command) == Some(fault)
    }

    /// Blinks until the person answers.
    ///
    /// # Errors
    /// They do not want to, do not come, or the request is cancelled.
    pub(crate) fn presence(&self, turn: Turn) -> Result<(), Status> {
        let since = Instant::now();
        let mut state = self.state();
        let result = loop {
            if state.cancelled || state.is_dropped(turn) {
                let cancelled = state.cancelled;
                if let Some(request) = state.seen.get_mut(turn.number) {
                    request.cancelled = cancelled;
                }
                break Err(Status::KEEPALIVE_CANCEL);
            }
            match state.person.answers(state.hand, since, Instant::now()) {
                Presence::Given => break Ok(()),
                Presence::Ended(status) => break Err(status),
                Presence::Open(look_again) => {
                    if state.blinking_since.is_none() {
                        state.blinking_since = Some(since);
                        self.changed.notify_all();
                    }
                    state = self.wait(state, look_again);
                }
            }
        };
        (state.blinking_since, state.hand) = (None, None);
        drop(state);
        self.changed.notify_all();
        result
    }

    /// [`Fault::KeepaliveForever`]: blinks, whatever the person and the client do, until the fault is taken back or nobody
    /// listens any more.
    pub(crate) fn blink_forever(&self, turn: Turn) {
        let mut state = self.state();
        while !state.is_dropped(turn)
            && state.misbehaviour.concerning(turn.command) == Some(Fault::KeepaliveForever)
        {
            if state.blinking_since.is_none() {
                state.blinking_since = Some(Instant::now());
                self.changed.notify_all();
            }
            state = self.wait(state, None);
        }
        (state.blinking_since, state.hand) = (None, None);
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until a keepalive is due: each time `every` has passed, and as soon as the key begins to blink.
    pub(crate) fn tick(&self, turn: Turn, every: Duration, last: Tick) -> Tick {
        let end = Instant::now() + every;
        let mut state = self.state();
        loop {
            let now = match state.blinks() {
                true => Tick::UserPresenceNeeded,
                false => Tick::Processing,
            };
            if state.current != Some(turn.number) {
                return Tick::Over;
            }
            if Instant::now() >= end || (now == Tick::UserPresenceNeeded && last == Tick::Processing) {
                return now;
            }
            state = self.wait(state, Some(end));
        }
    }
}

impl State {
    const fn blinks(&self) -> bool {
        self.blinking_since.is_some()
    }

    fn is_dropped(&self, turn: Turn) -> bool {
        self.dropped || self.current != Some(turn.number)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn asked(live: &Arc<Live>, person: Person) -> (Turn, thread::JoinHandle<Result<(), Status>>) {
        live.set_person(person);
        let turn = live.begin(Command::Selection);
        let asking = Arc::clone(live);
        let answer = thread::spawn(move || asking.presence(turn));
        assert!(live.until(LONG, |blinking, _| blinking));
        (turn, answer)
    }

    #[test]
    fn a_hand_answers_a_blinking_key_only() {
        let live = Arc::new(Live::new());
        live.hand(Hand::Deny);
        let (_, answer) = asked(&live, Person::ByHand);
        live.hand(Hand::Touch);
        assert_eq!(answer.join().unwrap(), Ok(()));
        assert!(!live.is_blinking());
        let (_, answer) = asked(&live, Person::Never(None));
        live.hand(Hand::Deny);
        assert_eq!(answer.join().unwrap(), Err(Status::OPERATION_DENIED));
    }

    #[test]
    fn a_cancel_ends_the_request_and_is_seen() {
        let live = Arc::new(Live::new());
        let (_, answer) = asked(&live, Person::Never(None));
        live.cancel();
        assert_eq!(answer.join().unwrap(), Err(Status::KEEPALIVE_CANCEL));
        assert!(live.seen()[0].cancelled);
        // The next one begins afresh.
        let (_, answer) = asked(&live, Person::ByHand);
        live.hand(Hand::Touch);
        assert_eq!(answer.join().unwrap(), Ok(()));
    }

    #[test]
    fn another_person_takes_over_while_it_blinks() {
        let live = Arc::new(Live::new());
        let (_, answer) = asked(&live, Person::Never(None));
        live.set_person(Person::Touches);
        assert_eq!(answer.join().unwrap(), Ok(()));
    }

    #[test]
    fn keepalives_say_at_once_that_a_touch_is_needed() {
        let live = Arc::new(Live::new());
        let (turn, answer) = asked(&live, Person::Never(None));
        assert_eq!(live.tick(turn, LONG, Tick::Processing), Tick::UserPresenceNeeded);
        let little = Duration::from_millis(1);
        assert_eq!(live.tick(turn, little, Tick::UserPresenceNeeded), Tick::UserPresenceNeeded);
        live.drop_request();
        assert_eq!(answer.join().unwrap(), Err(Status::KEEPALIVE_CANCEL));
        assert!(!live.seen()[0].cancelled);
        live.end(turn, None);
        assert_eq!(live.tick(turn, LONG, Tick::Processing), Tick::Over);
    }
}
