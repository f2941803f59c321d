//! Starts the protected program and floods it with signals: it is stopped before its exec, so that without a gate
//! SIGCONT lets it run. Orders on stdin: `go` continues it, `spam` sends 20,000 pairs of SIGSTOP and SIGCONT,
//! `kill` sends SIGKILL, `wait` tells how it ended. Argument: the program.
#![allow(unsafe_code, reason = "fork")]

use std::io::BufRead;

use ana_tests::attempt::{argument, c_environment, c_path, say, tell};
use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, kill, raise},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, execve, fork},
};

fn main() {
    let path = c_path(&argument(1));
    let environment = c_environment();
    // SAFETY: this process has one thread, so the child may do whatever it likes.
    let child = match unsafe { fork() } {
        Ok(ForkResult::Child) => {
            tell("stop", raise(Signal::SIGSTOP));
            tell("exec", execve(&path, &[c"deploy", c"signals"], &environment));
            std::process::exit(126);
        }
        Ok(ForkResult::Parent { child }) => child,
        Err(errno) => {
            tell::<()>("fork", Err(errno));
            return;
        }
    };
    tell("stopped", waitpid(child, Some(WaitPidFlag::WUNTRACED)));
    say("ready");
    for order in std::io::stdin().lock().lines().map_while(Result::ok) {
        match order.as_str() {
            "go" => drop(tell("go", kill(child, Signal::SIGCONT))),
            "spam" => drop(tell("spam", spam(child))),
            "kill" => drop(tell("kill", kill(child, Signal::SIGKILL))),
            "wait" => match waitpid(child, None) {
                Ok(WaitStatus::Exited(_, 0)) => say("attempt run: ok"),
                ended => say(&format!("attempt run: {ended:?}")),
            },
            unknown => say(&format!("attempt {unknown}: no such order")),
        }
        say(&format!("done {order}"));
    }
}

fn spam(child: Pid) -> Result<(), Errno> {
    for _ in 0..20_000 {
        kill(child, Signal::SIGSTOP)?;
        kill(child, Signal::SIGCONT)?;
    }
    Ok(())
}
