//! Who has been killed: runs no instruction of a program any more, even if it cannot end yet.

use std::fs;

use nix::unistd::Pid;

use crate::sys::process::{is_gone, small_text, stat_fields};

/// Of the flags of a thread (include/linux/sched.h): on its way out; an io_uring worker, which runs no program, but opens and
/// reads for one; has taken its fatal signal.
const PF_EXITING: u64 = 0x4;
const PF_IO_WORKER: u64 = 0x10;
const PF_SIGNALED: u64 = 0x400;
/// SIGKILL in a mask of pending signals.
const KILLED: u64 = 1 << (libc::SIGKILL - 1);

/// Whether every thread of the process ends, or has to end, before it runs anything again. What cannot be read may run.
pub(super) fn is_doomed(pid: Pid) -> bool {
    let threads = match fs::read_dir(format!("/proc/{pid}/task")) {
        Ok(threads) => threads,
        Err(error) => return is_gone(&error),
    };
    threads.into_iter().all(|thread| {
        let stat = thread.and_then(|thread| small_text(thread.path().join("stat")));
        stat.map_or_else(|error| is_gone(&error), |stat| is_killed(&stat).unwrap_or(false))
    })
}

/// proc_pid_stat(5): the state is the 3rd of all fields, the flags are the 9th, the thread's pending signals the 31st. `None`: it
/// says something else.
fn is_killed(stat: &str) -> Option<bool> {
    let fields = stat_fields(stat)?;
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let (flags, pending) = (number(9)?, number(31)?);
    let ends = match flags & PF_IO_WORKER {
        0 => flags & (PF_EXITING | PF_SIGNALED) != 0 || pending & KILLED != 0,
        _ => flags & PF_EXITING != 0,
    };
    // Who has a processor may be in the middle of a fork.
    Some(ends && fields.first() != Some(&"R"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_killed_is_doomed_and_who_runs_is_not() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_raw(child.id().cast_signed());
        assert!(!is_doomed(pid) && !is_doomed(Pid::this()));
        child.kill().unwrap();
        // Until it has been waited for it is there, and at the latest as a zombie it is doomed.
        let wait = nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOWAIT;
        nix::sys::wait::waitid(nix::sys::wait::Id::Pid(pid), wait).unwrap();
        assert!(is_doomed(pid));
        child.wait().unwrap();
        assert!(is_doomed(pid), "it is gone");
    }

    #[test]
    fn a_killed_thread_that_waits_has_its_signal_pending() {
        // A name may hold anything.
        let stat = |flags: u64, pending: u64| {
            format!("7 (a) \u{fffd}) D 1 7 7 0 -1 {flags} {}{pending} 0 0", "0 ".repeat(21))
        };
        assert_eq!(is_killed(&stat(0x40_0400, 0)), Some(true));
        assert_eq!(is_killed(&stat(0x40_0010, 0x100)), Some(false), "a worker of io_uring goes on");
        assert_eq!(is_killed(&stat(0x40_0000, 0x100).replace(") D", ") R")), Some(false));
        assert_eq!(is_killed(&stat(0x40_0000, 0x100)), Some(true));
        assert_eq!(is_killed(&stat(0x40_0004, 0)), Some(true));
        assert_eq!(is_killed(&stat(0x40_0000, 0x4000)), Some(false));
        assert_eq!(is_killed("7 (a) D 1 7"), None);
    }
}
