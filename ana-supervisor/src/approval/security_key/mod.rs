//! FIDO2 security keys, from the side of those who ask one: the process that talks to them ([`process`]), what is said
//! to it and what it says ([`wire`]), and what a new credential is ([`registration`]).
//!
//! The library for the keys parses what any USB device sends, and panics or blocks where it does not like it. So it lives
//! in `ana-key`, a process of its own without anything to lose (the model is OpenSSH's ssh-sk-helper): none of our other
//! programs links it.

pub mod process;
pub mod registration;
pub mod wire;

use std::time::Duration;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use super::{Assertion, authenticator::Request, client_data};
use crate::operation::Verify;
pub use process::{Helper, HelperError};
pub use registration::{NewCredential, RegistrationError};
use wire::{Assert, Order, Signed};

/// One assertion that a key is asked for.
#[derive(Debug)]
pub struct Asked {
    client_data: String,
}

impl Asked {
    /// What `ana-key` is told to get it within `limit`.
    pub fn of(request: &Request<'_>, limit: Duration) -> (Self, Order) {
        let client_data =
            BASE64_URL_SAFE_NO_PAD.encode(client_data::encode(&request.challenge, request.origin));
        let order = Assert {
            rp_id: request.rp_id.to_owned(),
            client_data: client_data.clone(),
            allowed: request.allowed.iter().map(|&id| id.to_owned()).collect(),
            verify: request.verify == Verify::Pin,
            limit_ms: wire::milliseconds(limit),
        };
        (Self { client_data }, Order::Assert(order))
    }

    /// The assertion, as unchecked as it came.
    pub fn answered(self, signed: Signed) -> Assertion {
        Assertion {
            credential_id: signed.credential_id,
            authenticator_data: signed.authenticator_data,
            client_data_json: self.client_data,
            signature: signed.signature,
        }
    }
}
