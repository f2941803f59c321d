//! Requests to keys: each in a thread of its own, because the library blocks, with an end that does not depend on it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, TryRecvError, channel},
    },
    thread,
    time::Duration,
};

use ana_supervisor::approval::security_key::wire::Fault;
use ctap_hid_fido2::FidoKeyHid;

use crate::{
    keys::Key,
    talk::Talk,
    trouble::{Trouble, status},
};

/// How long a key may take for what needs nobody's touch. A PIN costs it a key agreement.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long it blinks for one request: the library gives up after 500 keepalives (50 s) without a word to the key, so it
/// is asked anew before that.
pub(crate) const BLINK_MAX: Duration = Duration::from_secs(40);
/// How long it may take to go dark when it is told to.
const CALM_MAX: u32 = 20;
const CALM_STEP: Duration = Duration::from_millis(100);

/// One request that a key is working on.
pub(crate) struct Pending<T> {
    pub(crate) key: Arc<Key>,
    answer: Receiver<Result<T, Trouble>>,
    cancelling: Arc<AtomicBool>,
}

impl<T: Send + 'static> Pending<T> {
    pub(crate) fn start(
        talk: &Talk,
        key: &Arc<Key>,
        request: impl FnOnce(&FidoKeyHid) -> anyhow::Result<T> + Send + 'static,
    ) -> Self {
        let asked = Arc::clone(key);
        let answer = in_thread(talk, move || request(&asked.hid));
        Self { key: Arc::clone(key), answer, cancelling: Arc::default() }
    }

    fn answered(&self) -> Option<Result<T, Trouble>> {
        answered(&self.answer)
    }

    /// Sends a CTAPHID_CANCEL, between two of the key's keepalives.
    fn cancel(&self) {
        if self.cancelling.swap(true, Ordering::SeqCst) {
            return;
        }
        let (key, cancelling) = (Arc::clone(&self.key), Arc::clone(&self.cancelling));
        thread::spawn(move || {
            // It is tried again.
            key.hid.cancel_selection().ok();
            cancelling.store(false, Ordering::SeqCst);
        });
    }
}

/// Runs what may block for ever, or panic.
pub(crate) fn in_thread<T: Send + 'static>(
    talk: &Talk,
    job: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> Receiver<Result<T, Trouble>> {
    let (tell, answer) = channel();
    let talk = talk.clone();
    thread::spawn(move || {
        let result = match catch_unwind(AssertUnwindSafe(job)) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(Trouble::of(&error)),
            Err(panic) => Err(Trouble::of_panic(&*panic)),
        };
        // Whoever asked may have given up.
        tell.send(result).ok();
        talk.ring();
    });
    answer
}

/// What has come of it so far.
pub(crate) fn answered<T>(answer: &Receiver<Result<T, Trouble>>) -> Option<Result<T, Trouble>> {
    match answer.try_recv() {
        Ok(result) => Some(result),
        Err(TryRecvError::Empty) => None,
        Err(TryRecvError::Disconnected) => Some(Err(Trouble::Silent)),
    }
}

/// One request to one key.
///
/// # Errors
/// What goes on is to end.
pub(crate) fn ask<T: Send + 'static>(
    talk: &Talk,
    key: &Arc<Key>,
    limit: Duration,
    request: impl FnOnce(&FidoKeyHid) -> anyhow::Result<T> + Send + 'static,
) -> Result<Result<T, Trouble>, Fault> {
    race(talk, vec![Pending::start(talk, key, request)], limit).map(|(_, result)| result)
}

/// Requests to several keys: the first that succeeds counts, and what a person or a key says no to. The others go dark.
///
/// # Errors
/// What goes on is to end.
pub(crate) fn race<T: Send + 'static>(
    talk: &Talk,
    mut open: Vec<Pending<T>>,
    limit: Duration,
) -> Result<(Arc<Key>, Result<T, Trouble>), Fault> {
    let until = std::time::Instant::now() + limit;
    loop {
        let left = until.saturating_duration_since(std::time::Instant::now());
        let first = talk.wait_for(left, || {
            open.iter().enumerate().find_map(|(place, pending)| Some((place, pending.answered()?)))
        });
        match first {
            Ok(Some((place, answer))) => {
                let answered = open.swap_remove(place);
                let decisive = matches!(answer, Ok(_) | Err(Trouble::Status(status::OPERATION_DENIED)));
                if decisive || open.is_empty() {
                    calm(talk, open);
                    return Ok((answered.key, answer));
                }
            }
            Ok(None) => {
                let Some(key) = open.first().map(|pending| Arc::clone(&pending.key)) else {
                    return Err(Fault::Other { why: "nothing was asked".to_owned() });
                };
                let trouble = match calm(talk, open) {
                    true => Trouble::Status(status::ACTION_TIMEOUT),
                    false => Trouble::Silent,
                };
                return Ok((key, Err(trouble)));
            }
            Err(cancelled) => {
                calm(talk, open);
                return Err(cancelled);
            }
        }
    }
}

/// Ends requests; false if a key does not heed it. Its thread is left behind then.
fn calm<T: Send + 'static>(talk: &Talk, mut open: Vec<Pending<T>>) -> bool {
    for _ in 0..CALM_MAX {
        open.iter().for_each(Pending::cancel);
        while !open.is_empty() {
            let ended =
                talk.wait_on(CALM_STEP, || open.iter().position(|pending| pending.answered().is_some()));
            match ended {
                Some(place) => drop(open.swap_remove(place)),
                None => break,
            }
        }
        if open.is_empty() {
            return true;
        }
    }
    false
}
