//! Authenticator data (WebAuthn 3, 6.1).

use ciborium::Value;
use sha2::{Digest, Sha256};

use super::cbor;
use crate::{builder::Backup, fault::Fault};

pub(super) const UP: u8 = 0x01;
pub(super) const UV: u8 = 0x04;
const BE: u8 = 0x08;
const BS: u8 = 0x10;
const AT: u8 = 0x40;
const ED: u8 = 0x80;

/// The parts of authenticator data.
pub(super) struct AuthenticatorData<'a> {
    pub(super) rp: &'a str,
    /// UP and UV.
    pub(super) flags: u8,
    pub(super) backup: Backup,
    pub(super) counter: u32,
    pub(super) attested: Option<Attested<'a>>,
    pub(super) extensions: Option<Value>,
}

/// Attested credential data (WebAuthn 3, 6.5.1).
pub(super) struct Attested<'a> {
    pub(super) aaguid: [u8; 16],
    pub(super) credential_id: &'a [u8],
    pub(super) cose_key: Value,
}

impl AuthenticatorData<'_> {
    /// Its bytes, with what is to be wrong with them.
    pub(super) fn bytes(&self, fault: Option<Fault>) -> Vec<u8> {
        let mut rp_id_hash = Sha256::digest(self.rp);
        let mut flags = self.flags;
        flags |= match self.backup {
            Backup::No => 0,
            Backup::Eligible => BE,
            Backup::State => BE | BS,
        };
        let mut counter = self.counter;
        if fault == Some(Fault::WrongRp) {
            rp_id_hash = Sha256::digest(format!("not.{}", self.rp));
        }
        if fault == Some(Fault::NotPresent) {
            flags &= !UP;
        }
        if let Some(Fault::CounterRollback(by)) = fault {
            counter = counter.saturating_sub(by);
        }
        let mut rest = Vec::new();
        if let Some(attested) = &self.attested {
            flags |= AT;
            rest.extend(attested.aaguid);
            let mut id = attested.credential_id.to_vec();
            if fault == Some(Fault::WrongCredentialId) {
                flip_last_bit(&mut id);
            }
            // Ids of this key have 32 bytes.
            rest.extend(u16::try_from(id.len()).unwrap_or(u16::MAX).to_be_bytes());
            rest.extend(id);
            rest.extend(cbor::encoded(&attested.cose_key));
        }
        if let Some(extensions) = &self.extensions {
            flags |= ED;
            rest.extend(cbor::encoded(extensions));
        }
        let mut bytes = [rp_id_hash.as_slice(), &[flags], &counter.to_be_bytes(), &rest].concat();
        if fault == Some(Fault::ShortAuthenticatorData) {
            bytes.truncate(35);
        }
        bytes
    }
}

pub(super) fn flip_last_bit(bytes: &mut [u8]) {
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
}
