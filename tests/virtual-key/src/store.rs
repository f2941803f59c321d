//! What a key remembers: its credentials, PIN and counter for good, the rest as long as it is plugged in.

use p256::SecretKey;
use rand_core::OsRng;
use sha2::{Digest, Sha256};

use crate::{
    algorithm::{KeyPair, random},
    ctap::{Status, pin_protocol::Protocol},
};

/// Of the PIN (CTAP 2.1, 6.5.2).
pub(crate) const PIN_RETRIES: u8 = 8;
/// So many wrong ones in a row, and the key wants to be plugged in anew.
const WRONG_IN_A_ROW: u8 = 3;

pub(crate) struct Credential {
    pub(crate) rp: String,
    pub(crate) id: Vec<u8>,
    pub(crate) key: KeyPair,
    pub(crate) user: User,
    /// Found without an allow list.
    pub(crate) discoverable: bool,
    /// credProtect's level (CTAP 2.1, 12.1).
    pub(crate) protection: Protection,
}

/// `PublicKeyCredentialUserEntity`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) id: Vec<u8>,
    pub(crate) name: Option<String>,
    pub(crate) display_name: Option<String>,
}

/// `credProtect`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protection {
    Optional = 1,
    OptionalWithList = 2,
    Required = 3,
}

impl Protection {
    pub(crate) fn of(number: i64) -> Option<Self> {
        [Self::Optional, Self::OptionalWithList, Self::Required].into_iter().find(|p| *p as i64 == number)
    }
}

/// What a PIN's token may be used for (CTAP 2.1, 6.5.5.7): 1 to make credentials, 2 to use them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) permissions: i64,
    pub(crate) rp: Option<String>,
}

/// The volatile half of one PIN/UV auth protocol.
pub(crate) struct Agreement {
    pub(crate) key: SecretKey,
    pub(crate) token: [u8; 32],
    pub(crate) grant: Option<Grant>,
}

impl Agreement {
    fn new() -> Self {
        Self { key: SecretKey::random(&mut OsRng), token: random(), grant: None }
    }

    /// `resetPinUvAuthToken`
    pub(crate) fn reset_token(&mut self) {
        (self.token, self.grant) = (random(), None);
    }
}

/// The assertions that authenticatorGetNextAssertion still has to give.
pub(crate) struct Remaining {
    pub(crate) client_data_hash: Vec<u8>,
    pub(crate) credential_ids: Vec<Vec<u8>>,
    pub(crate) flags: u8,
}

pub(crate) struct Store {
    /// In the order in which they were made.
    pub(crate) credentials: Vec<Credential>,
    pub(crate) counter: u32,
    /// `LEFT(SHA-256(pin), 16)`
    pin_hash: Option<[u8; 16]>,
    pub(crate) pin_retries: u8,
    wrong_in_a_row: u8,
    agreements: [Agreement; 2],
    pub(crate) remaining: Option<Remaining>,
}

impl Store {
    pub(crate) fn new(pin: Option<&str>, counter: u32) -> Self {
        Self {
            credentials: Vec::new(),
            counter,
            pin_hash: pin.map(|pin| hash(pin.as_bytes())),
            pin_retries: PIN_RETRIES,
            wrong_in_a_row: 0,
            agreements: [Agreement::new(), Agreement::new()],
            remaining: None,
        }
    }

    /// Plugged in anew.
    pub(crate) fn power_cycle(&mut self) {
        self.wrong_in_a_row = 0;
        self.agreements = [Agreement::new(), Agreement::new()];
        self.remaining = None;
    }

    pub(crate) const fn agreement(&mut self, protocol: Protocol) -> &mut Agreement {
        match protocol {
            Protocol::One => &mut self.agreements[0],
            Protocol::Two => &mut self.agreements[1],
        }
    }

    pub(crate) fn find(&self, rp: &str, id: &[u8]) -> Option<&Credential> {
        self.credentials.iter().find(|credential| credential.rp == rp && credential.id == id)
    }

    pub(crate) const fn has_pin(&self) -> bool {
        self.pin_hash.is_some()
    }

    pub(crate) fn set_pin(&mut self, pin: &[u8]) {
        self.pin_hash = Some(hash(pin));
        self.pin_retries = PIN_RETRIES;
        self.wrong_in_a_row = 0;
    }

    /// Whether the next try needs the key to be plugged in anew.
    pub(crate) const fn needs_power_cycle(&self) -> bool {
        self.wrong_in_a_row >= WRONG_IN_A_ROW
    }

    /// Before a PIN is looked at.
    ///
    /// # Errors
    /// There is no PIN, or it is blocked.
    pub(crate) const fn may_try_pin(&self) -> Result<(), Status> {
        if !self.has_pin() {
            Err(Status::PIN_NOT_SET)
        } else if self.pin_retries == 0 {
            Err(Status::PIN_BLOCKED)
        } else if self.needs_power_cycle() {
            Err(Status::PIN_AUTH_BLOCKED)
        } else {
            Ok(())
        }
    }

    /// Compares a PIN's hash, and counts (CTAP 2.1, 6.5.5.6, step 5.5 onward, and 6.5.5.7.1).
    ///
    /// # Errors
    /// It is another one.
    pub(crate) fn try_pin(&mut self, protocol: Protocol, hash: Option<Vec<u8>>) -> Result<(), Status> {
        self.pin_retries -= 1;
        if hash.as_deref() == self.pin_hash.as_ref().map(<[u8; 16]>::as_slice) {
            self.pin_retries = PIN_RETRIES;
            self.wrong_in_a_row = 0;
            return Ok(());
        }
        // `regenerate`: who guesses has to agree on a key again.
        self.agreement(protocol).key = SecretKey::random(&mut OsRng);
        self.wrong_in_a_row += 1;
        self.may_try_pin()?;
        Err(Status::PIN_INVALID)
    }

    pub(crate) fn reset_tokens(&mut self) {
        self.agreements.iter_mut().for_each(Agreement::reset_token);
    }
}

fn hash(pin: &[u8]) -> [u8; 16] {
    let digest: [u8; 32] = Sha256::digest(pin).into();
    std::array::from_fn(|at| digest[at])
}
