//! Moving bytes from one socket to another without looking at them: splice(2) through a pipe.

use std::os::fd::{AsFd, OwnedFd};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice},
    sys::socket::{Shutdown, shutdown},
    unistd::pipe2,
};

/// What a large pipe takes: all that an unprivileged process may ask for (fs.pipe-max-size).
const LARGE: usize = 1 << 20;
/// How many large pipes there may be. All pipes of a user together may have 64 MiB (fs.pipe-user-pages-soft).
const LARGE_MAX: usize = 32;
/// What a pipe takes that was not enlarged (pipe(7)).
const SMALL: usize = 64 << 10;
/// How many empty pipes are kept.
const FREE_MAX: usize = 64;
/// How much a direction moves before another connection has its turn.
const TURN: usize = 4 << 20;

/// A pipe of the worker's own.
#[derive(Debug)]
pub(super) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    size: usize,
}

/// Empty pipes. A direction has one only while bytes are in it, so that idle connections cost none.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    free: Vec<Pipe>,
    large: usize,
}

impl Pipes {
    fn take(&mut self) -> Result<Pipe, Errno> {
        if let Some(pipe) = self.free.pop() {
            return Ok(pipe);
        }
        let (read, write) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)?;
        let wanted = libc::c_int::try_from(LARGE).unwrap_or(libc::c_int::MAX);
        let large = self.large < LARGE_MAX && fcntl(&write, FcntlArg::F_SETPIPE_SZ(wanted)).is_ok();
        self.large += usize::from(large);
        Ok(Pipe { read, write, size: if large { LARGE } else { SMALL } })
    }

    /// Takes an empty pipe back.
    fn give(&mut self, pipe: Pipe) {
        // The last one in is the next one out: the large ones stay in use.
        match self.free.len() < FREE_MAX {
            true if pipe.size == LARGE => self.free.push(pipe),
            true => self.free.insert(0, pipe),
            false => self.lost(&pipe),
        }
    }

    /// The pipe is closed.
    fn lost(&mut self, pipe: &Pipe) {
        self.large -= usize::from(pipe.size == LARGE);
    }
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub(super) struct Direction {
    pipe: Option<Pipe>,
    /// How many bytes are in the pipe.
    inside: usize,
    /// The source has ended.
    ended: bool,
    /// The destination has been told so.
    finished: bool,
    /// How many bytes have reached the destination's socket.
    pub(super) moved: u64,
    /// How many more bytes may leave the source; `None`: all.
    pub(super) allowance: Option<usize>,
}

/// Why a direction stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The source has nothing to say now.
    Empty,
    /// The destination takes no more now.
    Full,
    /// Others have their turn; there may be more.
    Turn,
    /// Its allowance is used up.
    Allowance,
    /// The source has ended, and the destination knows it.
    Finished,
    /// One of the sockets is broken.
    Broken,
}

impl Direction {
    pub(super) fn finished(&self) -> bool {
        self.finished
    }

    /// Moves what can be moved now.
    pub(super) fn pump(&mut self, from: &OwnedFd, to: &OwnedFd, pipes: &mut Pipes) -> Stop {
        match self.try_pump(from, to, pipes) {
            Ok(stop) => stop,
            Err(_reset) => Stop::Broken,
        }
    }

    fn try_pump(&mut self, from: &OwnedFd, to: &OwnedFd, pipes: &mut Pipes) -> Result<Stop, Errno> {
        let mut turn = TURN;
        loop {
            if self.inside > 0 {
                let Some(pipe) = &self.pipe else { return Ok(Stop::Broken) };
                match splice(&pipe.read, None, to, None, self.inside, flags()) {
                    Ok(0) => return Ok(Stop::Broken),
                    Ok(length) => {
                        self.inside = self.inside.saturating_sub(length);
                        self.moved = self.moved.saturating_add(length as u64);
                        turn = turn.saturating_sub(length);
                    }
                    Err(Errno::EAGAIN) => return Ok(Stop::Full),
                    Err(Errno::EINTR) => {}
                    Err(error) => return Err(error),
                }
                continue;
            }
            if self.ended {
                self.release(pipes);
                if !self.finished {
                    self.finished = true;
                    shutdown_write(to)?;
                }
                return Ok(Stop::Finished);
            }
            if self.allowance == Some(0) {
                self.release(pipes);
                return Ok(Stop::Allowance);
            }
            if turn == 0 {
                return Ok(Stop::Turn);
            }
            if let Some(stop) = self.fill(from, pipes)? {
                self.release(pipes);
                return Ok(stop);
            }
        }
    }

    /// From the source into the empty pipe.
    fn fill(&mut self, from: &OwnedFd, pipes: &mut Pipes) -> Result<Option<Stop>, Errno> {
        let pipe = match self.pipe.take() {
            Some(pipe) => pipe,
            None => pipes.take()?,
        };
        let pipe = self.pipe.insert(pipe);
        let most = self.allowance.map_or(pipe.size, |allowed| allowed.min(pipe.size));
        match splice(from, None, &pipe.write, None, most, flags()) {
            Ok(0) => self.ended = true,
            Ok(length) => {
                self.inside = length;
                if let Some(allowed) = &mut self.allowance {
                    *allowed = allowed.saturating_sub(length);
                }
            }
            Err(Errno::EAGAIN) => return Ok(Some(Stop::Empty)),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
        Ok(None)
    }

    /// Gives the pipe back if nothing is in it, or closes it with what is in it.
    pub(super) fn release(&mut self, pipes: &mut Pipes) {
        if let Some(pipe) = self.pipe.take() {
            match self.inside {
                0 => pipes.give(pipe),
                _ => pipes.lost(&pipe),
            }
        }
    }
}

fn flags() -> SpliceFFlags {
    SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK
}

/// The other side has gone already: it needs no word.
fn shutdown_write(to: &OwnedFd) -> Result<(), Errno> {
    match shutdown(std::os::fd::AsRawFd::as_raw_fd(&to.as_fd()), Shutdown::Write) {
        Ok(()) | Err(Errno::ENOTCONN) => Ok(()),
        Err(error) => Err(error),
    }
}
