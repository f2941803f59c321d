//! In a pid namespace with few numbers: a process fails to execute the protected program, with arguments that are allowed,
//! and ends; another one gets its number and executes it with arguments that are not. Arguments: the program, the rounds.
#![allow(unsafe_code, reason = "fork")]

use std::{ffi::CString, fs, path::Path};

use ana_tests::attempt::{argument, c_environment, c_path, enter_namespaces, mount, say, tell, tell_io};
use nix::{
    errno::Errno,
    mount::MsFlags,
    sched::{CloneFlags, unshare},
    sys::wait::{WaitStatus, waitpid},
    unistd::{ForkResult, Pid, execve, fork},
};

/// Longer than the kernel takes one argument (MAX_ARG_STRLEN).
const TOO_LONG: usize = 140_000;

fn main() {
    let rounds: u32 = argument(2).to_str().and_then(|text| text.parse().ok()).unwrap_or(20);
    if !enter_namespaces() || tell("unshare-pid", unshare(CloneFlags::CLONE_NEWPID)).is_none() {
        say("rounds 0 reused 0");
        return;
    }
    // SAFETY: this process has one thread, so the child may do whatever it likes.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => {
            first_of_all(rounds);
            std::process::exit(0);
        }
        Ok(ForkResult::Parent { child }) => drop(tell("wait", waitpid(child, None))),
        Err(errno) => drop(tell::<()>("fork", Err(errno))),
    }
}

/// The first process of the namespace.
fn first_of_all(rounds: u32) {
    if mount("proc", Path::new("proc"), Path::new("/proc"), Some("proc"), MsFlags::empty(), None) {
        // Since Linux 6.14 the number is the namespace's own.
        tell_io("pid_max", fs::write("/proc/sys/kernel/pid_max", "301"));
    }
    let path = c_path(&argument(1));
    let environment = c_environment();
    let long = CString::new(vec![b'x'; TOO_LONG]).unwrap_or_default();
    let (mut reused, mut ran) = (0, 0);
    for _ in 0..rounds {
        let failing = [c"deploy".to_owned(), c"status".to_owned(), long.clone()];
        let Some((pid, _)) = child(|_| execve(&path, &failing, &environment).map(drop)) else { continue };
        for _ in 0..2000 {
            let attack = |own: Pid| match own == pid {
                true => execve(&path, &[c"deploy", c"attack"], &environment).map(drop),
                false => Err(Errno::EAGAIN),
            };
            let Some((own, ended)) = child(attack) else { continue };
            if own == pid {
                reused += 1;
                ran += u32::from(ended == WaitStatus::Exited(own, 0));
                break;
            }
        }
    }
    say(&format!("rounds {rounds} reused {reused} ran {ran}"));
}

/// A child that does this, and how it ended.
fn child(what: impl FnOnce(Pid) -> Result<(), Errno>) -> Option<(Pid, WaitStatus)> {
    // SAFETY: this process has one thread, so the child may do whatever it likes.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => std::process::exit(what(Pid::this()).map_or(126, |()| 0)),
        Ok(ForkResult::Parent { child }) => Some((child, waitpid(child, None).ok()?)),
        Err(_full) => None,
    }
}
