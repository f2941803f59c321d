//! A client that sends no more while it waits, and may still read.
//!
//! If it closes later, nothing comes of it: its FIN has been sent. Its kernel knows, and says so when it is asked: at once
//! to the supervisor, which can look for the socket on this host, and with a reset to a keepalive probe once it has forgotten
//! the socket (net.ipv4.tcp_fin_timeout, 60 s).

use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use nix::sys::socket::{setsockopt, sockopt};

/// The time from the first word to the second; each time it is twice as long.
const AGAIN_MIN: Duration = Duration::from_millis(250);
/// How often it is said: for two minutes, long after the probes are answered with a reset.
const WORDS_MAX: u32 = 10;
/// The seconds of silence before a probe, and between two.
const PROBE: u32 = 2;

/// What is said of such a client, and when.
#[derive(Debug, Default)]
pub(super) struct HalfClosed {
    words: u32,
    next: Option<Instant>,
}

impl HalfClosed {
    /// To be asked whenever the client is looked after, once it has ended; true: the supervisor is to be told, now.
    pub(super) fn is_due(&mut self, client: &OwnedFd, now: Instant) -> bool {
        if self.words == 0 {
            probe(client);
        } else if self.next.is_none_or(|next| now < next) {
            return false;
        }
        let pause = AGAIN_MIN.saturating_mul(1u32.checked_shl(self.words).unwrap_or(u32::MAX));
        self.words += 1;
        self.next = (self.words < WORDS_MAX).then_some(now + pause);
        true
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next
    }
}

/// A reset in answer to a probe comes as an error of the socket.
fn probe(client: &OwnedFd) {
    // Without them it is noticed later, by whoever decides.
    setsockopt(client, sockopt::TcpKeepIdle, &PROBE).ok();
    setsockopt(client, sockopt::TcpKeepInterval, &PROBE).ok();
    setsockopt(client, sockopt::KeepAlive, &true).ok();
}
