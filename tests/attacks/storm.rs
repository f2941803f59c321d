//! Thousands of processes that fork without end, and execute the protected program now and then. Arguments: the program,
//! how many processes.
#![allow(unsafe_code, reason = "fork")]

use std::time::Duration;

use ana_tests::attempt::{argument, c_environment, c_path, say, tell};
use nix::{
    sys::wait::waitpid,
    unistd::{ForkResult, alarm, execve, fork, pipe, read},
};

fn main() {
    let (path, environment) = (c_path(&argument(1)), c_environment());
    let many: usize = argument(2).to_str().and_then(|text| text.parse().ok()).unwrap_or(3000);
    let mut made = 0;
    // They all begin when the last one is there.
    let Some((wait, begin)) = tell("pipe", pipe()) else { return };
    let mut begin = Some(begin);
    for index in 0..many {
        // SAFETY: this process has one thread, so the child may do whatever it likes.
        match unsafe { fork() } {
            Ok(ForkResult::Child) => {
                // The rest of the machine comes first.
                // SAFETY: nice takes and gives numbers only.
                unsafe { libc::nice(19) };
                drop(begin.take());
                let Ok(_all_there) = read(&wait, &mut [0]) else { std::process::exit(1) };
                // Whatever becomes of the test, the machine has its peace again.
                alarm::set(120);
                let mut turn = index;
                loop {
                    turn += 1;
                    // Thousands that fork all the time would leave a small machine nothing: each pauses between two.
                    std::thread::sleep(Duration::from_secs(5));
                    // SAFETY: as above.
                    match unsafe { fork() } {
                        Ok(ForkResult::Child) => {
                            if turn.is_multiple_of(100) {
                                // Refused: what counts is that there are many of them.
                                let Err(_refused) = execve(&path, &[c"deploy", c"attack"], &environment);
                            }
                            std::process::exit(0);
                        }
                        Ok(ForkResult::Parent { child }) => {
                            let Ok(_ended) = waitpid(child, None) else { continue };
                        }
                        // The session's limit of tasks.
                        Err(_full) => continue,
                    }
                }
            }
            Ok(ForkResult::Parent { .. }) => made += 1,
            Err(errno) => {
                tell::<()>("fork", Err(errno));
                break;
            }
        }
    }
    drop(begin);
    say(&format!("storm {made}"));
    loop {
        nix::unistd::pause();
    }
}
