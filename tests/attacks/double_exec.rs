//! Two threads of one process execute at the same moment: one the protected program with allowed arguments, the other
//! it with forbidden ones, or an unprotected program. Arguments: the folder of `benign` and `deploy`, the rounds.
#![allow(unsafe_code, reason = "fork")]

use std::{
    ffi::CString,
    path::{Path, PathBuf},
    sync::Barrier,
};

use ana_tests::attempt::{argument, c_environment, c_path, say};
use nix::{
    sys::wait::{WaitStatus, waitpid},
    unistd::{ForkResult, execve, fork},
};

fn main() {
    let folder = argument(1);
    let rounds: u32 = argument(2).to_str().and_then(|text| text.parse().ok()).unwrap_or(50);
    let (deploy, benign) = (folder.join("deploy"), folder.join("benign"));
    let (mut ran, mut killed, mut other) = (0, 0, 0);
    for round in 0..rounds {
        let second: (&PathBuf, &str) = match round % 3 {
            0 => (&deploy, "attack"),
            1 => (&benign, "attack"),
            _ => (&deploy, "status"),
        };
        // SAFETY: this process has one thread whenever it forks; the child makes its own.
        match unsafe { fork() } {
            Ok(ForkResult::Child) => race(&deploy, "status", second.0, second.1),
            Ok(ForkResult::Parent { child }) => match waitpid(child, None) {
                Ok(WaitStatus::Exited(_, 0)) => ran += 1,
                Ok(WaitStatus::Signaled(..)) => killed += 1,
                _ => other += 1,
            },
            Err(_) => other += 1,
        }
    }
    say(&format!("rounds {rounds} ran {ran} killed {killed} other {other}"));
}

fn race(one: &Path, one_says: &str, two: &Path, two_says: &str) -> ! {
    let barrier = Barrier::new(2);
    let environment = c_environment();
    std::thread::scope(|scope| {
        scope.spawn(|| execute(one, one_says, &environment, &barrier));
        scope.spawn(|| execute(two, two_says, &environment, &barrier));
    });
    std::process::exit(126)
}

fn execute(program: &Path, argument: &str, environment: &[CString], barrier: &Barrier) {
    let path = c_path(program);
    let arguments = [c"deploy".to_owned(), CString::new(argument).unwrap_or_default()];
    barrier.wait();
    // Only a failure returns; the process then ends with 126 if the other thread failed too.
    let Err(_refused) = execve(&path, &arguments, environment);
}
