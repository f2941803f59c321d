//! What was refused without asking anybody, on its way to the evidence: a session may be refused half a million times a
//! minute. What is beyond the budget is counted, and the counts are written down.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use ana_common::FileKey;
use tokio::sync::mpsc;

use super::ConnectGate;
use crate::{gate::recent::Recent, kernel::network::Refusal};

/// Refusals that are written down one by one, in a minute.
const A_MINUTE: f64 = 60.0;
/// How often it is written down how many were not. The first refusal of each reason in this time is written down in any case.
pub const INTERVAL: Duration = Duration::from_secs(10);
/// Refusals that may wait to be written down.
const QUEUE: usize = 128;

/// The same refusal again: who, why, where to, and what it runs.
type Same = (u32, &'static str, Option<SocketAddr>, FileKey);

/// Counts and picks refusals. From any thread; never waits.
#[derive(Debug)]
pub(super) struct Refused(Mutex<Inner>);

/// The refusals that are to be written down one by one. It ends with the session.
pub type ToRecord = mpsc::Receiver<Refusal>;

#[derive(Debug)]
struct Inner {
    /// `None` once the session is over.
    queue: Option<mpsc::Sender<Refusal>>,
    to_record: Option<ToRecord>,
    /// Records that may still be written, and when that was true.
    left: f64,
    counted: Instant,
    /// What is written down, and need not be once more.
    recorded: Recent<Same>,
    /// When a refusal of this reason was last written down in any case.
    first: HashMap<&'static str, Instant>,
    unwritten: BTreeMap<&'static str, u64>,
    /// Of the reports that the kernel could not hand over: how many have been told.
    lost: u64,
    unprotected: Unprotected,
}

/// An address that the supervisor has found and cannot protect: told once.
#[derive(Debug, Default)]
enum Unprotected {
    #[default]
    None,
    ToTell(String),
    Told,
}

/// Refusals that nothing else was written down of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unwritten {
    /// How many for each reason.
    pub reasons: BTreeMap<&'static str, u64>,
    /// Those whose reason the kernel could not tell.
    pub lost: u64,
}

