//! Waiting for descriptors.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::{Interest, unix::AsyncFd};

/// Registers a descriptor with the reactor of the current runtime.
pub fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd stays open, names one file description and returns the same number as long as it lives, and
    // the AsyncFd owns it.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}

/// Returns when the process behind the pidfd has ended.
pub async fn ended(pidfd: OwnedFd) -> io::Result<()> {
    let fd = watch(pidfd, Interest::READABLE)?;
    let _ready = fd.readable().await?;
    Ok(())
}

/// Whether something can be read now, or nothing more will ever come; waits at most `limit`, and may be woken by a signal.
///
/// # Errors
/// poll(2) failed.
pub fn readable(fd: BorrowedFd, limit: Duration) -> io::Result<bool> {
    // Rounded up: woken too early, a caller would ask again at once.
    let timeout = PollTimeout::try_from(limit.as_millis() + 1).unwrap_or(PollTimeout::MAX);
    match poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], timeout) {
        Ok(ready) => Ok(ready > 0),
        Err(nix::errno::Errno::EINTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
