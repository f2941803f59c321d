//! Executes the protected program through other system call tables: i386's execve by `int 0x80`, and x32's.
//! Arguments: the program; `i386`, `x32`, or `i386-calls`: what the base filter refuses, tried through i386's table.
#![allow(unsafe_code, reason = "a raw system call of another ABI is the attack")]

use std::{arch::asm, ffi::CString, num::NonZeroUsize};

use ana_tests::attempt::{argument, c_environment, c_path, say, tell};
use nix::{
    errno::Errno,
    sys::mman::{MapFlags, ProtFlags, mmap_anonymous},
};

/// Numbers of execve in the two tables.
const I386_EXECVE: i32 = 11;
const X32_EXECVE: i64 = 0x4000_0000 + 520;

fn main() {
    match argument(2).to_str() {
        Some("i386") => drop(tell("i386-execve", i386())),
        Some("i386-calls") => i386_calls(),
        Some("x32") => drop(tell("x32-execve", x32())),
        _ => say("attempt abi: no such table"),
    }
}

/// Only a failure returns.
fn x32() -> Result<(), Errno> {
    let path = c_path(&argument(1));
    let argv = [c"deploy".as_ptr(), c"x32".as_ptr(), std::ptr::null()];
    // SAFETY: the pointers name C strings and arrays that end with null; the kernel checks everything else.
    Errno::result(unsafe { libc::syscall(X32_EXECVE, path.as_ptr(), argv.as_ptr(), std::ptr::null::<u8>()) })
        .map(drop)
}

/// Only a failure returns.
fn i386() -> Result<(), Errno> {
    let size = NonZeroUsize::new(1 << 20).ok_or(Errno::EINVAL)?;
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_32BIT;
    // SAFETY: a fresh private mapping at an address of the kernel's choice.
    let start = unsafe { mmap_anonymous(None, size, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, flags)? };
    let mut low = Low { next: start.as_ptr() as usize, end: start.as_ptr() as usize + (1 << 20) };
    let path = low.string(&c_path(&argument(1)))?;
    let argv = low.strings(&[c"deploy".to_owned(), c"i386".to_owned()])?;
    let envp = low.strings(&c_environment())?;
    let result: i32;
    // SAFETY: the registers hold pointers into the mapping below 4 GiB, laid out as i386's execve reads them; rbx,
    // which the compiler keeps for itself, is put back.
    unsafe {
        asm!(
            "xchg rbx, {path}",
            "int 0x80",
            "xchg rbx, {path}",
            path = inout(reg) u64::from(path) => _,
            inlateout("eax") I386_EXECVE => result,
            in("ecx") argv,
            in("edx") envp,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    Err(Errno::from_raw(-result))
}

/// Every call is made so that it does nothing, or fails with another errno, where it is not refused.
fn i386_calls() {
    const PAST_THE_END: u32 = u32::MAX;
    // PTRACE_PEEKTEXT. Not 0, which is PTRACE_TRACEME and works: the end of the child below would stop us then, for a tracer
    // that takes this for our end.
    const PEEK: u32 = 1;
    let calls: [(&str, i32, [u32; 5]); 10] = [
        ("ptrace", 26, [PEEK, 0, 0, 0, 0]),
        ("vm-readv", 347, [std::process::id(), 0, 0, 0, 0]),
        ("vm-writev", 348, [std::process::id(), 0, 0, 0, 0]),
        ("pidfd-getfd", 438, [PAST_THE_END, 0, 0, 0, 0]),
        ("io-uring", 425, [1, 0, 0, 0, 0]),
        ("clone-fs", 120, [(libc::CLONE_FS | libc::SIGCHLD).cast_unsigned(), 0, 0, 0, 0]),
        ("listener", 354, [1, 8, 0, 0, 0]),
        ("clone3", 435, [0; 5]),
        ("socketcall", 102, [0; 5]),
        ("socket-alg", 359, [38, 5, 0, 0, 0]),
    ];
    for (name, number, arguments) in calls {
        let result = i386_call(number, arguments);
        if name == "clone-fs" && result == 0 {
            // The child: it has nothing to do.
            std::process::exit(0);
        }
        tell(name, if result < 0 { Err(Errno::from_raw(-result)) } else { Ok(()) });
    }
}

fn i386_call(number: i32, [first, second, third, fourth, fifth]: [u32; 5]) -> i32 {
    let result: i32;
    // SAFETY: the arguments are numbers, or pointers that the kernel checks; rbx, which the compiler keeps for itself,
    // is put back.
    unsafe {
        asm!(
            "xchg rbx, {first}",
            "int 0x80",
            "xchg rbx, {first}",
            first = inout(reg) u64::from(first) => _,
            inlateout("eax") number => result,
            in("ecx") second,
            in("edx") third,
            in("esi") fourth,
            in("edi") fifth,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    result
}

/// Memory below 4 GiB that is handed out from the start.
struct Low {
    next: usize,
    end: usize,
}

impl Low {
    fn bytes(&mut self, bytes: &[u8]) -> Result<u32, Errno> {
        let start = self.next.next_multiple_of(8);
        if start + bytes.len() > self.end {
            return Err(Errno::E2BIG);
        }
        // SAFETY: start .. start + len lies inside the writable mapping and is handed out once.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), start as *mut u8, bytes.len()) };
        self.next = start + bytes.len();
        u32::try_from(start).ok().ok_or(Errno::EFAULT)
    }

    fn string(&mut self, text: &std::ffi::CStr) -> Result<u32, Errno> {
        self.bytes(text.to_bytes_with_nul())
    }

    fn strings(&mut self, texts: &[CString]) -> Result<u32, Errno> {
        let mut pointers = Vec::new();
        for text in texts {
            pointers.extend(self.string(text)?.to_ne_bytes());
        }
        pointers.extend(0_u32.to_ne_bytes());
        self.bytes(&pointers)
    }
}
