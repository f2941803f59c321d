//! Runs the protected program by a descriptor: execveat on one opened with O_PATH, and /proc/self/fd/N of it.
//! Argument: the program.
#![allow(unsafe_code, reason = "execveat has no safe wrapper for a descriptor without a name")]

use std::{os::fd::AsRawFd, process::Command};

use ana_tests::attempt::{argument, c_environment, c_path, run, say, tell};
use nix::{
    fcntl::{AtFlags, OFlag, open},
    sys::{
        stat::Mode,
        wait::{WaitStatus, waitpid},
    },
    unistd::{ForkResult, execveat, fork},
};

fn main() {
    let Some(fd) = tell("open-path", open(&argument(1), OFlag::O_PATH, Mode::empty())) else { return };
    let arguments = [c"deploy".to_owned(), c"execveat".to_owned()];
    let environment = c_environment();
    // SAFETY: this process has one thread, so the child may do whatever it likes.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => {
            let refused = execveat(&fd, c"", &arguments, &environment, AtFlags::AT_EMPTY_PATH);
            tell("execveat", refused);
            std::process::exit(126);
        }
        Ok(ForkResult::Parent { child }) => match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, 0)) => say("attempt execveat: ok"),
            ended => say(&format!("attempt execveat: {ended:?}")),
        },
        Err(errno) => drop(tell::<()>("fork", Err(errno))),
    }
    let name = format!("/proc/self/fd/{}", fd.as_raw_fd());
    // The descriptor is inherited: it was opened without O_CLOEXEC.
    run("exec-fd", Command::new(c_path(name.as_ref()).to_str().unwrap_or_default()).arg("fd"));
}
