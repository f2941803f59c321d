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

/// Waits until something can be done with one of them, at most `limit`; which of them are ready. A signal may end it early.
///
/// # Errors
/// poll(2) failed.
pub fn wait(fds: &mut [PollFd<'_>], limit: Option<Duration>) -> io::Result<Vec<bool>> {
    // Rounded up: woken too early, a caller would ask again at once.
    let timeout = limit.map_or(PollTimeout::NONE, |limit| {
        PollTimeout::try_from(limit.as_millis() + u128::from(!limit.is_zero())).unwrap_or(PollTimeout::MAX)
    });
    match poll(fds, timeout) {
        Ok(_) => {}
        Err(nix::errno::Errno::EINTR) => return Ok(vec![false; fds.len()]),
        Err(error) => return Err(error.into()),
    }
    Ok(fds.iter().map(|fd| fd.revents().is_some_and(|events| !events.is_empty())).collect())
}

/// Whether something can be read now, or nothing more will ever come; waits at most `limit`, and may be woken by a signal.
///
/// # Errors
/// poll(2) failed.
pub fn readable(fd: BorrowedFd, limit: Duration) -> io::Result<bool> {
    Ok(wait(&mut [PollFd::new(fd, PollFlags::POLLIN)], Some(limit))?.contains(&true))
}
