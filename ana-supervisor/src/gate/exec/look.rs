//! The threads that look into agents' memories. A page there may lie on a file system that does not answer, and who has
//! asked one (FUSE) cannot be killed until it does: such a thread would keep every descriptor of the supervisor open after
//! the supervisor's death, the fanotify group among them, and the host's opens would wait. So it has none, but the bell
//! that it rings when it is done.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    time::{Duration, Instant},
};

use nix::{
    sys::eventfd::{EfdFlags, EventFd},
    unistd::Pid,
};

use super::call::Call;
use crate::sys;

/// How long a look may take. Who waits longer is held.
const LIMIT: Duration = Duration::from_millis(100);
/// How many look at a time.
const THREADS: usize = 4;

/// What is seen: the arguments and the environment of an exec, or why they are not.
pub type Seen = io::Result<Option<Call>>;

/// All those threads. Each ends when this is dropped, or never.
#[derive(Debug)]
pub struct Lookers<Work> {
    all: Vec<Looker<Work>>,
    told: Arc<Told>,
}

#[derive(Debug)]
struct Looker<Work> {
    asked: Sender<Pid>,
    busy: Option<Busy<Work>>,
}

#[derive(Debug)]
struct Busy<Work> {
    /// What the look is for; `None`: nobody wants it any more.
    work: Option<Work>,
    until: Instant,
}

/// What the threads have seen, each by its number.
#[derive(Debug)]
struct Told {
    seen: Mutex<Vec<(usize, Seen)>>,
    bell: EventFd,
}

impl<Work> Lookers<Work> {
    /// # Errors
    /// No thread or no bell can be had.
    pub fn start() -> io::Result<Self> {
        let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let told = Arc::new(Told { seen: Mutex::default(), bell });
        let start = |number| {
            let (asked, questions) = channel();
            let told = Arc::clone(&told);
            std::thread::Builder::new()
                .name("ana-looker".to_owned())
                .spawn(move || look(number, &questions, &told))?;
            Ok(Looker { asked, busy: None })
        };
        Ok(Self { all: (0..THREADS).map(start).collect::<io::Result<_>>()?, told })
    }

    /// Has a thread look at the call of a process that is blocked in its exec, and does not wait. Give the place what it is
    /// for. `None`: all are busy.
    pub fn ask(&mut self, pid: Pid) -> Option<&mut Option<Work>> {
        let mut idle = self.all.iter_mut().filter(|looker| looker.busy.is_none());
        // A thread that could not let go of its descriptors has ended.
        let idle = idle.find(|looker| looker.asked.send(pid).is_ok())?;
        let busy = idle.busy.insert(Busy { work: None, until: Instant::now() + LIMIT });
        Some(&mut busy.work)
    }

    /// Readable when there is something to be told.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.told.bell.as_fd()
    }

    /// What has been seen since the last time.
    pub fn told(&mut self) -> Vec<(Work, Seen)> {
        // EAGAIN: it has not rung.
        self.told.bell.read().ok();
        let seen = std::mem::take(&mut *self.told.seen.lock().unwrap_or_else(PoisonError::into_inner));
        let work = seen.into_iter().filter_map(|(number, seen)| {
            let busy = self.all.get_mut(number)?.busy.take()?;
            Some((busy.work?, seen))
        });
        work.collect()
    }

    /// Gives up the looks that take too long; their threads are busy until they have seen something.
    pub fn late(&mut self) -> Vec<Work> {
        let now = Instant::now();
        let busy = self.all.iter_mut().filter_map(|looker| looker.busy.as_mut());
        busy.filter(|busy| busy.until <= now).filter_map(|busy| busy.work.take()).collect()
    }

    /// When [`late`](Self::late) has to be asked next.
    pub fn until(&self) -> Option<Instant> {
        let busy = self.all.iter().filter_map(|looker| looker.busy.as_ref());
        busy.filter(|busy| busy.work.is_some()).map(|busy| busy.until).min()
    }
}

fn look(number: usize, questions: &Receiver<Pid>, told: &Told) {
    if let Err(error) = sys::thread::with_no_descriptor_but(told.bell.as_fd()) {
        // Its channel ends with it: nothing is looked at, everything is held.
        tracing::error!(%error, "a thread cannot let go of the descriptors");
        return;
    }
    while let Ok(pid) = questions.recv() {
        let seen = Call::read(pid);
        told.seen.lock().unwrap_or_else(PoisonError::into_inner).push((number, seen));
        // It can only fail when it has been rung 2^64 times.
        told.bell.write(1).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_look_with_one_descriptor() {
        let mut lookers = Lookers::start().unwrap();
        // A process that executes nothing has no call.
        let mut child = super::super::call::tests::idle();
        let pid = Pid::from_raw(child.id().cast_signed());
        for work in 0..THREADS {
            *lookers.ask(pid).unwrap() = Some(work);
        }
        assert!(lookers.ask(pid).is_none(), "all are busy");
        assert!(lookers.until().unwrap() > Instant::now());
        let mut seen = Vec::new();
        while seen.len() < THREADS {
            nix::poll::poll(
                &mut [nix::poll::PollFd::new(lookers.bell(), nix::poll::PollFlags::POLLIN)],
                1000u16,
            )
            .unwrap();
            seen.extend(lookers.told());
        }
        assert!(seen.iter().all(|(_, seen)| matches!(seen, Ok(None))), "{seen:?}");
        assert_eq!(lookers.until(), None);
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
        let name = |task: &std::path::Path| std::fs::read_to_string(task.join("comm")).unwrap_or_default();
        let threads: Vec<_> = tasks.filter(|task| name(task) == "ana-looker\n").collect();
        assert!(threads.len() >= THREADS);
        for thread in threads {
            assert_eq!(std::fs::read_dir(thread.join("fd")).unwrap().count(), 1);
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn who_is_late_is_given_up_and_comes_back() {
        let mut lookers = Lookers::start().unwrap();
        let mut child = super::super::call::tests::idle();
        let pid = Pid::from_raw(child.id().cast_signed());
        *lookers.ask(pid).unwrap() = Some("one");
        // As if the look had taken that long.
        lookers.all[0].busy.as_mut().unwrap().until = Instant::now();
        assert_eq!(lookers.late(), ["one"]);
        assert_eq!((lookers.late().len(), lookers.until()), (0, None));
        while lookers.all[0].busy.is_some() {
            assert!(lookers.told().is_empty(), "it was given up");
        }
        *lookers.ask(pid).unwrap() = Some("two");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
