//! What a key is like.

use std::{io, sync::Arc, time::Duration};

use crate::{
    algorithm::{Algorithm, random},
    ctap::{Authenticator, pin_protocol::Protocol},
    handle::{Unplugged, VirtualKey},
};

/// What comes with a new credential (WebAuthn 3, 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attestation {
    /// Format `none`, an empty statement.
    None,
    /// Format `packed`, signed by the credential's own key.
    Packed,
}

/// The backup flags of authenticator data (WebAuthn 3, 6.1.3). Security keys set neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backup {
    /// One device only.
    No,
    /// BE: may be synchronized.
    Eligible,
    /// BE and BS: is synchronized.
    State,
}

/// The newest version of CTAP that a key speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `FIDO_2_0`: no selection, no permissions, PIN protocol one only.
    Ctap20,
    /// `FIDO_2_0` and `FIDO_2_1`
    Ctap21,
}

/// A key, before it is plugged in.
#[derive(Clone, Debug)]
pub struct Builder {
    pub(crate) settings: Settings,
}

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) name: String,
    /// The serial number.
    pub(crate) unique: String,
    pub(crate) pin: Option<String>,
    pub(crate) client_pin: bool,
    pub(crate) version: Version,
    pub(crate) pin_protocols: Vec<Protocol>,
    pub(crate) uv: bool,
    pub(crate) always_uv: bool,
    pub(crate) make_cred_uv_not_required: bool,
    pub(crate) resident_keys: bool,
    pub(crate) cred_protect: bool,
    pub(crate) backup: Backup,
    pub(crate) attestation: Attestation,
    pub(crate) aaguid: [u8; 16],
    pub(crate) algorithms: Vec<Algorithm>,
    /// None: always 0.
    pub(crate) counter: Option<u32>,
    pub(crate) keepalive: Duration,
}

impl Builder {
    pub(crate) fn new(name: &str) -> Self {
        let number = u64::from_le_bytes(random());
        Self {
            settings: Settings {
                name: name.to_owned(),
                unique: format!("ana-{number:016x}"),
                pin: None,
                client_pin: true,
                version: Version::Ctap21,
                pin_protocols: vec![Protocol::Two, Protocol::One],
                uv: false,
                always_uv: false,
                make_cred_uv_not_required: true,
                resident_keys: true,
                cred_protect: true,
                backup: Backup::No,
                attestation: Attestation::Packed,
                aaguid: *b"ana-virtual-key\0",
                algorithms: vec![Algorithm::Es256, Algorithm::EdDsa],
                counter: Some(0),
                keepalive: Duration::from_millis(100),
            },
        }
    }

    /// With this PIN; without, none is set, and a client may set one.
    #[must_use]
    pub fn pin(mut self, pin: &str) -> Self {
        self.settings.pin = Some(pin.to_owned());
        self
    }

    /// A key that knows no PIN.
    #[must_use]
    pub fn without_client_pin(mut self) -> Self {
        (self.settings.client_pin, self.settings.pin) = (false, None);
        self
    }

    /// By default CTAP 2.1. A key of CTAP 2.0 asks for the PIN for every new credential (makeCredUvNotRqd came with 2.1).
    #[must_use]
    pub fn version(mut self, version: Version) -> Self {
        self.settings.version = version;
        if version == Version::Ctap20 {
            self.settings.pin_protocols = vec![Protocol::One];
            self.settings.make_cred_uv_not_required = false;
        }
        self
    }

    /// The PIN/UV auth protocols, in the order of preference; by default two, then one.
    #[must_use]
    pub fn pin_protocols(mut self, numbers: &[u8]) -> Self {
        self.settings.pin_protocols =
            numbers.iter().filter_map(|number| Protocol::of(i64::from(*number))).collect();
        self
    }

    /// Built-in user verification, as with a fingerprint reader: the touch verifies. By default none.
    #[must_use]
    pub fn uv(mut self, uv: bool) -> Self {
        self.settings.uv = uv;
        self
    }

    /// `alwaysUv`: nothing without user verification. By default off.
    #[must_use]
    pub fn always_uv(mut self, always: bool) -> Self {
        self.settings.always_uv = always;
        self
    }

    /// `makeCredUvNotRqd`: credentials that are not discoverable are made without the PIN. By default on.
    #[must_use]
    pub fn make_cred_uv_not_required(mut self, not_required: bool) -> Self {
        self.settings.make_cred_uv_not_required = not_required;
        self
    }

    /// Whether discoverable credentials can be made. By default they can.
    #[must_use]
    pub fn resident_keys(mut self, supported: bool) -> Self {
        self.settings.resident_keys = supported;
        self
    }

    /// Whether the extension credProtect is known. By default it is.
    #[must_use]
    pub fn cred_protect(mut self, supported: bool) -> Self {
        self.settings.cred_protect = supported;
        self
    }

    /// The backup flags. By default none.
    #[must_use]
    pub fn backup(mut self, backup: Backup) -> Self {
        self.settings.backup = backup;
        self
    }

    /// By default packed self attestation.
    #[must_use]
    pub fn attestation(mut self, attestation: Attestation) -> Self {
        self.settings.attestation = attestation;
        self
    }

    /// The model's number.
    #[must_use]
    pub fn aaguid(mut self, aaguid: [u8; 16]) -> Self {
        self.settings.aaguid = aaguid;
        self
    }

    /// What it can sign with. By default both.
    #[must_use]
    pub fn algorithms(mut self, algorithms: &[Algorithm]) -> Self {
        self.settings.algorithms = algorithms.to_vec();
        self
    }

    /// The last count that was given out: the next one is one more.
    #[must_use]
    pub fn counter_from(mut self, counter: u32) -> Self {
        self.settings.counter = Some(counter);
        self
    }

    /// A key that does not count: always 0.
    #[must_use]
    pub fn no_counter(mut self) -> Self {
        self.settings.counter = None;
        self
    }

    /// How often a keepalive is sent. By default every 100 ms, as CTAPHID wants it (CTAP 2.1, 11.2.9.1.7).
    #[must_use]
    pub fn keepalive_every(mut self, every: Duration) -> Self {
        self.settings.keepalive = every;
        self
    }

    /// Plugs it in, as root on a machine with `/dev/uhid`.
    ///
    /// # Errors
    /// The device cannot be made, or does not come up.
    pub fn plug(self) -> io::Result<VirtualKey> {
        Unplugged::new(Arc::new(Authenticator::new(self.settings))).plug()
    }
}
