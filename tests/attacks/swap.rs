//! A thread flips path and argument of an execve while the kernel reads them. Every round a process that shares
//! this one's memory executes `benign status`; the thread makes it `deploy`, or `attack`, or both, at any moment.
//! Arguments: the folder of `benign` and `deploy`, the number of rounds.
#![allow(unsafe_code, reason = "clone with shared memory and execve on changing bytes are the attack")]

mod sharing;

use std::{
    ptr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use ana_tests::attempt::{argument, c_environment, say};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

/// The bytes that flip, eight at a time so that no mixture is ever read.
const BENIGN: u64 = u64::from_ne_bytes(*b"benign\0\0");
const DEPLOY: u64 = u64::from_ne_bytes(*b"deploy\0\0");
const STATUS: u64 = u64::from_ne_bytes(*b"status\0\0");
const ATTACK: u64 = u64::from_ne_bytes(*b"attack\0\0");

static PATH: AtomicU64 = AtomicU64::new(BENIGN);
static ARGUMENT: AtomicU64 = AtomicU64::new(STATUS);
static STOP: AtomicBool = AtomicBool::new(false);

struct Call {
    argv: [*const libc::c_char; 3],
    environment: Vec<*const libc::c_char>,
}

fn main() {
    let folder = argument(1);
    let rounds: u32 = argument(2).to_str().and_then(|text| text.parse().ok()).unwrap_or(3000);
    // A relative path of one component, so that the flipping word is the whole of it.
    if let Err(error) = std::env::set_current_dir(&folder) {
        say(&format!("cannot enter {}: {error}", folder.display()));
        return;
    }
    let names = c_environment();
    let mut environment: Vec<*const libc::c_char> = names.iter().map(|name| name.as_ptr()).collect();
    environment.push(ptr::null());
    let call =
        Call { argv: [c"deploy".as_ptr(), ARGUMENT.as_ptr().cast_const().cast(), ptr::null()], environment };

    let flipper = std::thread::spawn(flip);
    let mut stack = vec![0_u64; 8192];
    let (mut ran, mut killed, mut other) = (0, 0, 0);
    for _ in 0..rounds {
        match round(&call, &mut stack) {
            Some(WaitStatus::Exited(_, 0)) => ran += 1,
            Some(WaitStatus::Signaled(..)) => killed += 1,
            _ => other += 1,
        }
    }
    STOP.store(true, Ordering::Relaxed);
    if flipper.join().is_err() {
        say("the flipping thread panicked");
    }
    say(&format!("rounds {rounds} ran {ran} killed {killed} other {other}"));
}

fn flip() {
    let mut turn = 0_u32;
    while !STOP.load(Ordering::Relaxed) {
        turn = turn.wrapping_add(1);
        PATH.store(if turn & 1 == 0 { BENIGN } else { DEPLOY }, Ordering::Relaxed);
        ARGUMENT.store(if turn & 2 == 0 { STATUS } else { ATTACK }, Ordering::Relaxed);
        for _ in 0..turn % 97 {
            std::hint::spin_loop();
        }
    }
}

fn round(call: &Call, stack: &mut [u64]) -> Option<WaitStatus> {
    PATH.store(BENIGN, Ordering::Relaxed);
    ARGUMENT.store(STATUS, Ordering::Relaxed);
    // SAFETY: the child runs on the upper end of `stack`, which outlives it (it is waited for below), touches
    // nothing but `call`, and ends in execve or _exit.
    let child = unsafe { sharing::start(execute, call, stack, 0) };
    waitpid(child?, Some(WaitPidFlag::empty())).ok()
}

extern "C" fn execute(call: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `round` passes a pointer to a Call that outlives this process's use of the memory; the strings end
    // with zero bytes whichever word is in place; _exit does not return.
    unsafe {
        let call = &*call.cast_const().cast::<Call>();
        libc::execve(PATH.as_ptr().cast_const().cast(), call.argv.as_ptr(), call.environment.as_ptr());
        libc::_exit(126)
    }
}
