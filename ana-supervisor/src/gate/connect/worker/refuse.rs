//! Telling a client that it was refused, in its own protocol.

use std::{
    os::fd::{AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, Shutdown, recv, send, shutdown},
};

use super::{Refusal, connection::Fate};

/// How long the client may take to hear it.
const HEAR_MAX: Duration = Duration::from_secs(1);
/// How many reads of what the client still sends make a turn.
const READS: usize = 64;
/// A fatal alert, access_denied (RFC 8446 §6), in a record of its own.
const ACCESS_DENIED: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 49];

/// A client that is being told.
#[derive(Debug)]
pub(super) struct Refused {
    words: Vec<u8>,
    said: usize,
    silent: bool,
    pub(super) until: Instant,
}

impl Refused {
    /// `None`: there is nothing to say.
    pub(super) fn new(how: &Refusal, now: Instant) -> Option<Self> {
        let words = match how {
            Refusal::Reset => return None,
            Refusal::Tls => ACCESS_DENIED.to_vec(),
            Refusal::Http { body } => forbidden(body),
        };
        Some(Self { words, said: 0, silent: false, until: now + HEAR_MAX })
    }

    /// Says what is to be said, and then listens until the client closes: a reset right behind the words could destroy
    /// them before they are read.
    pub(super) fn go_on(&mut self, client: &OwnedFd, buffer: &mut [u8], now: Instant) -> Fate {
        if now >= self.until {
            return Fate::Reset;
        }
        match self.say(client) {
            Ok(()) | Err(Errno::EAGAIN) => {}
            Err(_gone) => return Fate::Reset,
        }
        for _ in 0..READS {
            match recv(client.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC) {
                Ok(0) if self.silent => return Fate::Close,
                Ok(0) | Err(Errno::EAGAIN | Errno::EINTR) => return Fate::Keep,
                Ok(_thrown_away) => {}
                Err(_gone) => return Fate::Reset,
            }
        }
        Fate::Again
    }

    fn say(&mut self, client: &OwnedFd) -> Result<(), Errno> {
        while let Some(rest @ [_, ..]) = self.words.get(self.said..) {
            self.said += send(client.as_raw_fd(), rest, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)?;
        }
        if !std::mem::replace(&mut self.silent, true) {
            shutdown(client.as_raw_fd(), Shutdown::Write)?;
        }
        Ok(())
    }
}

fn forbidden(body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    )
    .into_bytes()
}
