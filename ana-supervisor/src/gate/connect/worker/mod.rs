//! The proxy's worker: a process without any right, the only one that looks at an agent's bytes. It peeks at the first of
//! them, waits with the connection, and then moves all of them between two sockets that it was given; it opens none.
//!
//! It also reads DNS answers, since an agent chooses who sends them.
//!
//! The supervisor numbers the connections; a number is used once. What a worker says is checked like any other input.

mod confine;
mod connection;
mod copy;
mod handle;
mod joined;
mod look;
mod refuse;
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
    /// Go on after the second look into a tunnel.
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
    /// What the client shows; after `tunnel` a second time (and again, if it asks the proxy for another tunnel).
    Peeked { id: u64, shown: Shown },
    /// The client has gone while it waited: a reset, or a TLS client that sends no more. The worker has let go of it; a
    /// word about it that is under way is dropped, with its socket.
    Gone { id: u64 },
    /// A client that does not speak TLS sends no more, and may still read. Said once, after `Peeked`.
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
