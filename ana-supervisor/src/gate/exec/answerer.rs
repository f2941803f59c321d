//! The threads that read the events. The one that leads never waits for anything but the next event: it opens only
//! procfs, loads nothing and takes no lock that is held across a system call of ours that can block. Whatever takes
//! longer is handed on.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
};

use nix::unistd::Pid;
use tokio::sync::mpsc::UnboundedSender;

use super::{
    Common,
    crew::{Crew, Duty},
    look::Looker,
    place::{Place, Places},
    quick::{Quick, Request},
};
use crate::{
    launch::pulse::{self, Pulse},
    sys::fanotify::{Answer, Buffer, Event, Group},
};

/// An event of the session that waits for its answer. Dropping it denies.
#[derive(Debug)]
pub struct Blocked {
    group: Arc<Group>,
    pub pid: Pid,
    /// Whether this is an exec (its first event).
    pub exec: bool,
    /// The file itself, opened by the kernel.
    pub file: Arc<File>,
    /// The process; its number cannot mean another one while this is open and the process lives.
    pub process: Arc<OwnedFd>,
    answered: bool,
}

impl Blocked {
    /// Lets the open (or exec) go on.
    pub fn allow(mut self) -> io::Result<Unblocked> {
        self.answer(Answer::Allow)?;
        let file = Arc::clone(&self.file);
        Ok(Unblocked { file, process: Arc::clone(&self.process), pid: self.pid })
    }

    fn answer(&mut self, answer: Answer) -> io::Result<()> {
        self.answered = true;
        self.group.answer(self.file.as_fd(), answer)
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        if !self.answered {
            // ENOENT: the process was killed meanwhile. Nothing else can be done about an error here, and the process
            // stays blocked.
            drop(self.answer(Answer::Deny));
        }
    }
}

/// What remains of an event that was allowed.
#[derive(Debug)]
pub struct Unblocked {
    pub file: Arc<File>,
    pub process: Arc<OwnedFd>,
    pub pid: Pid,
}

/// What the answering threads share.
pub struct Answerer {
    pub group: Arc<Group>,
    pub places: Places,
    pub common: Arc<Common>,
    pub arrivals: UnboundedSender<Blocked>,
    pub quick: Quick,
    pub crew: Crew<Request>,
    /// How the warden knows that somebody leads.
    pub pulse: Mutex<Pulse>,
}

/// How many threads answer: one leads, and up to so many less one look into agents' memories at a time.
pub const THREADS: usize = 4;

impl Answerer {
    /// Reads and answers for ever. One of [`THREADS`]; `looker` is this thread's own.
    ///
    /// # Errors
    /// When events cannot be read any more: the session has to end.
    pub fn run(&self, looker: &mut Looker) -> io::Result<()> {
        let mut buffer = Buffer::default();
        let mut events = Vec::with_capacity(64);
        loop {
            match self.crew.duty() {
                Duty::Lead => {
                    if let Some(request) = self.lead(&mut buffer, &mut events)? {
                        self.work(looker, request);
                    }
                }
                Duty::Work(request) => self.work(looker, request),
            }
        }
    }

    /// Reads and answers until there is work that only this thread is left for; then it leads no more.
    fn lead(&self, buffer: &mut Buffer, events: &mut Vec<Event>) -> io::Result<Option<Request>> {
        // The leader's alone, so that nobody waits for it.
        let pulse = self.pulse.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            pulse.beat();
            if !self.group.wait(pulse::EVERY)? {
                continue;
            }
            match self.group.read(buffer, events) {
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) =>
                {
                    continue;
                }
                // Too many descriptors are open: the kernel has denied that one event.
                Err(error) if error.raw_os_error() == Some(libc::EMFILE) => {}
                other => other?,
            }
            let mut own = None;
            for event in events.drain(..) {
                let Some(request) = self.take(event) else { continue };
                if let Some(earlier) = own.replace(request)
                    && let Err(earlier) = self.crew.hand_over(earlier)
                {
                    self.onward(earlier.blocked);
                }
            }
            match own {
                Some(request) if self.crew.resign() => return Ok(Some(request)),
                // Nobody is left to lead: it goes the way that takes no thread.
                Some(request) => self.onward(request.blocked),
                None => {}
            }
        }
    }

    fn work(&self, looker: &mut Looker, request: Request) {
        if let Err(blocked) = self.quick.attempt(looker, request) {
            self.onward(blocked);
        }
    }

    /// Answers at once what can be; gives back what may be let through without a hold.
    fn take(&self, event: Event) -> Option<Request> {
        let exec = event.is_exec();
        let (process, info) = match self.places.of(event.pid, event.process.as_ref()) {
            Place::Outside => {
                self.answer(event.file.as_fd(), Answer::Allow);
                return None;
            }
            Place::Inside(info) => (event.process, info),
            Place::Gone => (None, None),
        };
        let Some(process) = process else {
            // It ended while it waited: whatever the answer, its open will not return.
            self.answer(event.file.as_fd(), Answer::Deny);
            return None;
        };
        let blocked = Blocked {
            group: Arc::clone(&self.group),
            pid: Pid::from_raw(event.pid),
            exec,
            file: Arc::new(File::from(event.file)),
            process: Arc::new(process),
            answered: false,
        };
        let found = self.common.protected.find(&blocked.file);
        match found {
            // Nothing else in the process can open: a hold lets its exec go on only when every other thread has stopped,
            // and without a hold there is one thread.
            Some((stat, _)) if !exec && self.common.admitted.pay(blocked.pid, stat) => drop(blocked.allow()),
            Some((stat, object)) if exec && self.quick.may(&object) => {
                return Some(Request { blocked, stat, object, info });
            }
            _ => self.onward(blocked),
        }
        None
    }

    /// To be held, or to be refused with a reason.
    fn onward(&self, blocked: Blocked) {
        // The receiver is gone only when the session ends: then dropping denies.
        drop(self.arrivals.send(blocked));
    }

    fn answer(&self, file: BorrowedFd, answer: Answer) {
        // ENOENT: nobody waits for it any more.
        drop(self.group.answer(file, answer));
    }
}
