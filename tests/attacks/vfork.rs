//! A vfork child executes the protected program with harmless arguments; a thread of the parent, which shares the
//! memory, rewrites them around the execve and stops and continues the child inside it. Arguments: the program,
//! the number of rounds.
#![allow(unsafe_code, reason = "clone with shared memory and execve on changing bytes are the attack")]

mod sharing;

use std::{
    ptr,
    sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering},
};

use ana_tests::attempt::{argument, c_environment, c_path, say};
use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{WaitStatus, waitpid},
    },
    unistd::Pid,
};

const STATUS: u64 = u64::from_ne_bytes(*b"status\0\0");
const ATTACK: u64 = u64::from_ne_bytes(*b"attack\0\0");

static ARGUMENT: AtomicU64 = AtomicU64::new(STATUS);
static CHILD: AtomicI32 = AtomicI32::new(0);
static STOP: AtomicBool = AtomicBool::new(false);

struct Call {
    path: *const libc::c_char,
    argv: [*const libc::c_char; 3],
    environment: Vec<*const libc::c_char>,
}

fn main() {
    let path = c_path(&argument(1));
    let rounds: u32 = argument(2).to_str().and_then(|text| text.parse().ok()).unwrap_or(200);
    let names = c_environment();
    let mut environment: Vec<*const libc::c_char> = names.iter().map(|name| name.as_ptr()).collect();
    environment.push(ptr::null());
    let argv = [c"deploy".as_ptr(), ARGUMENT.as_ptr().cast_const().cast(), ptr::null()];
    let call = Call { path: path.as_ptr(), argv, environment };

    let meddler = std::thread::spawn(meddle);
    let mut stack = vec![0_u64; 8192];
    let (mut ran, mut killed, mut other) = (0, 0, 0);
    for _ in 0..rounds {
        ARGUMENT.store(STATUS, Ordering::Relaxed);
        match round(&call, &mut stack) {
            Some(WaitStatus::Exited(_, 0)) => ran += 1,
            Some(WaitStatus::Signaled(..)) => killed += 1,
            _ => other += 1,
        }
    }
    STOP.store(true, Ordering::Relaxed);
    if meddler.join().is_err() {
        say("the meddling thread panicked");
    }
    say(&format!("rounds {rounds} ran {ran} killed {killed} other {other}"));
}

fn meddle() {
    let mut turn = 0_u32;
    while !STOP.load(Ordering::Relaxed) {
        turn = turn.wrapping_add(1);
        ARGUMENT.store(if turn.is_multiple_of(2) { STATUS } else { ATTACK }, Ordering::Relaxed);
        let child = CHILD.load(Ordering::Relaxed);
        if child > 0 && turn.is_multiple_of(8) {
            let stopped = kill(Pid::from_raw(child), Signal::SIGSTOP);
            ARGUMENT.store(ATTACK, Ordering::Relaxed);
            let continued = kill(Pid::from_raw(child), Signal::SIGCONT);
            if stopped.and(continued).is_err() {
                CHILD.store(0, Ordering::Relaxed);
            }
        }
    }
}

fn round(call: &Call, stack: &mut [u64]) -> Option<WaitStatus> {
    // SAFETY: the child runs on the upper end of `stack`, which outlives it (vfork keeps us here until it is
    // gone from this memory), touches nothing but `call` and CHILD, and ends in execve or _exit.
    let child = unsafe { sharing::start(execute, call, stack, libc::CLONE_VFORK) };
    let ended = waitpid(child?, None).ok();
    CHILD.store(0, Ordering::Relaxed);
    ended
}

extern "C" fn execute(call: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `round` passes a pointer to a Call that outlives this process's use of the memory; getpid and _exit
    // have no conditions.
    unsafe {
        CHILD.store(libc::getpid(), Ordering::Relaxed);
        let call = &*call.cast_const().cast::<Call>();
        libc::execve(call.path, call.argv.as_ptr(), call.environment.as_ptr());
        libc::_exit(126)
    }
}
