//! Has its refusals told to a full FIFO that nobody reads, and ends while they are being told: whoever writes there on
//! behalf of the supervisor is stuck. Arguments: the protected file, the path for the FIFO.
#![allow(unsafe_code, reason = "fork")]

use std::{fs::File, time::Duration};

use ana_tests::attempt::{argument, say, tell, tell_io};
use nix::unistd::{ForkResult, dup2_stderr, fork};

fn main() {
    let (file, path) = (argument(1), argument(2));
    let Some(fifo) = tell("full-fifo", ana_tests::attempt::full_fifo(&path)) else { return };
    if tell("stderr", dup2_stderr(&fifo)).is_none() {
        return;
    }
    for _ in 0..3 {
        // SAFETY: this process has one thread, so the child may do whatever it likes.
        if let Ok(ForkResult::Child) = unsafe { fork() } {
            loop {
                // Refused each time: what counts is that it is told.
                let Err(_refused) = File::open(&file) else { continue };
            }
        }
    }
    tell_io::<File>("open", File::open(&file));
    // Not synchronisation: the moment of the session's end, with some of the messages stuck.
    std::thread::sleep(Duration::from_millis(2500));
    say("done");
}
