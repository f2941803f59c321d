//! What a process of ours gives up by plain system calls.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use super::check;

/// Closes every descriptor but the standard ones and `kept` (close_range(2)).
///
/// # Errors
/// `kept` is a standard one.
pub fn close_all_but(kept: BorrowedFd) -> io::Result<()> {
    const FIRST: u32 = 3;
    let kept = kept.as_raw_fd().unsigned_abs();
    if kept < FIRST {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let close = |from: u32, to: u32| {
        // SAFETY: integers only; called at the start of a process of our own that owns nothing else yet.
        check(unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) }).map(drop)
    };
    if kept > FIRST {
        close(FIRST, kept - 1)?;
    }
    close(kept + 1, u32::MAX)
}

/// A system call by its number, to show that it is refused.
#[cfg(test)]
pub(crate) fn call(number: libc::c_long, [a, b, c, d]: [u64; 4]) -> io::Result<()> {
    // SAFETY: only tests call this, with integers and null addresses.
    check(unsafe { libc::syscall(number, a, b, c, d, 0, 0) }).map(drop)
}