impl Refused {
    pub(super) fn new() -> Self {
        let (queue, to_record) = mpsc::channel(QUEUE);
        Self(Mutex::new(Inner {
            queue: Some(queue),
            to_record: Some(to_record),
            left: A_MINUTE,
            counted: Instant::now(),
            recorded: Recent::new(INTERVAL),
            first: HashMap::new(),
            unwritten: BTreeMap::new(),
            lost: 0,
            unprotected: Unprotected::None,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something was refused.
    pub(super) fn take(&self, refusal: Refusal, now: Instant) {
        self.lock().take(refusal, now);
    }

    /// Nothing more comes: what waits is all there is.
    pub(super) fn end(&self) {
        self.lock().queue = None;
    }

    /// There is an address that is not protected, and should be.
    pub(super) fn unprotected(&self, what: impl FnOnce() -> String) {
        let mut inner = self.lock();
        if matches!(inner.unprotected, Unprotected::None) {
            inner.unprotected = Unprotected::ToTell(what());
        }
    }

    fn unwritten(&self, lost: u64) -> Unwritten {
        let mut inner = self.lock();
        let told = std::mem::replace(&mut inner.lost, lost);
        Unwritten { reasons: std::mem::take(&mut inner.unwritten), lost: lost.saturating_sub(told) }
    }
}

impl Inner {
    fn take(&mut self, refusal: Refusal, now: Instant) {
        let reason = refusal.reason.text();
        let same = (refusal.tgid, reason, refusal.destination, refusal.exe);
        if self.recorded.has(&same, now) {
            // Its record stands for this one, too.
            return;
        }
        let waits = self.may_be_recorded(reason, now)
            && self.queue.as_ref().is_some_and(|queue| queue.try_send(refusal).is_ok());
        match waits {
            true => drop(self.recorded.put(same, now)),
            false => self.count(reason),
        }
    }

    fn count(&mut self, reason: &'static str) {
        *self.unwritten.entry(reason).or_default() += 1;
    }

    /// A flood of one reason hides no other one.
    fn may_be_recorded(&mut self, reason: &'static str, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.counted);
        self.left = (self.left + passed.as_secs_f64() / 60.0 * A_MINUTE).min(A_MINUTE);
        self.counted = now;
        let recently = |at: &Instant| now.saturating_duration_since(*at) < INTERVAL;
        let first = !self.first.get(reason).is_some_and(recently);
        if first {
            self.first.insert(reason, now);
        } else if self.left < 1.0 {
            return false;
        }
        self.left = (self.left - 1.0).max(0.0);
        true
    }
}

impl Unwritten {
    pub fn is_empty(&self) -> bool {
        self.reasons.is_empty() && self.lost == 0
    }

    pub fn count(&self) -> u64 {
        self.reasons.values().sum::<u64>().saturating_add(self.lost)
    }
}

impl ConnectGate {
    /// Where the refusals arrive that are to be written down. Only once.
    pub fn refusals(&self) -> Option<ToRecord> {
        self.refused.lock().to_record.take()
    }

    /// A refusal that was to be written down, and is not.
    pub fn not_recorded(&self, refusal: &Refusal) {
        self.refused.lock().count(refusal.reason.text());
    }

    /// What is not protected, and should be; once.
    pub fn unprotected(&self) -> Option<String> {
        let mut inner = self.refused.lock();
        match std::mem::take(&mut inner.unprotected) {
            Unprotected::None => None,
            Unprotected::ToTell(what) => {
                inner.unprotected = Unprotected::Told;
                Some(what)
            }
            Unprotected::Told => {
                inner.unprotected = Unprotected::Told;
                None
            }
        }
    }

    /// What was refused since the last time and not written down one by one.
    pub fn unwritten(&self) -> Unwritten {
        // Counters that cannot be read end the session elsewhere.
        let lost = self.maps.health().map_or(0, |health| health.lost);
        self.refused.unwritten(lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::network::RefusalReason;

    fn refusal(reason: RefusalReason, number: u32) -> Refusal {
        let [_, b, c, d] = number.to_be_bytes();
        let destination = Some(SocketAddr::from(([10, b, c, d], 1000)));
        Refusal {
            destination,
            protocol: 17,
            reason,
            tgid: number,
            started: 1,
            exe: FileKey::default(),
            boot_ns: 1,
        }
    }

    fn waiting(to_record: &mut ToRecord) -> usize {
        std::iter::from_fn(|| to_record.try_recv().ok()).count()
    }

    #[test]
    fn a_flood_becomes_some_records_and_a_count() {
        const FLOOD: u32 = 580_000;
        let (refused, begun) = (Refused::new(), Instant::now());
        let mut to_record = refused.lock().to_record.take().unwrap();
        for number in 0..FLOOD {
            refused.take(refusal(RefusalReason::UdpDefault, number), begun);
        }
        // Another reason is not hidden by it.
        refused.take(refusal(RefusalReason::Quic, 1), begun);
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        assert_eq!(waiting(&mut to_record), 61);
        let unwritten = refused.unwritten(7);
        assert_eq!((unwritten.count(), unwritten.lost), (u64::from(FLOOD) - 60 + 7, 7));
        assert_eq!(unwritten.reasons.into_keys().collect::<Vec<_>>(), [RefusalReason::UdpDefault.text()]);
        assert!(refused.unwritten(7).is_empty());
    }

    #[test]
    fn what_cannot_wait_is_counted() {
        let (refused, begun) = (Refused::new(), Instant::now());
        let mut to_record = refused.lock().to_record.take().unwrap();
        let minute = Duration::from_secs(60);
        for number in 0..200 {
            refused.take(refusal(RefusalReason::Quic, number), begun + minute * number);
        }
        assert_eq!(waiting(&mut to_record), QUEUE);
        assert_eq!(refused.unwritten(0).count(), 200 - QUEUE as u64);
    }

    #[test]
    fn the_same_is_one_record_for_a_while() {
        let (refused, begun) = (Refused::new(), Instant::now());
        let mut to_record = refused.lock().to_record.take().unwrap();
        for _ in 0..3 {
            refused.take(refusal(RefusalReason::Quic, 1), begun);
        }
        refused.take(refusal(RefusalReason::Quic, 1), begun + INTERVAL);
        assert_eq!(waiting(&mut to_record), 2);
        assert!(refused.unwritten(0).is_empty());
    }

    #[test]
    fn what_waits_at_the_end_is_still_there_and_what_comes_later_is_counted() {
        let (refused, now) = (Refused::new(), Instant::now());
        let mut to_record = refused.lock().to_record.take().unwrap();
        refused.take(refusal(RefusalReason::Quic, 1), now);
        refused.end();
        refused.take(refusal(RefusalReason::Quic, 2), now);
        assert!(to_record.try_recv().is_ok());
        assert_eq!(to_record.try_recv(), Err(mpsc::error::TryRecvError::Disconnected));
        assert_eq!(refused.unwritten(0).count(), 1);
    }
}
