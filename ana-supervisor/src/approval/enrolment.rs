//! How a passkey gets onto the list: the first by root alone, each further one by root and an enrolled passkey.
//!
//! What is signed is an [`Enrolment`]: the new key, its name and this host. The new key signs it, too, so a key
//! that cannot sign is never enrolled. Nothing here writes the list or the evidence; the caller does, in that
//! order: evidence first.

mod software;

use std::path::PathBuf;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use pkcs8::rand_core::{OsRng, RngCore};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::{
    WentBack,
    assertion::{self, AssertionError, Expected, Verified},
    authenticator::{Authenticator, AuthenticatorError, Request},
    keyfile::KeyFileError,
    passkeys::{self, Invalid, Kind, Passkey, Passkeys},
    security_key::{RegistrationError, wire::Attestation},
    software::Registration,
};
use crate::operation::Verify;
pub use software::{KeyFileWish, NewSoftware, authoriser};

const VERSION: u32 = 2;

/// What the authorising passkey signs: `challenge = SHA-256(JCS(enrolment))`. The member `kind` keeps it apart from
/// every operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolment {
    pub v: u32,
    /// Always "enrolment".
    pub kind: String,
    pub name: String,
    /// The person it stands for.
    pub approver: String,
    pub passkey_kind: Kind,
    /// The authenticator's model, and whether the passkey may leave it: in its own words.
    pub aaguid: String,
    pub be: bool,
    pub bs: bool,
    /// Base64url.
    pub credential_id: String,
    /// The COSE key, base64url.
    pub public_key: String,
    pub host: String,
    /// 128 random bits, base64url.
    pub nonce: String,
    /// RFC 3339, UTC, milliseconds.
    pub issued_at: String,
}

impl Enrolment {
    fn new(wish: Wish<'_>, kind: Kind, registration: &Registration, host: &str) -> Self {
        let mut nonce = [0; 16];
        OsRng.fill_bytes(&mut nonce);
        Self {
            v: VERSION,
            kind: "enrolment".to_owned(),
            name: wish.name.to_owned(),
            approver: wish.approver.to_owned(),
            passkey_kind: kind,
            aaguid: registration.aaguid.clone(),
            be: registration.be,
            bs: registration.bs,
            credential_id: registration.credential_id.clone(),
            public_key: registration.public_key.clone(),
            host: host.to_owned(),
            nonce: BASE64_URL_SAFE_NO_PAD.encode(nonce),
            issued_at: format!("{:.3}", jiff::Timestamp::now()),
        }
    }

    /// SHA-256 of the canonical form (RFC 8785).
    ///
    /// # Errors
    /// It has none; with the members above that does not happen.
    pub fn challenge(&self) -> Result<[u8; 32], EnrolError> {
        let canonical = serde_json_canonicalizer::to_vec(self).map_err(EnrolError::Canonical)?;
        Ok(Sha256::digest(canonical).into())
    }
}

/// A passkey that may be put on the list, and why.
#[must_use = "an enrolment counts once it is recorded and the list is saved"]
#[derive(Debug)]
pub struct Enrolled {
    /// The new entry.
    pub passkey: Passkey,
    /// What was signed.
    pub enrolment: Enrolment,
    /// The new key's own signature.
    pub possession: Verified,
    /// An enrolled passkey's signature; `None` for the first passkey of a host.
    pub authorised_by: Option<Verified>,
    /// What the key says of its making.
    pub attested: Option<Attested>,
}

/// An attestation, and what it is over (WebAuthn, 6.5). Neither asked for nor judged: it is for those who know the makers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attested {
    /// Base64url.
    pub authenticator_data: String,
    /// Base64url.
    pub client_data_json: String,
    #[serde(flatten)]
    pub statement: Attestation,
}

/// A new passkey, as the thing that holds it made it.
#[derive(Clone, Debug)]
pub struct Made {
    pub registration: Registration,
    pub transports: Vec<String>,
    pub key_file: Option<PathBuf>,
    pub attested: Option<Attested>,
}

