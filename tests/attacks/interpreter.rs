//! Has the kernel map the protected program as the interpreter of another one, whose PT_INTERP names it: the file that is
//! executed then is the other one. Arguments: the program, the first word of its arguments, the rounds (0: once, and the
//! word stays). In rounds the word is `attack` when the kernel reads it, and `status` right after.
#![allow(unsafe_code, reason = "clone with shared memory and execve on changing bytes are the attack")]

mod sharing;

use std::{
    ffi::{CStr, CString},
    fs,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::Path,
    ptr,
    sync::atomic::{AtomicU64, Ordering},
};

use ana_tests::attempt::{argument, c_environment, run, say, tell_io};
use nix::sys::wait::{WaitStatus, waitpid};

const STATUS: u64 = u64::from_ne_bytes(*b"status\0\0");
const ATTACK: u64 = u64::from_ne_bytes(*b"attack\0\0");
const OUTER: &CStr = c"outer";

static WORD: AtomicU64 = AtomicU64::new(STATUS);

struct Call {
    argv: [*const libc::c_char; 3],
    environment: Vec<*const libc::c_char>,
}

fn main() {
    let (program, word) = (argument(1), argument(2));
    let rounds: u32 = argument(3).to_str().and_then(|text| text.parse().ok()).unwrap_or(0);
    let outer = Path::new("outer");
    let made = fs::write(outer, elf(program.as_os_str().as_bytes()))
        .and_then(|()| fs::set_permissions(outer, fs::Permissions::from_mode(0o755)));
    if tell_io("make", made).is_none() {
        return;
    }
    if rounds == 0 {
        use std::os::unix::process::CommandExt;
        run("interpreter", std::process::Command::new("./outer").arg0("deploy").arg(word));
        return;
    }
    let names: Vec<CString> = c_environment();
    let mut environment: Vec<*const libc::c_char> = names.iter().map(|name| name.as_ptr()).collect();
    environment.push(ptr::null());
    let call =
        Call { argv: [c"deploy".as_ptr(), WORD.as_ptr().cast_const().cast(), ptr::null()], environment };
    let mut stack = vec![0_u64; 8192];
    let (mut ran, mut killed, mut other) = (0, 0, 0);
    for round in 0..rounds {
        match once(&call, &mut stack, round % 61 * 50) {
            Some(WaitStatus::Exited(_, 0)) => ran += 1,
            Some(WaitStatus::Signaled(..)) => killed += 1,
            _ => other += 1,
        }
    }
    say(&format!("rounds {rounds} ran {ran} killed {killed} other {other}"));
}

/// An image that names its interpreter, and ends with 42 if anybody comes to its own code.
fn elf(interpreter: &[u8]) -> Vec<u8> {
    // At an address that nothing else wants.
    const BASE: u64 = 0x3000_0000;
    const CODE: [u8; 12] = [0xbf, 42, 0, 0, 0, 0xb8, 60, 0, 0, 0, 0x0f, 0x05];
    let (code, name) = (64 + 2 * 56, 64 + 2 * 56 + CODE.len() as u64);
    let named = interpreter.len() as u64 + 1;
    let mut image = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // ET_EXEC, x86-64, version; entry; headers; sizes.
    image.extend([2_u16, 62].iter().flat_map(|half| half.to_le_bytes()));
    image.extend(1_u32.to_le_bytes());
    image.extend([BASE + code, 64, 0].iter().flat_map(|word| word.to_le_bytes()));
    image.extend(0_u32.to_le_bytes());
    image.extend([64_u16, 56, 2, 0, 0, 0].iter().flat_map(|half| half.to_le_bytes()));
    // PT_INTERP and PT_LOAD: type, flags; offset, addresses, sizes, alignment.
    for (kind, offset, size, align) in [(3_u32, name, named, 1), (1, 0, name + named, 4096)] {
        image.extend([kind, 5].iter().flat_map(|half| half.to_le_bytes()));
        let words = [offset, BASE + offset, BASE + offset, size, size, align];
        image.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    }
    image.extend(CODE);
    image.extend_from_slice(interpreter);
    image.push(0);
    image
}

fn once(call: &Call, stack: &mut [u64], later: u32) -> Option<WaitStatus> {
    WORD.store(ATTACK, Ordering::SeqCst);
    // SAFETY: the child runs on the upper end of `stack`, which outlives it (it is waited for below), touches nothing
    // but `call`, and ends in execve or _exit.
    let child = unsafe { sharing::start(execute, call, stack, 0) };
    for _ in 0..later {
        std::hint::spin_loop();
    }
    WORD.store(STATUS, Ordering::SeqCst);
    waitpid(child?, None).ok()
}

extern "C" fn execute(call: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `once` passes a pointer to a Call that outlives this process's use of the memory; _exit does not return.
    unsafe {
        let call = &*call.cast_const().cast::<Call>();
        libc::execve(OUTER.as_ptr(), call.argv.as_ptr(), call.environment.as_ptr());
        libc::_exit(126)
    }
}
