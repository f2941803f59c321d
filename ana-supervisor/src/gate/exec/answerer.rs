//! The thread that reads the events. It never waits for anything but the next event: it opens only procfs, loads nothing
//! and takes no lock that is held across a system call of ours that can block. Whatever takes longer is handed on.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use nix::unistd::Pid;
use tokio::sync::mpsc::UnboundedSender;

use super::{admitted::Admitted, protected::ProtectedFiles};
use crate::sys::fanotify::{Answer, Buffer, Event, Group};

/// An event of the session that waits for its answer. Dropping it denies.
#[derive(Debug)]
pub struct Blocked {
    group: Arc<Group>,
    pub pid: Pid,
    /// Whether this is an exec (its first event).
    pub exec: bool,
    /// The file itself, opened by the kernel.
    pub file: File,
    /// The process; its number cannot mean another one while this is open and the process lives.
    pub process: Arc<OwnedFd>,
    answered: bool,
}

impl Blocked {
    /// Lets the open (or exec) go on.
    pub fn allow(mut self) -> io::Result<Unblocked> {
        self.answer(Answer::Allow)?;
        let file = self.file.try_clone()?;
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
    pub file: File,
    pub process: Arc<OwnedFd>,
    pub pid: Pid,
}

/// The state of the answering thread.
pub struct Answerer {
    pub group: Arc<Group>,
    /// What the session's cgroups start with in /proc/PID/cgroup.
    pub prefix: String,
    pub protected: Arc<ProtectedFiles>,
    pub admitted: Arc<Admitted>,
    pub arrivals: UnboundedSender<Blocked>,
}

impl Answerer {
    /// Reads and answers for ever.
    ///
    /// # Errors
    /// When events cannot be read any more: the session has to end.
    pub fn run(&self) -> io::Result<()> {
        let mut buffer = Buffer::default();
        let mut events = Vec::with_capacity(64);
        loop {
            match self.group.read(&mut buffer, &mut events) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // Too many descriptors are open: the kernel has denied that one event.
                Err(error) if error.raw_os_error() == Some(libc::EMFILE) => {}
                other => other?,
            }
            for event in events.drain(..) {
                self.take(event);
            }
        }
    }

    fn take(&self, event: Event) {
        let exec = event.is_exec();
        let inside = match Place::of(event.pid, self.prefix.as_bytes()) {
            Place::Outside => {
                self.answer(event.file.as_fd(), Answer::Allow);
                return;
            }
            Place::Inside => event.process,
            Place::Gone => None,
        };
        let Some(process) = inside else {
            // It ended while it waited: whatever the answer, its open will not return.
            self.answer(event.file.as_fd(), Answer::Deny);
            return;
        };
        let blocked = Blocked {
            group: Arc::clone(&self.group),
            pid: Pid::from_raw(event.pid),
            exec,
            file: File::from(event.file),
            process: Arc::new(process),
            answered: false,
        };
        if !exec && self.is_second_event(&blocked) {
            drop(blocked.allow());
            return;
        }
        // The receiver is gone only when the session ends: then dropping denies.
        drop(self.arrivals.send(blocked));
    }

    fn is_second_event(&self, blocked: &Blocked) -> bool {
        let Some((stat, _)) = self.protected.find(&blocked.file) else { return false };
        // Nothing else in the process can open: a hold lets its exec go on only when every other thread has stopped.
        self.admitted.pay(blocked.pid, stat)
    }

    fn answer(&self, file: BorrowedFd, answer: Answer) {
        // Fails only with ENOENT: the process was killed while it waited.
        drop(self.group.answer(file, answer));
    }
}

enum Place {
    /// Not in the session: not ours to stop.
    Outside,
    Inside,
    /// It has ended, or cannot be looked at.
    Gone,
}

impl Place {
    fn of(pid: i32, prefix: &[u8]) -> Self {
        // The process is in no pid namespace that we see: every process of the session is in ours or one below.
        if pid == 0 {
            return Self::Outside;
        }
        // The v2 line is the last; those of v1 hierarchies before it may be long.
        let mut text = Vec::with_capacity(1024);
        if File::open(format!("/proc/{pid}/cgroup")).and_then(|mut f| f.read_to_end(&mut text)).is_err() {
            return Self::Gone;
        }
        let lines = text.split(|&b| b == b'\n');
        match lines.filter_map(|line| line.strip_prefix(b"0::")).next() {
            Some(path) if path.starts_with(prefix) => Self::Inside,
            Some(_) => Self::Outside,
            None => Self::Gone,
        }
    }
}
