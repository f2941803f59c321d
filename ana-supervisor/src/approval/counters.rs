//! Sign counters: how a copy of an authenticator shows. Each use of a passkey has to bring a larger one. And when a key
//! was used last.
//!
//! The desk compares and updates under its own lock; [`Stored`] does the same across sessions, in passkeys.json.

use std::{io, sync::Arc};

use super::{
    Verified,
    passkeys::{Lock, Passkeys},
};
use crate::state::State;

/// Stores a grown sign counter, before the approval that it came with takes effect. Called for security keys, and whatever
/// else has a counter.
pub trait Counters: Send {
    /// # Errors
    /// It is not stored; the operation is then refused.
    fn store(&mut self, verified: &Verified) -> io::Result<()>;
}

/// Remembers counters as long as the desk does: for tests.
#[derive(Debug, Default)]
pub struct InMemory;

impl Counters for InMemory {
    fn store(&mut self, _: &Verified) -> io::Result<()> {
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
    fn store(&mut self, verified: &Verified) -> io::Result<()> {
        let _lock = Lock::take(&self.state).map_err(io::Error::other)?;
        let mut list = Passkeys::load(&self.state)
            .map_err(io::Error::other)?
            .ok_or_else(|| io::Error::other("the list of passkeys is gone"))?;
        let id = &verified.assertion().credential_id;
        let passkey = list
            .passkeys
            .iter_mut()
            .find(|passkey| passkey.credential_id == *id)
            .ok_or_else(|| io::Error::other("the passkey was removed"))?;
        if verified.sign_count() != 0 && verified.sign_count() <= passkey.sign_count {
            return Err(io::Error::other("another session has seen this counter"));
        }
        passkey.sign_count = verified.sign_count();
        passkey.last_used = Some(format!("{:.3}", jiff::Timestamp::now()));
        list.save(&self.state).map_err(io::Error::other)
    }
}
