//! Tries to get into the memory of the processes that are named on stdin, one `LABEL PID` a line: ptrace,
//! process_vm_writev, process_vm_readv, /proc/PID/mem, pidfd_getfd, and at their limits: prlimit. What a debugger may, an attacker may.
#![allow(unsafe_code, reason = "process_vm_readv, process_vm_writev, prlimit and pidfd_getfd are the attack")]

use std::{
    fs::{self, OpenOptions},
    io::BufRead,
    os::unix::fs::FileExt,
};

use ana_tests::attempt::{say, tell, tell_io};
use nix::{errno::Errno, sys::ptrace, unistd::Pid};

fn main() {
    say("ready");
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        if let Some((label, pid)) = line.split_once(' ')
            && let Ok(pid) = pid.parse::<i32>()
        {
            attack(label, pid);
        }
        say(&format!("done {line}"));
    }
}

fn attack(label: &str, pid: i32) {
    let maps = tell_io(&format!("{label}-maps"), fs::read_to_string(format!("/proc/{pid}/maps")));
    // Where the stack lies if the maps can be read; else any address: the errno tells the two apart.
    let address = maps.as_deref().and_then(stack_of).unwrap_or(0x40_0000);

    let seized = ptrace::seize(Pid::from_raw(pid), ptrace::Options::empty());
    if tell(&format!("{label}-seize"), seized).is_some() {
        tell(&format!("{label}-detach"), interrupt_and_detach(pid));
    }
    tell(&format!("{label}-vm-writev"), write_vm(pid, address));
    tell(&format!("{label}-vm-readv"), read_vm(pid, address));
    tell(&format!("{label}-prlimit"), limit(pid));
    let memory = OpenOptions::new().read(true).write(true).open(format!("/proc/{pid}/mem"));
    if let Some(memory) = tell_io(&format!("{label}-mem-open"), memory) {
        tell_io(&format!("{label}-mem-write"), rewrite(&memory, address));
    }
    tell(&format!("{label}-pidfd-getfd"), take_descriptor(pid));
}

fn stack_of(maps: &str) -> Option<u64> {
    let line = maps.lines().find(|line| line.ends_with("[stack]"))?;
    let end = line.split(' ').next()?.split('-').nth(1)?;
    Some(u64::from_str_radix(end, 16).ok()? - 16)
}

/// The held process must not stay traced by us: it would die with us, and that is not the attack.
fn interrupt_and_detach(pid: i32) -> Result<(), Errno> {
    let pid = Pid::from_raw(pid);
    ptrace::interrupt(pid)?;
    nix::sys::wait::waitpid(pid, Some(nix::sys::wait::WaitPidFlag::__WALL))?;
    ptrace::detach(pid, None)
}

/// Writes the zero bytes that end the stack over themselves: harmless when it succeeds.
fn write_vm(pid: i32, address: u64) -> Result<usize, Errno> {
    let zeroes = [0_u8; 8];
    let local = libc::iovec { iov_base: zeroes.as_ptr().cast_mut().cast(), iov_len: zeroes.len() };
    let Ok(base) = usize::try_from(address) else { return Err(Errno::EINVAL) };
    let remote = libc::iovec { iov_base: base as *mut libc::c_void, iov_len: zeroes.len() };
    // SAFETY: the local vector names eight readable bytes; the remote one is the kernel's to check.
    let wrote = unsafe { libc::process_vm_writev(pid, &raw const local, 1, &raw const remote, 1, 0) };
    Errno::result(wrote).map(|count| usize::try_from(count).unwrap_or(0))
}

/// Reads what ends the stack.
fn read_vm(pid: i32, address: u64) -> Result<usize, Errno> {
    let mut bytes = [0_u8; 8];
    let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let Ok(base) = usize::try_from(address) else { return Err(Errno::EINVAL) };
    let remote = libc::iovec { iov_base: base as *mut libc::c_void, iov_len: bytes.len() };
    // SAFETY: the local vector names eight writable bytes; the remote one is the kernel's to check.
    let read = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
    Errno::result(read).map(|count| usize::try_from(count).unwrap_or(0))
}

/// Takes the right to write a core file: harmless, and as good as RLIMIT_CPU = 0, which kills.
fn limit(pid: i32) -> Result<(), Errno> {
    let none = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the new limit outlives the call; the old one is not asked for.
    let done = unsafe { libc::prlimit64(pid, libc::RLIMIT_CORE, &raw const none, std::ptr::null_mut()) };
    Errno::result(done).map(drop)
}

fn rewrite(memory: &fs::File, address: u64) -> std::io::Result<()> {
    let mut bytes = [0_u8; 8];
    memory.read_exact_at(&mut bytes, address)?;
    memory.write_all_at(&bytes, address)
}

fn take_descriptor(pid: i32) -> Result<(), Errno> {
    // SAFETY: both calls take numbers only; what they give is a descriptor that this process may keep.
    unsafe {
        let pidfd = Errno::result(libc::syscall(libc::SYS_pidfd_open, pid, 0))?;
        Errno::result(libc::syscall(libc::SYS_pidfd_getfd, pidfd, 1, 0))?;
    }
    Ok(())
}
