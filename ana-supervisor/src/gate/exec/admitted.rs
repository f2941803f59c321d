//! What a process that was let through is still owed: the second event of its exec, and its interpreter's reading of the
//! script it was approved to run. (A program needs no second look at its own executable.)

use std::{
    collections::HashMap,
    fs, io,
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
    /// (process, file) → how many FAN_OPEN_PERM events are owed, and to which life of the pid.
    owed: HashMap<(Pid, Stat), (u32, Arc<OwnedFd>)>,
    /// (process, file) → the permission to open it again.
    tickets: HashMap<(Pid, Stat), Admission>,
}

/// A process may read the script that it was approved to run.
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
    pub fn owe(&self, pid: Pid, process: &Arc<OwnedFd>, file: Stat) {
        let mut books = self.lock();
        if books.owed.len() >= SWEEP_AT {
            books.owed.retain(|_, (_, process)| alive(process));
        }
        let debt = books.owed.entry((pid, file)).or_insert_with(|| (0, Arc::clone(process)));
        if !alive(&debt.1) {
            // Whoever had this number before has died before he was paid.
            *debt = (0, Arc::clone(process));
        }
        debt.0 += 1;
    }

    /// Uses up what [`owe`](Self::owe) promised; false when nothing is owed.
    pub fn pay(&self, pid: Pid, file: Stat) -> bool {
        let mut books = self.lock();
        let Some((count, process)) = books.owed.get_mut(&(pid, file)) else { return false };
        let due = alive(process);
        *count -= 1;
        if *count == 0 || !due {
            books.owed.remove(&(pid, file));
        }
        due
    }

    /// Whether the second event of an exec of this process is still to come.
    pub fn owes(&self, pid: Pid) -> bool {
        self.lock().owed.keys().any(|(owner, _)| *owner == pid)
    }

    /// The exec is over, one way or the other: nothing is owed to it any more.
    pub fn settle(&self, pid: Pid) {
        self.lock().owed.retain(|(owner, _), _| *owner != pid);
    }

    /// A ticket for a script was used: as long as the process lives, an interpreter in it may read the script.
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
    fn alive(&self) -> bool {
        alive(&self.process)
    }
}

/// A pid that is used again must not inherit: as long as the pidfd's process lives, the pid is its.
fn alive(process: &OwnedFd) -> bool {
    sys::process::ended(process.as_fd()).is_ok_and(|ended| !ended)
}

/// Whether every thread of the process but one is stopped on its way back to user mode (by the freezer, or by a signal),
/// and that one is blocked in a fanotify event of an exec: then nothing in the process can happen until it is answered.
/// How many threads there are says nothing: another thread's exec may have ended the one that the event was for.
pub fn alone(pid: Pid) -> io::Result<bool> {
    let mut blocked = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?.path();
        let place = fs::read_to_string(task.join("wchan"))?;
        // do_freezer_trap and do_signal_stop are inlined into get_signal on many kernels.
        if ["get_signal", "do_freezer_trap", "do_signal_stop"].contains(&place.as_str()) {
            continue;
        }
        if !place.starts_with("fanotify_") || !executes(&fs::read_to_string(task.join("syscall"))?) {
            return Ok(false);
        }
        blocked += 1;
    }
    Ok(blocked == 1)
}

/// execve and execveat, of x86-64 and of i386. (What has these numbers in the other one opens no files.)
fn executes(call: &str) -> bool {
    const CALLS: [i64; 4] = [libc::SYS_execve, libc::SYS_execveat, 11, 358];
    let number = call.split_whitespace().next().and_then(|number| number.parse().ok());
    number.is_some_and(|number: i64| CALLS.contains(&number))
}

/// Whether a thread of a process that is blocked in an open wants to write.
pub fn opens_for_writing(pid: Pid) -> io::Result<bool> {
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let call = fs::read_to_string(task?.path().join("syscall"))?;
        let mut fields = call.split_whitespace();
        let number = fields.next().and_then(|n| n.parse::<i64>().ok());
        let arguments: Vec<u64> =
            fields.map_while(|f| u64::from_str_radix(f.trim_start_matches("0x"), 16).ok()).collect();
        let flags = match number {
            Some(libc::SYS_open) => arguments.get(1).copied(),
            Some(libc::SYS_openat) => arguments.get(2).copied(),
            // These write, or keep their flags in the process's own memory.
            Some(libc::SYS_creat | libc::SYS_openat2) => Some(libc::O_WRONLY as u64),
            _ => None,
        };
        let writing = (libc::O_WRONLY | libc::O_RDWR | libc::O_TRUNC) as u64;
        if flags.is_some_and(|flags| flags & writing != 0) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_debt_is_paid_once_and_an_admission_ends_with_its_process() {
        let books = Admitted::default();
        let file = (1, 2);
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_raw(child.id().cast_signed());
        let process = Arc::new(sys::process::pidfd_open(pid).unwrap());
        assert!(!books.pay(pid, file));
        books.owe(pid, &process, file);
        assert!(!books.pay(pid, (1, 3)));
        assert!(books.owes(pid));
        assert!(books.pay(pid, file) && !books.pay(pid, file));
        assert!(!books.owes(pid));
        books.owe(pid, &process, file);
        books.settle(pid);
        assert!(!books.pay(pid, file));
        books.owe(pid, &process, file);

        books.admit(pid, Arc::clone(&process), file, [7; 32]);
        assert_eq!(books.admission(pid, file).unwrap().hash, [7; 32]);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(books.admission(pid, file).is_none());
        assert!(!books.pay(pid, file), "a debt ends with its process, too");
    }
}
