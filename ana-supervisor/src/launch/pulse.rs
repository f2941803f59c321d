//! The sign of life of the thread that answers the kernel, for the warden: as long as that thread hangs, everybody on the
//! host who opens a protected file waits.
//!
//! An eventfd(2) counts the beats; nobody can forge one who has not been handed it.

use std::{
    cell::Cell,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::eventfd::{EfdFlags, EventFd},
};

/// The time between two beats of a thread with nothing else to do. A busy one beats no more often.
pub const EVERY: Duration = Duration::from_millis(250);
/// How long it may be silent (CLOCK_MONOTONIC: a suspended machine is not silent).
pub const SILENCE: Duration = Duration::from_secs(2);
/// The same before the first beat: until then nobody can be waiting.
const FIRST: Duration = Duration::from_secs(10);
/// How often the warden looks. It acts on the second look that finds silence, so a warden that did not run either gives
/// the thread this much time to show itself.
pub const LOOK: Duration = Duration::from_millis(500);

/// The thread's side.
#[derive(Debug)]
pub struct Pulse {
    beats: EventFd,
    last: Cell<Option<Instant>>,
}

impl Pulse {
    pub fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self { beats: EventFd::from_flags(flags)?, last: Cell::new(None) })
    }

    /// What the warden gets.
    pub fn beats(&self) -> BorrowedFd<'_> {
        self.beats.as_fd()
    }

    /// Says that the thread lives; a look at the clock, and at most four times a second a system call.
    pub fn beat(&self) {
        let now = Instant::now();
        if self.last.get().is_none_or(|last| now.duration_since(last) >= EVERY) {
            // It can only fail when 2^64 beats were not looked at.
            self.beats.write(1).ok();
            self.last.set(Some(now));
        }
    }
}

/// The warden's side.
#[derive(Debug)]
pub struct Watch {
    beats: OwnedFd,
    limit: Duration,
    heard: Instant,
    silent: bool,
}

impl Watch {
    pub fn new(beats: OwnedFd, now: Instant) -> Self {
        Self { beats, limit: FIRST, heard: now, silent: false }
    }

    /// Looks for a beat. True when the thread hangs: two looks in a row found it silent for too long.
    pub fn hangs(&mut self, now: Instant) -> bool {
        let mut count = [0; size_of::<u64>()];
        match nix::unistd::read(&self.beats, &mut count) {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            // A counter that cannot be read tells nothing: the supervisor's end is seen all the same.
            Ok(_) | Err(_) => {
                (self.heard, self.limit, self.silent) = (now, SILENCE, false);
                return false;
            }
        }
        let silent = now.duration_since(self.heard) >= self.limit;
        std::mem::replace(&mut self.silent, silent) && silent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_believed_on_the_second_look() {
        let pulse = Pulse::new().unwrap();
        let start = Instant::now();
        let mut watch = Watch::new(pulse.beats().try_clone_to_owned().unwrap(), start);
        assert!(!watch.hangs(start + SILENCE * 2), "before the first beat there is more time");
        pulse.beat();
        assert!(!watch.hangs(start));
        assert!(!watch.hangs(start + SILENCE - LOOK));
        // A warden that slept for an hour looks twice, too.
        assert!(!watch.hangs(start + SILENCE * 1800));
        assert!(watch.hangs(start + SILENCE * 1800 + LOOK));
    }

    #[test]
    fn a_beat_between_two_looks_is_life() {
        let pulse = Pulse::new().unwrap();
        let start = Instant::now();
        let mut watch = Watch::new(pulse.beats().try_clone_to_owned().unwrap(), start);
        pulse.beat();
        assert!(!watch.hangs(start));
        assert!(!watch.hangs(start + SILENCE));
        pulse.last.set(None);
        pulse.beat();
        assert!(!watch.hangs(start + SILENCE * 2));
        assert!(!watch.hangs(start + SILENCE * 4));
        assert!(watch.hangs(start + SILENCE * 4 + LOOK));
        // Beats that come faster than they have to are one.
        (0..1000).for_each(|_| pulse.beat());
    }
}
