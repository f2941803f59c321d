//! The caller's own terminal and signals, as long as something of ours has them.

use std::{io, os::fd::AsFd};

use nix::sys::{
    signal::{SigSet, SigmaskHow, Signal, raise, sigprocmask},
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

/// Does what a signal that was read would have done: ends us, usually.
///
/// # Errors
/// It could not be raised or let through.
pub fn obey(signal: Signal) -> io::Result<()> {
    raise(signal)?;
    unblock(&[signal])
}

/// They do again what they do.
///
/// # Errors
/// sigprocmask(2) failed.
pub fn unblock(signals: &[Signal]) -> io::Result<()> {
    let set: SigSet = signals.iter().copied().collect();
    Ok(sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&set), None)?)
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
