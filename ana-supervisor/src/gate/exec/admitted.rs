//! What a process that was let through is still owed: the second event of its exec, and later opens of the file it was
//! approved to run.

use std::{
    collections::HashMap,
    fs,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use nix::unistd::Pid;

use super::protected::Stat;
use crate::sys;

/// Admissions that are kept before the dead ones are swept.
const SWEEP_AT: usize = 512;

#[derive(Debug, Default)]
pub struct Admitted(Mutex<Books>);

#[derive(Debug, Default)]
struct Books {
    /// (process, file) → how many FAN_OPEN_PERM events are owed.
    owed: HashMap<(Pid, Stat), u32>,
    /// (process, file) → the permission to open it again.
    tickets: HashMap<(Pid, Stat), Admission>,
}

/// A process may open the file that it was approved to run.
#[derive(Clone, Debug)]
pub struct Admission {
    process: Arc<OwnedFd>,
    /// What was approved; the file must still be that.
    pub hash: [u8; 32],
}

impl Admitted {
    fn lock(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An exec's first event is about to be allowed: its second one is owed.
    pub fn owe(&self, pid: Pid, file: Stat) {
        *self.lock().owed.entry((pid, file)).or_default() += 1;
    }

    /// Uses up what [`owe`](Self::owe) promised; false when nothing is owed.
    pub fn pay(&self, pid: Pid, file: Stat) -> bool {
        let mut books = self.lock();
        let Some(count) = books.owed.get_mut(&(pid, file)) else { return false };
        *count -= 1;
        if *count == 0 {
            books.owed.remove(&(pid, file));
        }
        true
    }

    /// The exec is over, one way or the other: nothing is owed to it any more.
    pub fn settle(&self, pid: Pid) {
        self.lock().owed.retain(|(owner, _), _| *owner != pid);
    }

    /// A ticket was used: the process may open this file as long as it lives.
    pub fn admit(&self, pid: Pid, process: Arc<OwnedFd>, file: Stat, hash: [u8; 32]) {
        let mut books = self.lock();
        if books.tickets.len() >= SWEEP_AT {
            books.tickets.retain(|_, admission| admission.alive());
        }
        books.tickets.insert((pid, file), Admission { process, hash });
    }

    /// The admission of exactly this living process.
    pub fn admission(&self, pid: Pid, file: Stat) -> Option<Admission> {
        self.lock().tickets.get(&(pid, file)).filter(|admission| admission.alive()).cloned()
    }
}

impl Admission {
    /// A pid that is used again must not inherit: as long as the pidfd's process lives, the pid is its.
    fn alive(&self) -> bool {
        sys::process::ended(self.process.as_fd()).is_ok_and(|ended| !ended)
    }
}

/// How many threads the process has; `None` when it is gone.
pub fn threads(pid: Pid) -> Option<usize> {
    Some(fs::read_dir(format!("/proc/{pid}/task")).ok()?.count())
}

/// Whether a thread of the process other than an exec is blocked in a system call that opens files. With several
/// threads this tells an exec's own second event from the open of another thread that wants to pass for it.
pub fn another_opens(pid: Pid) -> bool {
    match threads(pid) {
        Some(1) => return false,
        Some(_) => {}
        None => return true,
    }
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    for task in tasks.flatten() {
        // Gone meanwhile: it is not blocked in an open.
        let Ok(call) = fs::read_to_string(task.path().join("syscall")) else { continue };
        let number = call.split(' ').next().and_then(|n| n.trim().parse::<i64>().ok());
        if number.is_some_and(|n| OPENING.contains(&n)) {
            return true;
        }
    }
    false
}

/// System calls that open a file for their caller (x86-64).
const OPENING: [i64; 6] = [
    libc::SYS_open,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_creat,
    libc::SYS_open_by_handle_at,
    libc::SYS_uselib,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_debt_is_paid_once_and_an_admission_ends_with_its_process() {
        let books = Admitted::default();
        let file = (1, 2);
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_raw(child.id().cast_signed());
        assert!(!books.pay(pid, file));
        books.owe(pid, file);
        assert!(!books.pay(pid, (1, 3)));
        assert!(books.pay(pid, file) && !books.pay(pid, file));
        books.owe(pid, file);
        books.settle(pid);
        assert!(!books.pay(pid, file));

        books.admit(pid, Arc::new(sys::process::pidfd_open(pid).unwrap()), file, [7; 32]);
        assert_eq!(books.admission(pid, file).unwrap().hash, [7; 32]);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(books.admission(pid, file).is_none());
    }
}
