//! Sign counters: how a copy of an authenticator shows. Each use of a passkey has to bring a larger one. And when a key
//! was used last.
//!
//! The desk compares and updates under its own lock; [`Stored`] does the same across sessions, in passkeys.json.

use std::{io, sync::Arc};

use thiserror::Error;

use super::{
    Verified,
    assertion::AssertionError,
    passkeys::{Lock, Passkeys},
};
use crate::state::State;

/// Where the list of passkeys is kept, and the counters in it.
pub trait Counters: Send {
    /// The list as it is now: a passkey may have been removed, or used in another session. `known`: what was known of it.
    ///
    /// # Errors
    /// It cannot be read; nothing is approved then.
    fn list(&mut self, known: &Passkeys) -> io::Result<Passkeys>;

    /// Stores a grown sign counter, before the approval that it came with takes effect. Called for security keys, and
    /// whatever else has a counter.
    ///
    /// # Errors
    /// It is not stored; the operation is then refused.
    fn store(&mut self, verified: &Verified) -> Result<(), CounterError>;
}

/// Why a counter was not stored.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CounterError {
    /// Another session has seen a larger one in this very moment.
    #[error("{0}")]
    WentBack(AssertionError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Remembers counters as long as the desk does: for tests.
#[derive(Debug, Default)]
pub struct InMemory;

impl Counters for InMemory {
    fn list(&mut self, known: &Passkeys) -> io::Result<Passkeys> {
        Ok(known.clone())
    }

    fn store(&mut self, _: &Verified) -> Result<(), CounterError> {
        Ok(())
    }
}

/// Keeps them in passkeys.json.
#[derive(Debug)]
pub struct Stored {
    state: Arc<State>,
}

impl Stored {
    /// In the list of this state folder.
    pub fn new(state: Arc<State>) -> Self {
        Self { state }
    }
}

impl Counters for Stored {
    fn list(&mut self, known: &Passkeys) -> io::Result<Passkeys> {
        let list = Passkeys::load(&self.state).map_err(io::Error::other)?;
        // None is enrolled, any more or yet.
        Ok(list.unwrap_or_else(|| known.emptied()))
    }

    fn store(&mut self, verified: &Verified) -> Result<(), CounterError> {
        let _lock = Lock::take(&self.state).map_err(io::Error::other)?;
        let mut list = Passkeys::load(&self.state)
            .map_err(io::Error::other)?
            .ok_or_else(|| io::Error::other("the list of passkeys is gone"))?;
        list.count(verified).map_err(|error| match matches!(error, AssertionError::SignCount { .. }) {
            true => CounterError::WentBack(error),
            false => io::Error::other(error).into(),
        })?;
        Ok(list.save(&self.state).map_err(io::Error::other)?)
    }
}
