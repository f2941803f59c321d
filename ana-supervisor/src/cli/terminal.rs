//! The caller's own terminal and signals, as long as something of ours has them.

use std::{io, os::fd::AsFd};

use nix::sys::{
    signal::{SigSet, SigmaskHow, Signal, sigprocmask},
    signalfd::{SfdFlags, SignalFd},
    termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr},
};

/// The terminal on stdin, raw. Dropping it gives it back as it was found.
pub struct Raw {
    found: Termios,
}

impl Raw {
    /// # Errors
    /// stdin is no terminal (any more), as for all of these.
    pub fn take() -> io::Result<Self> {
        let raw = Self { found: tcgetattr(io::stdin())? };
        raw.on()?;
        Ok(raw)
    }

    /// Keys go through as they are.
    pub fn on(&self) -> io::Result<()> {
        let mut raw = self.found.clone();
        cfmakeraw(&mut raw);
        Ok(tcsetattr(io::stdin().as_fd(), SetArg::TCSADRAIN, &raw)?)
    }

    /// As it was found.
    pub fn off(&self) -> io::Result<()> {
        Ok(tcsetattr(io::stdin().as_fd(), SetArg::TCSADRAIN, &self.found)?)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.off().ok();
    }
}

/// Signals that are read from here on, instead of doing what they do.
///
/// # Errors
/// sigprocmask(2) or signalfd(2) failed.
pub fn signals(read: &[Signal]) -> io::Result<SignalFd> {
    let read: SigSet = read.iter().copied().collect();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&read), None)?;
    Ok(SignalFd::with_flags(&read, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}
