//! The proxy's worker: a process without any right, the only one that looks at an agent's bytes. It peeks at the first of
//! them, waits with the connection, and then moves all of them between two sockets that it was given; it opens none.
//!
//! It also reads DNS answers, since an agent chooses who sends them.
//!
//! # What passes after a join
//!
//! Without `tunnel` everything passes, both ways. With it everything of the server passes, and of the client no more than
//! what was looked at; then the client's next bytes are looked at and told by another [`FromWorker::Peeked`], and wait for
//! [`Worker::go_on`]. A connection to an HTTP proxy is one request after the other, each to wherever it says:
//!
//! - Of a request, absolute or not, its head and its content pass ([`Shown::head`] and [`Shown::body`]), and the next
//!   bytes have to be a request again. Anything else is [`Protocol::Garbage`], and so is a request whose end cannot be known
//!   (Transfer-Encoding, more than one Content-Length, content of a GET) and what follows an upgrade.
//! - Of a CONNECT its head passes. If it is the first of the connection, the worker then waits for the proxy's answer: 2xx
//!   has made it a tunnel, and what the client says next is looked at like a new connection: a request to a proxy is
//!   followed by more looks, anything else is looked at once. Any other answer has made it nothing, and a request has to
//!   follow. The answer to a later CONNECT cannot be told from the answers to what was asked before: what follows is TLS,
//!   which is looked at once, or a request.
//! - Whoever was [`Protocol::Silent`] is looked at like a new connection as soon as he speaks.
//!
//! A request that is not to a proxy (`GET /…`, outside of the above) is looked at once: what follows goes to the same server.
//!
//! The supervisor numbers the connections; a number is used once. What a worker says is checked like any other input.

mod confine;
mod connection;
mod copy;
mod half_closed;
mod handle;
mod joined;
mod look;
mod refuse;
mod requests;
mod serve;
mod wire;

#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

pub use self::{
    confine::{ConfineError, confine},
    handle::{Events, Lost, Worker, WorkerError},
};
#[cfg(doc)]
use super::peek::Protocol;
use super::peek::{Answer, Shown};

/// The role's name on the hidden command line of ana-supervisor.
pub const ROLE: &str = "ana-proxy";

/// What the supervisor tells its worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum ToWorker {
    /// Look at what the client says; with its socket.
    Peek {
        id: u64,
        grace_ms: u32,
    },
    /// Move everything from here on; with the socket to the server.
    Join {
        id: u64,
        tunnel: bool,
    },
    /// Go on after a look at what came after the join.
    Continue {
        id: u64,
    },
    Refuse {
        id: u64,
        how: Refusal,
    },
    /// Let go of it, with a reset.
    Forget {
        id: u64,
    },
    /// Read a DNS answer, which follows.
    Answer {
        id: u64,
    },
}

/// How a connection is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// A reset and nothing else.
    Reset,
    /// 403 Forbidden with this text as its body, then a reset.
    Http { body: String },
    /// The fatal alert access_denied (49), then a reset.
    Tls,
}

/// What the worker tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromWorker {
    /// What the client shows; after a join with `tunnel` again, for each request to a proxy.
    Peeked { id: u64, shown: Shown },
    /// The client has gone while it waited: a reset (also to a probe, a minute after a half-closed client has closed), or a
    /// TLS client that sends no more. The worker has let go of it; a
    /// word about it that is under way is dropped, with its socket.
    Gone { id: u64 },
    /// A client that does not speak TLS sends no more, and may still read. After `Peeked`, while it waits; again after
    /// 250 ms, and then some times after ever longer pauses, since nobody but the kernel is told when it closes.
    HalfClosed { id: u64 },
    /// A joined connection has ended: bytes of the client, bytes for the client, time since the join. The last word about
    /// it, also when it was refused or forgotten after the join.
    Done { id: u64, sent: u64, received: u64, milliseconds: u64 },
    /// `None`: not a DNS answer.
    Answered { id: u64, answer: Option<Answer> },
}

/// The worker's life: confines itself, says so, and serves until the supervisor closes the socket.
///
/// # Errors
/// It could not be confined, or its own system calls fail: nothing that a connection can cause.
pub fn run(socket: OwnedFd) -> Result<(), WorkerError> {
    handle::become_worker(socket)
}
