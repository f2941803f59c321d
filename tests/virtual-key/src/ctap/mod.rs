//! The authenticator API (CTAP 2.1, 6): messages in, messages out. Knows nothing of HID.

pub(crate) mod cbor;
pub(crate) mod pin_protocol;

mod assertion;
mod authenticator_data;
mod client_pin;
mod corruption;
mod get_assertion;
mod get_info;
mod make_credential;
mod status;
#[cfg(test)]
mod tests;
mod verification;

use std::sync::{Mutex, MutexGuard, PoisonError};

use ciborium::Value;

use crate::{
    builder::{Settings, Version},
    fault::Fault,
    live::{Live, Turn},
    seen::Command,
    store::Store,
};

pub use status::Status;

pub(crate) struct Authenticator {
    pub(crate) settings: Settings,
    pub(crate) live: Live,
    store: Mutex<Store>,
}

/// What a command answers: a map, or nothing but the status.
type Answer = Result<Option<Value>, Status>;

impl Authenticator {
    pub(crate) fn new(settings: Settings) -> Self {
        let store = Store::new(settings.pin.as_deref(), settings.counter.unwrap_or(0));
        Self { settings, live: Live::new(), store: Mutex::new(store) }
    }

    /// Not to be held while a person is waited for: a test looks at it meanwhile.
    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer to the message of a `CTAPHID_CBOR`: a status, and CBOR after an OK (CTAP 2.1, 8).
    pub(crate) fn answer(&self, turn: Turn, message: &[u8]) -> Vec<u8> {
        let parameters = message.get(1..).unwrap_or_default();
        let answer = match self.live.fault(turn.command) {
            Some(Fault::StatusByte(code)) => Err(Status(code)),
            _ => self.run(turn, parameters),
        };
        match answer {
            Err(status) => vec![status.0],
            Ok(value) => {
                let bytes = value.map(|value| cbor::encoded(&value)).unwrap_or_default();
                let bytes = corruption::apply(self.live.fault(turn.command), bytes);
                [vec![Status::OK.0], bytes].concat()
            }
        }
    }

    fn run(&self, turn: Turn, parameters: &[u8]) -> Answer {
        // authenticatorGetNextAssertion goes on after its own kind only (CTAP 2.1, 6.3).
        if !matches!(turn.command, Command::GetNextAssertion | Command::GetInfo) {
            self.store().remaining = None;
        }
        match turn.command {
            Command::MakeCredential => self.make_credential(turn, parameters),
            Command::GetAssertion => self.get_assertion(turn, parameters),
            Command::GetNextAssertion => self.get_next_assertion(turn),
            Command::GetInfo => Ok(Some(self.get_info())),
            Command::ClientPin if self.has_client_pin() => self.client_pin(turn, parameters),
            Command::Selection if self.settings.version == Version::Ctap21 => {
                self.live.presence(turn).map(|()| None)
            }
            Command::ClientPin
            | Command::Selection
            | Command::Init
            | Command::Ping
            | Command::Wink
            | Command::Cancel
            | Command::Unknown(_) => Err(Status::INVALID_COMMAND),
        }
    }

    /// Tokens come from the PIN, and from 2.1 on from built-in user verification.
    const fn has_client_pin(&self) -> bool {
        self.settings.client_pin || self.uv_gives_tokens()
    }

    const fn uv_gives_tokens(&self) -> bool {
        self.settings.uv && matches!(self.settings.version, Version::Ctap21)
    }
}
