//! One WebAuthn assertion, and the only way to turn it into an approval.
//!
//! [`verify`] takes what a client sent and what is expected of it; a [`Verified`] comes out, or the name of the
//! first thing that was wrong. It does no IO and changes nothing: the sign counter is compared here and stored
//! by the desk, under the desk's lock.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use coset::cbor::Value;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::{
    client_data,
    cose::{KeyError, PublicKey, SignatureFault},
    passkeys::{Kind, Passkey},
};
use crate::operation::Verify;

/// Limits in bytes, after base64url.
const CREDENTIAL_ID_MAX: usize = 1023;
const AUTHENTICATOR_DATA_MAX: usize = 1024;
const CLIENT_DATA_MAX: usize = 4096;
const SIGNATURE_MAX: usize = 128;

/// rpIdHash, flags, signCount: all that an assertion without extensions has.
const AUTHENTICATOR_DATA_MIN: usize = 37;

pub(super) const UP: u8 = 0x01;
pub(super) const UV: u8 = 0x04;
pub(super) const BE: u8 = 0x08;
pub(super) const BS: u8 = 0x10;
pub(super) const AT: u8 = 0x40;
pub(super) const ED: u8 = 0x80;
pub(super) const RESERVED: u8 = 0x22;

/// What a client sends: the four parts of a WebAuthn assertion, each base64url without padding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assertion {
    pub credential_id: String,
    pub authenticator_data: String,
    pub client_data_json: String,
    pub signature: String,
}

/// What an assertion has to match.
#[derive(Clone, Debug)]
pub struct Expected<'a> {
    /// SHA-256 of the canonical form of what is approved.
    pub challenge: [u8; 32],
    pub origin: &'a str,
    pub rp_id: &'a str,
    /// Whether the authenticator must have verified the person, too.
    pub verify: Verify,
    /// The passkeys that may answer. A passkey names its approver, so offering it is accepting its approver.
    pub offered: &'a [Passkey],
}

/// A verified assertion: a person with an enrolled passkey signed exactly [`Verified::challenge`].
#[derive(Clone, Debug)]
pub struct Verified {
    challenge: [u8; 32],
    assertion: Assertion,
    passkey: Passkey,
    user_verified: bool,
    sign_count: u32,
}

impl Verified {
    /// What was signed.
    pub fn challenge(&self) -> &[u8; 32] {
        &self.challenge
    }

    /// The assertion as it came.
    pub fn assertion(&self) -> &Assertion {
        &self.assertion
    }

    /// The person, by the passkey's enrolment.
    pub fn approver(&self) -> &str {
        &self.passkey.approver
    }

    /// The passkey's name.
    pub fn passkey(&self) -> &str {
        &self.passkey.name
    }

    pub fn kind(&self) -> Kind {
        self.passkey.kind
    }

    /// The enrolled COSE key, base64url.
    pub fn public_key(&self) -> &str {
        &self.passkey.public_key
    }

    /// Did the authenticator verify the person (a PIN, a passphrase), beyond presence?
    pub fn user_verified(&self) -> bool {
        self.user_verified
    }

    /// The authenticator's counter; 0 where it has none.
    pub fn sign_count(&self) -> u32 {
        self.sign_count
    }
}

