//! Looking at what a client says, without taking it.

use std::{
    os::fd::{AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv, setsockopt, sockopt},
};

use crate::gate::connect::peek::{LOOK_MAX, Peek, Protocol, Shown, look};

/// How long a client may take for the next byte of what it has begun; then it counts as garbage.
const PAUSE_MAX: Duration = Duration::from_secs(3);
/// How long it may take altogether.
const WHOLE_MAX: Duration = Duration::from_secs(20);
/// After this many looks there is some time before the next one, each time twice as much: whoever sends byte by byte must
/// not keep the worker busy with looking at the same bytes again.
const LOOKS_AT_ONCE: u32 = 16;
const APART_MIN: Duration = Duration::from_millis(1);
const APART_MAX: Duration = Duration::from_millis(512);
/// More than there is time for: 16 at once, 9 in the first half second, two each second after.
const LOOKS_MAX: u32 = 80;
/// From here on the socket's buffer is made large enough for all that is looked at.
const LARGE: usize = 16 << 10;

/// A client that is being looked at.
#[derive(Debug)]
pub(super) struct Look {
    /// Until when it may stay silent; `None`: for ever.
    silent_until: Option<Instant>,
    /// Since when it has said something, and until when it has to say more.
    speaking: Option<(Instant, Instant)>,
    seen: usize,
    looks: u32,
    not_before: Option<Instant>,
}

/// What was seen.
#[derive(Debug)]
pub(super) enum Sight {
    /// Not enough yet.
    Nothing,
    Shown(Shown),
    /// It has ended without a byte.
    Ended,
    /// The connection is broken.
    Broken,
}

impl Look {
    pub(super) fn new(silent_until: Option<Instant>) -> Self {
        Self { silent_until, speaking: None, seen: 0, looks: 0, not_before: None }
    }

    /// When to look again, if nothing happens before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let speaking = self.speaking.map(|(_, until)| until);
        self.not_before.or(speaking).or(self.silent_until)
    }

    /// `ended`: the client sends no more. `buffer` has [`LOOK_MAX`] bytes.
    pub(super) fn at(&mut self, client: &OwnedFd, ended: bool, buffer: &mut [u8], now: Instant) -> Sight {
        if !ended && self.not_before.is_some_and(|time| now < time) {
            return Sight::Nothing;
        }
        self.not_before = None;
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        let length = match recv(client.as_raw_fd(), buffer, flags) {
            Ok(0) => return Sight::Ended,
            Ok(length) => length,
            Err(Errno::EAGAIN | Errno::EINTR) => return self.silence(now),
            Err(_reset) => return Sight::Broken,
        };
        match look(buffer.get(..length).unwrap_or_default(), ended) {
            Peek::Done(shown) => Sight::Shown(shown),
            Peek::More => self.more(client, length, now),
        }
    }

    fn silence(&self, now: Instant) -> Sight {
        match self.silent_until {
            Some(until) if now >= until => Sight::Shown(Shown::only(Protocol::Silent)),
            _ => Sight::Nothing,
        }
    }

    fn more(&mut self, client: &OwnedFd, length: usize, now: Instant) -> Sight {
        let began = self.speaking.map_or(now, |(began, _)| began);
        match self.speaking {
            Some((_, until)) if length <= self.seen => {
                if now >= until {
                    return Sight::Shown(Shown::only(Protocol::Garbage));
                }
            }
            _ => self.speaking = Some((began, (now + PAUSE_MAX).min(began + WHOLE_MAX))),
        }
        if now >= began + WHOLE_MAX {
            return Sight::Shown(Shown::only(Protocol::Garbage));
        }
        if length >= LARGE && self.seen < LARGE {
            // As far as net.core.rmem_max allows; without it the client would wait for us, and we for it.
            setsockopt(client, sockopt::RcvBuf, &(LOOK_MAX * 4)).ok();
        }
        self.seen = length;
        self.looks = self.looks.saturating_add(1);
        if self.looks >= LOOKS_MAX {
            return Sight::Shown(Shown::only(Protocol::Garbage));
        }
        if let Some(doublings) = self.looks.checked_sub(LOOKS_AT_ONCE) {
            let apart = APART_MIN.saturating_mul(1u32.checked_shl(doublings).unwrap_or(u32::MAX));
            self.not_before = Some(now + apart.min(APART_MAX));
        }
        Sight::Nothing
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::unix::net::UnixStream};

    use super::*;

    #[test]
    fn who_drips_is_looked_at_a_few_times_and_then_garbage() {
        // What is written is there at once: over TCP it would wait for acknowledgements, which take real time.
        let (mut client, near) = UnixStream::pair().unwrap();
        let near = OwnedFd::from(near);
        client.write_all(b"GET / HTTP/1.1\r\nX: ").unwrap();
        let (mut look, mut buffer, start) = (Look::new(None), vec![0; LOOK_MAX], Instant::now());
        for millisecond in (0..50).chain((50..21_000).step_by(200)) {
            client.write_all(b"x").unwrap();
            match look.at(&near, false, &mut buffer, start + Duration::from_millis(millisecond)) {
                Sight::Nothing => assert!(look.looks < LOOKS_MAX),
                Sight::Shown(shown) => {
                    assert_eq!(shown.protocol, Protocol::Garbage);
                    assert!((20..=80).contains(&look.looks), "{} looks", look.looks);
                    assert!(millisecond > 19_500, "{millisecond}");
                    return;
                }
                Sight::Ended | Sight::Broken => panic!("the client is there"),
            }
        }
        panic!("it is looked at for ever: {} looks", look.looks);
    }
}
