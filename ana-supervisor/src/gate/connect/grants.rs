//! What a person's signature still covers: connections of a rule to one target for a while, or the one connection whose
//! client had hung up when the person signed.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::approval::{Grant, Likeness};

/// What a standing grant is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A name that connections show, or that their address is known by.
    Name(String, u16),
    Address(SocketAddr),
    /// A listener outside of the session on this host: this very socket, by its inode number.
    Listener(SocketAddr, u64),
}

/// Times are nanoseconds of CLOCK_BOOTTIME.
#[derive(Debug)]
pub struct Grants {
    inner: Mutex<Inner>,
    kept: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Inner {
    standing: Vec<Standing>,
    once: HashMap<Likeness, Once>,
}

#[derive(Debug)]
struct Standing {
    grant: Grant,
    target: Target,
    until: u64,
}

#[derive(Debug)]
struct Once {
    grant: Grant,
    until: u64,
}

impl Default for Grants {
    fn default() -> Self {
        Self { inner: Mutex::default(), kept: watch::Sender::new(()) }
    }
}

impl Grants {
    /// From now on connections of the grant's rule to `target` go on with it.
    pub fn stand(&self, grant: Grant, target: Target, until: u64) {
        self.lock().standing.push(Standing { grant, target, until });
        self.kept.send_replace(());
    }

    /// The grant that covers a connection under `rule` to `target`.
    pub fn standing(&self, rule: &str, target: &Target, now: u64) -> Option<Grant> {
        let mut inner = self.lock();
        inner.standing.retain(|standing| standing.until > now);
        let covers = |s: &&Standing| s.grant.operation().rule == rule && s.target == *target;
        inner.standing.iter().find(covers).map(|standing| standing.grant.clone())
    }

    /// Keeps an approval whose client has hung up for one more try of the same.
    pub fn keep(&self, likeness: Likeness, grant: Grant, until: u64) {
        self.lock().once.insert(likeness, Once { grant, until });
        self.kept.send_replace(());
    }

    /// Takes what is kept for such an operation: it is used once.
    pub fn take(&self, likeness: Likeness, now: u64) -> Option<Grant> {
        let mut inner = self.lock();
        inner.once.retain(|_, once| once.until > now);
        inner.once.remove(&likeness).map(|once| once.grant)
    }

    /// Changes when there is a new one.
    pub fn changed(&self) -> watch::Receiver<()> {
        self.kept.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