/// The first thing that was wrong with an assertion.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AssertionError {
    #[error("the assertion's {field} is longer than {max} bytes")]
    TooLong { field: &'static str, max: usize },
    #[error("the assertion's {field} is not base64url without padding")]
    Base64 {
        field: &'static str,
        #[source]
        source: base64::DecodeError,
    },
    #[error("the passkey {credential_id} is not enrolled here, or was not offered for this operation")]
    UnknownPasskey { credential_id: String },
    #[error("the client data is not a JSON object without repeated members")]
    ClientData(#[source] serde_json::Error),
    #[error("the client data's type is {found:?}, not \"webauthn.get\"")]
    Type { found: Option<String> },
    #[error(
        "the signed challenge is not this operation's: it was made for another one, or the operation was changed"
    )]
    Challenge,
    #[error("the client data's origin is {found:?}, not {expected:?}")]
    Origin { found: Option<String>, expected: String },
    #[error("the client data says that it was made in a frame of another origin")]
    CrossOrigin,
    #[error("the authenticator data has {len} bytes; an assertion has at least {AUTHENTICATOR_DATA_MIN}")]
    AuthenticatorDataShort { len: usize },
    #[error("the authenticator signed for another relying party than {expected:?}")]
    RpId { expected: String },
    #[error("the authenticator did not see a person (the flag UP is not set)")]
    NotPresent,
    #[error(
        "the rule asks for the passkey's PIN, and the authenticator did not check it (the flag UV is not set)"
    )]
    NotVerified,
    #[error("the authenticator data sets reserved flags ({flags:#04x})")]
    ReservedFlags { flags: u8 },
    #[error("the authenticator data carries attested credential data, which belongs to an enrolment")]
    AttestedData,
    #[error("the authenticator data's extensions are not one CBOR map")]
    Extensions,
    #[error("the authenticator data has {extra} bytes too many")]
    TrailingBytes { extra: usize },
    #[error("the passkey says that it is backed up but cannot be backed up (BS without BE)")]
    BackupState,
    #[error("the passkey's backup eligibility is not what it was at its enrolment (BE was {enrolled})")]
    BackupEligibility { enrolled: bool },
    #[error("the enrolled key of the passkey {name:?} cannot be used")]
    PublicKey {
        name: String,
        #[source]
        source: KeyError,
    },
    #[error("the signature is not encoded as the passkey's algorithm asks")]
    SignatureEncoding,
    #[error("the signature is not by the passkey {name:?} over this data")]
    Signature { name: String },
    #[error("the passkey's counter did not grow ({stored} → {found}): there may be a copy of it")]
    SignCount { stored: u32, found: u32 },
}

/// Checks an assertion against what is expected, in a fixed order; nothing is skipped.
///
/// # Errors
/// The first check that fails, by name.
pub fn verify(assertion: &Assertion, expected: &Expected<'_>) -> Result<Verified, AssertionError> {
    let passkey = offered(&assertion.credential_id, expected.offered)?;
    let client_data = decode("client_data_json", &assertion.client_data_json, CLIENT_DATA_MAX)?;
    check_client_data(&client_data, expected)?;
    let client_data_hash = Sha256::digest(&client_data);
    let data = decode("authenticator_data", &assertion.authenticator_data, AUTHENTICATOR_DATA_MAX)?;
    let fields = check_authenticator_data(&data, expected)?;
    check_backup(fields.flags, passkey)?;
    let signature = decode("signature", &assertion.signature, SIGNATURE_MAX)?;
    let key = PublicKey::from_b64(&passkey.public_key)
        .map_err(|source| AssertionError::PublicKey { name: passkey.name.clone(), source })?;
    let signed = [data.as_slice(), client_data_hash.as_slice()].concat();
    key.verify(&signed, &signature).map_err(|fault| match fault {
        SignatureFault::Encoding => AssertionError::SignatureEncoding,
        SignatureFault::Mismatch => AssertionError::Signature { name: passkey.name.clone() },
    })?;
    check_sign_count(passkey.sign_count, fields.sign_count)?;
    Ok(Verified {
        challenge: expected.challenge,
        assertion: assertion.clone(),
        passkey: passkey.clone(),
        user_verified: fields.flags & UV != 0,
        sign_count: fields.sign_count,
    })
}

fn offered<'a>(credential_id: &str, offered: &'a [Passkey]) -> Result<&'a Passkey, AssertionError> {
    decode("credential_id", credential_id, CREDENTIAL_ID_MAX)?;
    // Base64url without padding has one text for each byte string (the decoder refuses stray bits), so texts compare.
    offered
        .iter()
        .find(|passkey| passkey.credential_id == credential_id)
        .ok_or_else(|| AssertionError::UnknownPasskey { credential_id: credential_id.to_owned() })
}

