//! Hundreds of processes open the protected file in a loop, their stderr a full FIFO that nobody reads; then a child
//! executes the file with allowed arguments. Arguments: the file, the path for the FIFO, how many processes.
#![allow(unsafe_code, reason = "fork")]

use std::{
    fs::File,
    io::BufRead,
    process::Command,
    time::{Duration, Instant},
};

use ana_tests::attempt::{argument, run, say, tell};
use nix::{
    sys::{
        signal::{Signal, kill},
        wait::waitpid,
    },
    unistd::{ForkResult, Pid, dup2_stderr, fork},
};

fn main() {
    let (file, path) = (argument(1), argument(2));
    let many: usize = argument(3).to_str().and_then(|text| text.parse().ok()).unwrap_or(300);
    let Some(fifo) = tell("full-fifo", ana_tests::attempt::full_fifo(&path)) else { return };
    let mut flood: Vec<Pid> = Vec::new();
    for _ in 0..many {
        // SAFETY: this process has one thread, so the child may do whatever it likes.
        match unsafe { fork() } {
            Ok(ForkResult::Child) => {
                let Ok(()) = dup2_stderr(&fifo) else { std::process::exit(1) };
                loop {
                    // Refused each time: what counts is that there are many of them.
                    let Err(_refused) = File::open(&file) else { continue };
                }
            }
            Ok(ForkResult::Parent { child }) => flood.push(child),
            Err(errno) => drop(tell::<()>("fork", Err(errno))),
        }
    }
    // Not synchronisation: the flood is to be in full spate.
    std::thread::sleep(Duration::from_secs(2));
    say(&format!("flood {}", flood.len()));
    let begin = Instant::now();
    run("status", Command::new(&file).arg("status"));
    say(&format!("answered after {} ms", begin.elapsed().as_millis()));
    for &pid in &flood {
        tell("end", kill(pid, Signal::SIGKILL));
    }
    for &pid in &flood {
        if waitpid(pid, None).is_err() {
            say("a process of the flood is lost");
        }
    }
    say("flood over");
    // Stays until the test has looked at what is left.
    let mut line = String::new();
    if std::io::stdin().lock().read_line(&mut line).is_err() {
        say("no stdin");
    }
}
