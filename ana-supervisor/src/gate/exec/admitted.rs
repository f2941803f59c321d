//! What a process that was let through is still owed: the second event of its exec, and its interpreter's reading of the
//! script it was approved to run. (A program needs no second look at its own executable.)

use std::{
    collections::HashMap,
    fs, io,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use nix::unistd::Pid;
use tokio::sync::watch;

use super::protected::Stat;
use crate::{gate::image::Memory, sys};

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
    /// Processes of which it is about to be known what they run.
    expected: HashMap<Pid, watch::Receiver<()>>,
}

/// The image that was approved to run a script may read it. What the same process executes after it may not.
#[derive(Clone, Debug)]
pub struct Admission {
    process: Arc<OwnedFd>,
    memory: Arc<Memory>,
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

    /// A ticket for a script was used: as long as the process lives and executes nothing else, it may read the script.
    pub fn admit(&self, pid: Pid, process: Arc<OwnedFd>, file: Stat, hash: [u8; 32], memory: Memory) {
        let mut books = self.lock();
        if books.tickets.len() >= SWEEP_AT {
            books.tickets.retain(|_, admission| admission.alive());
        }
        let memory = Arc::new(memory);
        books.tickets.insert((pid, file), Admission { process, memory, hash });
    }

    /// An admission of this process is on its way until the value that this gives is dropped.
    pub fn expect(&self, pid: Pid) -> watch::Sender<()> {
        let (sender, receiver) = watch::channel(());
        let mut books = self.lock();
        books.expected.retain(|_, other| other.has_changed().is_ok());
        books.expected.insert(pid, receiver);
        sender
    }

    /// Waits for an admission that is on its way.
    pub async fn settled(&self, pid: Pid) {
        let expected = self.lock().expected.get(&pid).cloned();
        if let Some(mut expected) = expected {
            // It ends with an error: whoever was to send has gone.
            while expected.changed().await.is_ok() {}
        }
    }

    /// The admission of exactly this living image.
    pub fn admission(&self, pid: Pid, file: Stat) -> Option<Admission> {
        self.lock().tickets.get(&(pid, file)).filter(|admission| admission.alive()).cloned()
    }
}

impl Admission {
    fn alive(&self) -> bool {
        alive(&self.process) && self.memory.lives()
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
        if is_stopped(&place) {
            continue;
        }
        if !place.starts_with("fanotify_") || !executes(&fs::read_to_string(task.join("syscall"))?) {
            return Ok(false);
        }
        blocked += 1;
    }
    Ok(blocked == 1)
}

/// Whether a thread at this place (/proc/PID/wchan) is stopped on its way back to user mode.
pub fn is_stopped(place: &str) -> bool {
    // do_freezer_trap and do_signal_stop are inlined into get_signal on many kernels.
    ["get_signal", "do_freezer_trap", "do_signal_stop"].contains(&place)
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

        let memory = Memory::of(pid).unwrap();
        books.admit(pid, Arc::clone(&process), file, [7; 32], memory);
        assert_eq!(books.admission(pid, file).unwrap().hash, [7; 32]);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(books.admission(pid, file).is_none());
        assert!(!books.pay(pid, file), "a debt ends with its process, too");
    }
}