fn decode(field: &'static str, text: &str, max: usize) -> Result<Vec<u8>, AssertionError> {
    // Checked on the text, so that nothing oversized is ever decoded.
    if text.len() > max.div_ceil(3) * 4 {
        return Err(AssertionError::TooLong { field, max });
    }
    let bytes =
        BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|source| AssertionError::Base64 { field, source })?;
    if bytes.len() > max { Err(AssertionError::TooLong { field, max }) } else { Ok(bytes) }
}

fn check_client_data(bytes: &[u8], expected: &Expected<'_>) -> Result<(), AssertionError> {
    let data = client_data::parse(bytes).map_err(AssertionError::ClientData)?;
    if data.kind.as_deref() != Some("webauthn.get") {
        return Err(AssertionError::Type { found: data.kind });
    }
    if data.challenge != Some(BASE64_URL_SAFE_NO_PAD.encode(expected.challenge)) {
        return Err(AssertionError::Challenge);
    }
    if data.origin.as_deref() != Some(expected.origin) {
        return Err(AssertionError::Origin { found: data.origin, expected: expected.origin.to_owned() });
    }
    if data.cross_origin || data.top_origin {
        return Err(AssertionError::CrossOrigin);
    }
    Ok(())
}

struct Fields {
    flags: u8,
    sign_count: u32,
}

fn check_authenticator_data(data: &[u8], expected: &Expected<'_>) -> Result<Fields, AssertionError> {
    let short = || AssertionError::AuthenticatorDataShort { len: data.len() };
    let (rp_id_hash, rest) = data.split_first_chunk::<32>().ok_or_else(short)?;
    let (&flags, rest) = rest.split_first().ok_or_else(short)?;
    let (sign_count, extensions) = rest.split_first_chunk::<4>().ok_or_else(short)?;
    if rp_id_hash.as_slice() != Sha256::digest(expected.rp_id).as_slice() {
        return Err(AssertionError::RpId { expected: expected.rp_id.to_owned() });
    }
    if flags & UP == 0 {
        return Err(AssertionError::NotPresent);
    }
    if expected.verify == Verify::Pin && flags & UV == 0 {
        return Err(AssertionError::NotVerified);
    }
    if flags & RESERVED != 0 {
        return Err(AssertionError::ReservedFlags { flags: flags & RESERVED });
    }
    if flags & AT != 0 {
        return Err(AssertionError::AttestedData);
    }
    let extra = if flags & ED != 0 { after_extensions(extensions)? } else { extensions.len() };
    if extra != 0 {
        return Err(AssertionError::TrailingBytes { extra });
    }
    Ok(Fields { flags, sign_count: u32::from_be_bytes(*sign_count) })
}

/// How many bytes follow the one CBOR map that the extensions are. None were asked for, so their content is ignored.
pub(super) fn after_extensions(mut bytes: &[u8]) -> Result<usize, AssertionError> {
    match coset::cbor::from_reader::<Value, _>(&mut bytes) {
        Ok(Value::Map(_)) => Ok(bytes.len()),
        Ok(_) | Err(_) => Err(AssertionError::Extensions),
    }
}

fn check_backup(flags: u8, passkey: &Passkey) -> Result<(), AssertionError> {
    let eligible = flags & BE != 0;
    if flags & BS != 0 && !eligible {
        return Err(AssertionError::BackupState);
    }
    if eligible != passkey.be {
        return Err(AssertionError::BackupEligibility { enrolled: passkey.be });
    }
    Ok(())
}

pub(super) fn check_sign_count(stored: u32, found: u32) -> Result<(), AssertionError> {
    // Both zero: the authenticator has no counter.
    if (stored, found) == (0, 0) || found > stored {
        Ok(())
    } else {
        Err(AssertionError::SignCount { stored, found })
    }
}

#[cfg(test)]
#[path = "assertion_tests.rs"]
mod tests;
