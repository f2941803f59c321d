//! Changes the call of a protected program between the gate's look at it and the kernel's copy of it: every round a process
//! that shares this one's memory executes `deploy status`, and at a random moment this one makes another call of it.
//! Arguments: what is changed, the folder of `benign` and `deploy`, the rounds, a library to be loaded, and `later`; or
//! `first`, when it is another call that becomes `deploy status` (before Linux 6.8 the copy comes before the look).
//!
//! `argument` changes the bytes of the argument, `pointer` the pointer to it, `count` takes it away, `path` the file;
//! `variable` changes the bytes of a variable that names the library, `block` the pointer to it.
#![allow(unsafe_code, reason = "clone with shared memory and execve on changing bytes are the attack")]

mod sharing;

use std::{
    ffi::CString,
    ptr,
    sync::atomic::{AtomicPtr, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use ana_tests::attempt::{argument, c_environment, say, tell_io};
use nix::sys::wait::{WaitStatus, waitpid};

const BENIGN: u64 = u64::from_ne_bytes(*b"benign\0\0");
const DEPLOY: u64 = u64::from_ne_bytes(*b"deploy\0\0");
const STATUS: u64 = u64::from_ne_bytes(*b"status\0\0");
const ATTACK: u64 = u64::from_ne_bytes(*b"attack\0\0");
const HARMLESS: u64 = u64::from_ne_bytes(*b"XD_PRELO");
const LOADED: u64 = u64::from_ne_bytes(*b"LD_PRELO");
/// Rounds in which nothing changes, to know how long an exec takes that is not held: the moments are spread over twice
/// that.
const UNCHANGED: u32 = 5;

type Text = libc::c_char;

/// What the two processes share.
struct Call {
    path: AtomicU64,
    word: AtomicU64,
    argv: [AtomicPtr<Text>; 3],
    /// `XD_PRELOAD=…`: the first eight bytes change.
    variable: Vec<AtomicU64>,
    envp: Vec<AtomicPtr<Text>>,
    /// Where the harmless and the other variable begin, for the pointer that changes.
    variables: [CString; 2],
}

fn main() {
    let (kind, folder) = (argument(1), argument(2));
    let kind = kind.to_str().unwrap_or_default();
    let rounds: u32 = argument(3).to_str().and_then(|text| text.parse().ok()).unwrap_or(1000);
    // A relative path of one component, so that one word is the whole of it.
    if tell_io("enter", std::env::set_current_dir(&folder)).is_none() {
        return;
    }
    let names = c_environment();
    let first = argument(5).to_str() == Some("first");
    let call = call(kind, argument(4).to_str().unwrap_or_default(), &names);
    let mut stack = vec![0_u64; 8192];
    let (mut ran, mut killed, mut other) = (0, 0, 0);
    let begin = Instant::now();
    for _ in 0..UNCHANGED {
        round(kind, &call, &mut stack, None);
    }
    let spread = u64::try_from((begin.elapsed() * 2 / UNCHANGED).as_nanos()).unwrap_or(u64::MAX);
    let mut random = u64::from(std::process::id()) | 1;
    for _ in 0..rounds {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let change = Change { first, after: Duration::from_nanos(random % spread) };
        match round(kind, &call, &mut stack, Some(change)) {
            Some(WaitStatus::Exited(_, 0)) => ran += 1,
            Some(WaitStatus::Signaled(..)) => killed += 1,
            _ => other += 1,
        }
    }
    say(&format!("rounds {rounds} ran {ran} killed {killed} other {other}"));
}

fn call(kind: &str, library: &str, names: &[CString]) -> Call {
    let variables = ["XD_PRELOAD", "LD_PRELOAD"]
        .map(|name| CString::new(format!("{name}={library}")).unwrap_or_default());
    let mut bytes = variables[0].as_bytes_with_nul().to_vec();
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    let words = bytes.as_chunks::<8>().0.iter().map(|word| AtomicU64::new(u64::from_ne_bytes(*word)));
    let variable: Vec<AtomicU64> = words.collect();
    let mut envp: Vec<AtomicPtr<Text>> =
        names.iter().map(|name| AtomicPtr::new(name.as_ptr().cast_mut())).collect();
    let first = match kind {
        "variable" => variable.first().map_or(ptr::null_mut(), AtomicU64::as_ptr).cast(),
        _ => variables[0].as_ptr().cast_mut(),
    };
    envp.extend([AtomicPtr::new(first), AtomicPtr::new(ptr::null_mut())]);
    let argv = [c"deploy".as_ptr().cast_mut(), ptr::null_mut(), ptr::null_mut()].map(AtomicPtr::new);
    let (path, word) = (AtomicU64::new(BENIGN), AtomicU64::new(STATUS));
    Call { path, word, argv, variable, envp, variables }
}

/// The harmless call, or the other one.
fn put(kind: &str, call: &Call, other: bool) {
    fn choose<T>(other: bool, harmless: T, attack: T) -> T {
        if other { attack } else { harmless }
    }
    let order = Ordering::SeqCst;
    match kind {
        "argument" => call.word.store(choose(other, STATUS, ATTACK), order),
        "pointer" => {
            let attack = c"attack".as_ptr().cast_mut();
            call.argv[1].store(choose(other, call.word.as_ptr().cast(), attack), order);
        }
        "count" => call.argv[1].store(choose(other, call.word.as_ptr().cast(), ptr::null_mut()), order),
        "path" => {
            call.path.store(choose(other, BENIGN, DEPLOY), order);
            call.word.store(ATTACK, order);
        }
        "variable" => call.variable[0].store(choose(other, HARMLESS, LOADED), order),
        _ => {
            let place = &call.envp[call.envp.len() - 2];
            let [harmless, loaded] = &call.variables;
            place.store(choose(other, harmless.as_ptr(), loaded.as_ptr()).cast_mut(), order);
        }
    }
}

/// When a call becomes another one.
struct Change {
    /// The harmless call is the second one.
    first: bool,
    after: Duration,
}

/// One exec of the harmless call, which from some moment on is, or until some moment was, the other one.
fn round(kind: &str, call: &Call, stack: &mut [u64], change: Option<Change>) -> Option<WaitStatus> {
    call.path.store(DEPLOY, Ordering::SeqCst);
    call.argv[1].store(call.word.as_ptr().cast(), Ordering::SeqCst);
    put(kind, call, change.as_ref().is_some_and(|change| change.first));
    // SAFETY: the child runs on the upper end of `stack`, which outlives it (it is waited for below), touches nothing
    // but `call`, and ends in execve or _exit.
    let child = unsafe { sharing::start(execute, call, stack, 0) };
    if let Some(Change { first, after }) = change {
        let begin = Instant::now();
        while begin.elapsed() < after {
            // On one processor the other one has to have it.
            std::thread::yield_now();
        }
        put(kind, call, !first);
    }
    waitpid(child?, None).ok()
}

extern "C" fn execute(call: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `round` passes a pointer to a Call that outlives this process's use of the memory. Both vectors end with
    // null whatever is in place, an atomic lies as its value does, and _exit does not return.
    unsafe {
        let call = &*call.cast_const().cast::<Call>();
        libc::execve(call.path.as_ptr().cast(), call.argv.as_ptr().cast(), call.envp.as_ptr().cast());
        libc::_exit(126)
    }
}
