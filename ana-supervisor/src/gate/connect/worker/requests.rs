//! What a client may say to an HTTP proxy after it was looked at: request after request, or into a tunnel.

use std::os::fd::AsRawFd;

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv},
};

use super::connection::Socket;
use crate::gate::connect::peek::{Protocol, Shown};

/// How much of the client passes, and what then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Passing {
    pub(super) bytes: usize,
    pub(super) then: Then,
}

/// What comes before more of the client passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// The proxy's answer to CONNECT, and a look.
    Answer,
    Look(Expected),
}

/// What the client may say; the rest is garbage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// Anything, as at the beginning of a connection.
    Anything,
    /// Another request to the proxy.
    Request,
    /// That, or TLS: whether there is a tunnel is not known. A proxy to which a ClientHello came as a request would read
    /// nothing behind it.
    TlsOrRequest,
}

impl Passing {
    /// Of what a client has said first.
    pub(super) fn first(shown: &Shown) -> Self {
        match shown.protocol {
            Protocol::Connect => Self { bytes: shown.head, then: Then::Answer },
            Protocol::Http => {
                Self::request(shown).unwrap_or(Self { bytes: 0, then: Then::Look(Expected::Request) })
            }
            Protocol::Tls | Protocol::Other | Protocol::Silent | Protocol::Garbage => {
                Self { bytes: 0, then: Then::Look(Expected::Anything) }
            }
        }
    }

    /// Of a request that has an end.
    fn request(shown: &Shown) -> Option<Self> {
        let body = usize::try_from(shown.body?).ok()?;
        let bytes = shown.head.checked_add(body)?;
        Some(Self { bytes, then: Then::Look(Expected::Request) })
    }
}

/// What the client's next bytes count as where this was expected, and how much of them passes; `None`: all.
pub(super) fn next(shown: Shown, expected: Expected) -> (Shown, Option<Passing>) {
    let fresh = expected == Expected::Anything;
    match shown.protocol {
        Protocol::Connect => {
            let then = Then::Look(Expected::TlsOrRequest);
            let passing = Passing { bytes: shown.head, then };
            (shown, Some(passing))
        }
        Protocol::Http if fresh && !shown.absolute => (shown, None),
        Protocol::Http => match Passing::request(&shown) {
            Some(passing) => (shown, Some(passing)),
            None => (Shown::only(Protocol::Garbage), None),
        },
        Protocol::Tls if expected != Expected::Request => (shown, None),
        Protocol::Other | Protocol::Silent | Protocol::Garbage if fresh => (shown, None),
        Protocol::Tls | Protocol::Other | Protocol::Silent | Protocol::Garbage => {
            (Shown::only(Protocol::Garbage), None)
        }
    }
}

/// What a client may say after the proxy's answer to its CONNECT, which stays unread. `None`: it is not known yet.
pub(super) fn answered(proxy: &Socket, buffer: &mut [u8]) -> Option<Expected> {
    const STATUS: usize = b"HTTP/1.1 200".len();
    let buffer = buffer.get_mut(..STATUS).unwrap_or_default();
    let length = match recv(proxy.fd.as_raw_fd(), buffer, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT) {
        Ok(length) => length,
        Err(Errno::EAGAIN | Errno::EINTR) => return None,
        // Who moves the bytes will see the same.
        Err(_reset) => 0,
    };
    let seen = buffer.get(..length).unwrap_or_default();
    let form: [fn(u8) -> bool; STATUS] = [
        |byte| byte == b'H',
        |byte| byte == b'T',
        |byte| byte == b'T',
        |byte| byte == b'P',
        |byte| byte == b'/',
        |byte| byte == b'1',
        |byte| byte == b'.',
        |byte| byte.is_ascii_digit(),
        |byte| byte == b' ',
        |byte| byte == b'2',
        |byte| byte.is_ascii_digit(),
        |byte| byte.is_ascii_digit(),
    ];
    if length == 0 || seen.iter().zip(form).any(|(&byte, good)| !good(byte)) {
        return Some(Expected::Request);
    }
    match length {
        STATUS => Some(Expected::Anything),
        _ if proxy.ended => Some(Expected::Request),
        _ => None,
    }
}