/// Something that can make a new passkey and sign with it.
pub trait NewPasskey: Authenticator {
    /// Makes it, for this person and host. Whatever it leaves behind is not enrolled.
    ///
    /// # Errors
    /// What is missing or wrong.
    fn make(&mut self, list: &Passkeys, approver: &str) -> Result<Made, EnrolError>;
}

/// Why a passkey is not enrolled.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EnrolError {
    #[error("the passkey cannot be enrolled")]
    Invalid(#[from] Invalid),
    #[error("a passkey named {0:?} is enrolled already; choose another --name")]
    NameTaken(String),
    #[error("the key file {} is enrolled already, as {name:?}", path.display())]
    AlreadyEnrolled { path: PathBuf, name: String },
    #[error("the key file {} belongs to {found:?}, and this host's passkeys to {expected:?}; choose another path", path.display())]
    OtherRpId { path: PathBuf, found: String, expected: String },
    #[error("the key file {} exists and has no passphrase; choose another path, or leave --passphrase out", path.display())]
    NoPassphrase { path: PathBuf },
    #[error("the key file {} belongs to the user {uid}, not to root: an agent of that user could sign with it", path.display())]
    Owner { path: PathBuf, uid: u32 },
    #[error("the new key file is not usable")]
    KeyFile(#[source] KeyFileError),
    #[error("the new key is not usable")]
    Key(#[source] AuthenticatorError),
    #[error("what the new key made cannot be enrolled")]
    Registration(#[source] RegistrationError),
    #[error("the new key does not sign")]
    Possession(#[source] AuthenticatorError),
    #[error("the new key's signature does not count")]
    PossessionVerification(#[source] AssertionError),
    #[error(
        "passkeys are enrolled here ({names}), so a further one needs the approval of one of them: add --with KEYFILE"
    )]
    NeedsAuthorisation { names: String },
    #[error(
        "a security key is enrolled here ({names}), so a further passkey needs the approval of one; leave --with out"
    )]
    NeedsSecurityKey { names: String },
    #[error("the key file that was to approve the enrolment is not usable")]
    With(#[source] KeyFileError),
    #[error("the enrolled passkey did not sign the enrolment")]
    Authorisation(#[source] AuthenticatorError),
    #[error("the enrolled passkey's signature on the enrolment does not count")]
    AuthorisationVerification(#[source] AssertionError),
    #[error(
        "the counter of the enrolled passkey {:?} did not grow ({} \u{2192} {}): there may be a copy of it",
        .0.passkey, .0.stored, .0.found
    )]
    WentBack(Box<WentBack>),
    #[error("the enrolment has no canonical form")]
    Canonical(#[source] serde_json::Error),
}

/// What is to be enrolled.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    pub name: &'a str,
    /// The person it stands for.
    pub approver: &'a str,
}

/// Who has to approve a further passkey.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authority {
    /// Nobody but root: it is the first one.
    Root,
    Software,
    /// Where there is a security key, a file is not enough any more.
    SecurityKey,
}

impl Authority {
    pub fn over(list: &Passkeys) -> Self {
        match list.passkeys.iter().any(|passkey| passkey.kind == Kind::SecurityKey) {
            true => Self::SecurityKey,
            false if list.passkeys.is_empty() => Self::Root,
            false => Self::Software,
        }
    }
}

/// Whether the name can be enrolled; asked before anything is made.
///
/// # Errors
/// It cannot.
pub fn check_name(list: &Passkeys, name: &str) -> Result<(), EnrolError> {
    passkeys::check_name(name)?;
    match list.named(name) {
        Some(_) => Err(EnrolError::NameTaken(name.to_owned())),
        None => Ok(()),
    }
}

/// Has the key made, has it sign, has an enrolled passkey sign, verifies both. Changes neither list nor evidence.
/// It takes as long as people do, so the list is not locked meanwhile: see that it is the same before it is saved. `authoriser` is what [`Authority::over`] asks for.
///
/// # Errors
/// What is missing or wrong.
pub fn enrol(
    list: &Passkeys,
    wish: Wish<'_>,
    new: &mut dyn NewPasskey,
    authoriser: Option<&mut dyn Authenticator>,
) -> Result<Enrolled, EnrolError> {
    check_name(list, wish.name)?;
    let names = || list.passkeys.iter().map(|passkey| passkey.name.as_str()).collect::<Vec<_>>().join(", ");
    match (Authority::over(list), authoriser.as_ref().map(|by| by.kind())) {
        (Authority::Root, _)
        | (Authority::SecurityKey, Some(Kind::SecurityKey))
        | (Authority::Software, Some(_)) => {}
        (Authority::SecurityKey, _) => return Err(EnrolError::NeedsSecurityKey { names: names() }),
        (Authority::Software, None) => return Err(EnrolError::NeedsAuthorisation { names: names() }),
    }
    let made = new.make(list, wish.approver)?;
    let enrolment = Enrolment::new(wish, new.kind(), &made.registration, list.host());
    let attested = made.attested.clone();
    let passkey = passkey(wish, made, new.kind());
    let challenge = enrolment.challenge()?;
    let assertion =
        sign(new, list, std::slice::from_ref(&passkey), challenge).map_err(EnrolError::Possession)?;
    let possession = verify(list, std::slice::from_ref(&passkey), challenge, &assertion)
        .map_err(EnrolError::PossessionVerification)?;
    let authorised_by = match authoriser {
        None => None,
        Some(authoriser) => {
            let kind = authoriser.kind();
            let of_kind = list.passkeys.iter().filter(|passkey| passkey.kind == kind);
            let able: Vec<Passkey> = of_kind.cloned().collect();
            let assertion = sign(authoriser, list, &able, challenge).map_err(EnrolError::Authorisation)?;
            let verified =
                verify(list, &able, challenge, &assertion).map_err(|error| {
                    match WentBack::of(&error, &able, &assertion) {
                        Some(back) => EnrolError::WentBack(Box::new(back)),
                        None => EnrolError::AuthorisationVerification(error),
                    }
                })?;
            Some(verified)
        }
    };
    // The key has counted its second signature.
    let passkey = Passkey { sign_count: possession.sign_count(), ..passkey };
    Ok(Enrolled { passkey, enrolment, possession, authorised_by, attested })
}

fn passkey(wish: Wish<'_>, made: Made, kind: Kind) -> Passkey {
    let Made { registration, transports, key_file, attested: _ } = made;
    Passkey {
        name: wish.name.to_owned(),
        kind,
        credential_id: registration.credential_id,
        public_key: registration.public_key,
        aaguid: registration.aaguid,
        transports,
        be: registration.be,
        bs: registration.bs,
        sign_count: registration.sign_count,
        created: format!("{:.3}", jiff::Timestamp::now()),
        last_used: None,
        approver: wish.approver.to_owned(),
        key_file,
    }
}

fn sign(
    key: &mut (impl Authenticator + ?Sized),
    list: &Passkeys,
    allowed: &[Passkey],
    challenge: [u8; 32],
) -> Result<super::Assertion, AuthenticatorError> {
    key.sign(&Request {
        challenge,
        rp_id: &list.rp_id,
        origin: &list.origin,
        allowed: allowed.iter().map(|passkey| passkey.credential_id.as_str()).collect(),
        verify: Verify::Presence,
    })
}

fn verify(
    list: &Passkeys,
    offered: &[Passkey],
    challenge: [u8; 32],
    assertion: &super::Assertion,
) -> Result<Verified, AssertionError> {
    let expected =
        Expected { challenge, origin: &list.origin, rp_id: &list.rp_id, verify: Verify::Presence, offered };
    assertion::verify(assertion, &expected)
}

#[cfg(test)]
#[path = "enrolment_tests.rs"]
mod tests;
