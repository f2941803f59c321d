//! The threads that look into agents' memories. A page there may lie on a file system that does not answer, and who has
//! asked one (FUSE) cannot be killed until it does: such a thread would keep every descriptor of the supervisor open after
//! the supervisor's death, the fanotify group among them, and the host's opens would wait. So it has none.

use std::{
    io,
    sync::mpsc::{Receiver, Sender, channel},
    time::Duration,
};

use nix::unistd::Pid;

use super::call::Call;
use crate::sys;

/// How long a look may take. Who waits longer is held.
const LIMIT: Duration = Duration::from_millis(100);

/// One such thread. It ends when this is dropped, or never.
#[derive(Debug)]
pub struct Looker {
    asked: Sender<Pid>,
    told: Receiver<io::Result<Option<Call>>>,
    /// What was asked last was not told in time.
    late: bool,
}

impl Looker {
    /// # Errors
    /// No thread can be started.
    pub fn start() -> io::Result<Self> {
        let (asked, questions) = channel();
        let (answers, told) = channel();
        std::thread::Builder::new().name("ana-looker".to_owned()).spawn(move || {
            if let Err(error) = sys::thread::without_descriptors() {
                // Its channels end with it: nothing is looked at, everything is held.
                tracing::error!(%error, "a thread cannot let go of the descriptors");
                return;
            }
            while let Ok(pid) = questions.recv() {
                if answers.send(Call::read(pid)).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { asked, told, late: false })
    }

    /// [`Call::read`], by that thread.
    ///
    /// # Errors
    /// As it, or the thread is kept waiting: for longer than the limit now, or by an earlier process still.
    pub(super) fn read(&mut self, pid: Pid) -> io::Result<Option<Call>> {
        let kept_waiting = || io::Error::from(io::ErrorKind::TimedOut);
        if self.late {
            // Nobody wants that answer any more.
            self.told.try_recv().map_err(|_none_yet| kept_waiting())?.ok();
            self.late = false;
        }
        self.asked.send(pid).map_err(io::Error::other)?;
        self.told.recv_timeout(LIMIT).unwrap_or_else(|_too_late| {
            self.late = true;
            Err(kept_waiting())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_looks_without_a_descriptor() {
        let mut looker = Looker::start().unwrap();
        // A process that executes nothing has no call.
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_raw(child.id().cast_signed());
        assert!(looker.read(pid).unwrap().is_none());
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
        let names = |task: &std::path::Path| std::fs::read_to_string(task.join("comm")).unwrap_or_default();
        let lookers: Vec<_> = tasks.filter(|task| names(task) == "ana-looker\n").collect();
        assert!(!lookers.is_empty());
        for task in lookers {
            assert_eq!(std::fs::read_dir(task.join("fd")).unwrap().count(), 0);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(looker.read(pid).is_err());
    }
}
