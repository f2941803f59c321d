//! Waiting for descriptors inside tokio.

use std::{io, os::fd::OwnedFd};

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
