//! Raw system calls: the only room of user space with `unsafe` in it. Each function wraps one kernel facility that
//! neither `std` nor `nix` offers (or offers without what we need), and gives it a type that cannot be misused.

pub mod boottime;
pub mod bpf;
pub mod confine;
pub mod fanotify;
pub mod file;
pub mod process;
pub mod readiness;
pub mod scm;
pub mod seccomp;
pub mod socket;
pub mod tell;
pub mod terminal;
pub mod thread;

use std::io;

/// What `syscall(2)` returned, as a `Result`.
fn check(returned: libc::c_long) -> io::Result<i64> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(returned) }
}
pub mod landlock;
