//! The thread that reads the events. It never waits for anything but the next one: it opens only procfs, writes only below
//! /run, loads nothing and takes no lock that is held across a system call of ours that can block. Whatever takes longer
//! is handed on.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use nix::unistd::Pid;
use tokio::sync::mpsc::UnboundedSender;

use super::{
    Common,
    look::Lookers,
    place::{Place, Places},
    protected::stat_in,
    quick::{Attempt, Quick, Request},
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

/// The thread that answers, and what it needs for it.
pub struct Answerer {
    pub group: Arc<Group>,
    pub places: Places,
    pub common: Arc<Common>,
    pub arrivals: UnboundedSender<Blocked>,
    pub quick: Quick,
    pub lookers: Lookers<Attempt>,
    /// How the warden knows that this thread lives.
    pub pulse: Pulse,
}

impl Answerer {
    /// Reads and answers for ever.
    ///
    /// # Errors
    /// When events cannot be read any more: the session has to end.
    pub fn run(mut self) -> io::Result<()> {
        let mut buffer = Buffer::default();
        let mut events = Vec::with_capacity(64);
        // Something was let through, and whoever writes it down has not been told.
        let mut untold = false;
        loop {
            self.pulse.beat();
            let (some, rung) = self.group.wait(self.lookers.bell(), self.patience())?;
            for (attempt, seen) in if rung { self.lookers.told() } else { Vec::new() } {
                match self.quick.finish(attempt, seen) {
                    Ok(()) => untold = true,
                    Err(blocked) => self.onward(blocked),
                }
            }
            for attempt in self.lookers.late() {
                self.onward(attempt.give_up());
            }
            if some {
                match self.group.read(&mut buffer, &mut events) {
                    Err(error)
                        if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {
                    }
                    // Too many descriptors are open: the kernel has denied that one event.
                    Err(error) if error.raw_os_error() == Some(libc::EMFILE) => {}
                    other => other?,
                }
            }
            for event in events.drain(..) {
                self.take(event);
            }
            // Not before its process has been answered for the second time, if that comes soon.
            if untold && !rung {
                self.quick.passed.tell();
                untold = false;
            }
        }
    }

    /// How long the next event is waited for. What was let through asks a second time at once, and is told then; a shorter
    /// patience would set a timer, which costs a process more than anything else here.
    fn patience(&self) -> Duration {
        let look = self.lookers.until().map(|until| until.saturating_duration_since(Instant::now()));
        look.unwrap_or(pulse::EVERY).min(pulse::EVERY)
    }

    /// Answers at once what can be; hands on what cannot.
    fn take(&mut self, event: Event) {
        let exec = event.is_exec();
        let (process, info) = match self.places.of(event.pid, event.process.as_ref()) {
            Place::Outside => return self.answer(event.file.as_fd(), Answer::Allow),
            Place::Inside(info) => (event.process, info),
            Place::Gone => (None, None),
        };
        let Some(process) = process else {
            // It ended while it waited: whatever the answer, its open will not return.
            return self.answer(event.file.as_fd(), Answer::Deny);
        };
        let blocked = Blocked {
            group: Arc::clone(&self.group),
            pid: Pid::from_raw(event.pid),
            exec,
            file: Arc::new(File::from(event.file)),
            process: Arc::new(process),
            answered: false,
        };
        let Ok(meta) = blocked.file.metadata() else { return self.onward(blocked) };
        let stat = stat_in(&meta);
        match self.common.protected.get(stat) {
            // Nothing else in the process can open: a hold lets its exec go on only when every other thread has stopped,
            // and without a hold there is one thread.
            Some(_) if !exec && self.common.admitted.pay(blocked.pid, stat) => drop(blocked.allow()),
            // Of one that is held it is the interpreter: judged with the script, by the rules of both.
            Some(object) if exec && !self.common.on_their_way.has(blocked.pid) && self.quick.may(&object) => {
                self.attempt(Request { blocked, stat, object, meta, info });
            }
            _ => self.onward(blocked),
        }
    }

    /// Begins to let an exec through without a hold.
    fn attempt(&mut self, request: Request) {
        let Some(plain) = self.quick.plain(&request) else { return self.onward(request.blocked) };
        let Some(place) = self.lookers.ask(request.blocked.pid) else { return self.onward(request.blocked) };
        // While somebody looks at the memory.
        match self.quick.known(&request.blocked, plain) {
            Some(known) => *place = Some(Attempt { request, known }),
            None => self.onward(request.blocked),
        }
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
