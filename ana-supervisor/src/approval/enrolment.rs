//! How a passkey gets onto the list: the first by root alone, each further one by root and an enrolled passkey.
//!
//! What is signed is an [`Enrolment`]: the new key, its name and this host. The new key signs it, too, so a key
//! that cannot sign is never enrolled. Nothing here writes the list or the evidence; the caller does, in that
//! order: evidence first.

use std::path::{Path, PathBuf};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use pkcs8::rand_core::{OsRng, RngCore};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

use super::{
    assertion::{self, AssertionError, Expected, Verified},
    authenticator::{Authenticator, AuthenticatorError, Request},
    keyfile::{self, KeyFile, KeyFileError},
    passkeys::{self, Invalid, Kind, Passkey, Passkeys},
    software::{AskPassphrase, Registration, SoftwarePasskey},
};
use crate::operation::Verify;

const VERSION: u32 = 1;

/// What the authorising passkey signs: `challenge = SHA-256(JCS(enrolment))`. The member `kind` keeps it apart from
/// every operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolment {
    pub v: u32,
    /// Always "enrolment".
    pub kind: String,
    pub name: String,
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
    fn new(name: &str, registration: &Registration, host: &str) -> Self {
        let mut nonce = [0; 16];
        OsRng.fill_bytes(&mut nonce);
        Self {
            v: VERSION,
            kind: "enrolment".to_owned(),
            name: name.to_owned(),
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
    #[error("the new key does not sign")]
    Possession(#[source] AuthenticatorError),
    #[error("the new key's signature does not count")]
    PossessionVerification(#[source] AssertionError),
    #[error(
        "passkeys are enrolled here ({names}), so a further one needs the approval of one of them: add --with KEYFILE"
    )]
    NeedsAuthorisation { names: String },
    #[error("the key file that was to approve the enrolment is not usable")]
    With(#[source] KeyFileError),
    #[error("the enrolled passkey did not sign the enrolment")]
    Authorisation(#[source] AuthenticatorError),
    #[error("the enrolled passkey's signature on the enrolment does not count")]
    AuthorisationVerification(#[source] AssertionError),
    #[error("the enrolment has no canonical form")]
    Canonical(#[source] serde_json::Error),
}

/// What is to be enrolled.
#[derive(Debug)]
pub struct Wish<'a> {
    pub name: &'a str,
    /// The person it stands for.
    pub approver: &'a str,
    /// Where the key file is, or will be.
    pub key_file: &'a Path,
    /// Put a new key under this passphrase.
    pub passphrase: Option<Zeroizing<String>>,
    /// A key file of an enrolled passkey.
    pub with: Option<&'a Path>,
}

/// Makes (or takes over) the key, has it sign, has an enrolled passkey sign, verifies both. Creates the key file;
/// changes nothing else. Hold the list's [`passkeys::Lock`]. `ask` gets a key file's path and gives its passphrase.
///
/// # Errors
/// What is missing or wrong. A new key file may be left behind; the next attempt takes it over.
pub fn enrol(
    list: &Passkeys,
    wish: &Wish<'_>,
    ask: impl Fn(&Path) -> AskPassphrase,
) -> Result<Enrolled, EnrolError> {
    passkeys::check_name(wish.name)?;
    if list.named(wish.name).is_some() {
        return Err(EnrolError::NameTaken(wish.name.to_owned()));
    }
    // Before anything is made: is there somebody who can authorise?
    let authoriser = authoriser(list, wish, &ask)?;
    let (mut key, registration) = new_key(list, wish, &ask)?;
    let passkey = passkey(wish, &registration);
    let enrolment = Enrolment::new(wish.name, &registration, list.host());
    let challenge = enrolment.challenge()?;
    let assertion =
        sign(&mut key, list, std::slice::from_ref(&passkey), challenge).map_err(EnrolError::Possession)?;
    let possession = verify(list, std::slice::from_ref(&passkey), challenge, &assertion)
        .map_err(EnrolError::PossessionVerification)?;
    let authorised_by = match authoriser {
        None => None,
        Some(mut authoriser) => {
            let assertion =
                sign(&mut authoriser, list, &list.passkeys, challenge).map_err(EnrolError::Authorisation)?;
            let verified = verify(list, &list.passkeys, challenge, &assertion)
                .map_err(EnrolError::AuthorisationVerification)?;
            Some(verified)
        }
    };
    Ok(Enrolled { passkey, enrolment, possession, authorised_by })
}

/// The enrolled passkey that authorises, if one is needed: `--with`, or the first remembered key file that opens.
fn authoriser(
    list: &Passkeys,
    wish: &Wish<'_>,
    ask: &impl Fn(&Path) -> AskPassphrase,
) -> Result<Option<SoftwarePasskey>, EnrolError> {
    if let Some(path) = wish.with {
        return SoftwarePasskey::open(path, ask(path)).map(Some).map_err(EnrolError::With);
    }
    if list.passkeys.is_empty() {
        return Ok(None);
    }
    let remembered = list.passkeys.iter().find_map(|passkey| {
        let path = passkey.key_file.as_deref()?;
        let key = SoftwarePasskey::open(path, ask(path)).ok()?;
        (key.key_file().credential_id() == passkey.credential_id).then_some(key)
    });
    remembered.map(Some).ok_or_else(|| {
        let names: Vec<&str> = list.passkeys.iter().map(|passkey| passkey.name.as_str()).collect();
        EnrolError::NeedsAuthorisation { names: names.join(", ") }
    })
}

fn new_key(
    list: &Passkeys,
    wish: &Wish<'_>,
    ask: &impl Fn(&Path) -> AskPassphrase,
) -> Result<(SoftwarePasskey, Registration), EnrolError> {
    let path = wish.key_file;
    let there = path.symlink_metadata().is_ok();
    let (file, made) = if there {
        (existing(list, wish)?, None)
    } else {
        let passphrase = wish.passphrase.as_ref().map(|text| text.as_str());
        let (file, registration) = SoftwarePasskey::generate(&list.rp_id, wish.approver, passphrase)
            .map_err(EnrolError::Possession)?;
        file.create(path).map_err(EnrolError::KeyFile)?;
        (file, Some(registration))
    };
    // A passphrase that was just chosen is not asked for again.
    let ask = match &wish.passphrase {
        Some(passphrase) => {
            let passphrase = passphrase.clone();
            Box::new(move || Ok(passphrase.clone())) as AskPassphrase
        }
        None => ask(path),
    };
    let mut key = SoftwarePasskey::from_key_file(file, ask);
    let registration = match made {
        Some(registration) => registration,
        None => key.registration().map_err(EnrolError::Possession)?,
    };
    Ok((key, registration))
}

/// A key file that an earlier attempt left behind: taken over if it is a key of this host that nobody enrolled.
fn existing(list: &Passkeys, wish: &Wish<'_>) -> Result<KeyFile, EnrolError> {
    let path = wish.key_file.to_owned();
    let (file, uid) = keyfile::open(&path).map_err(EnrolError::KeyFile)?;
    let key = KeyFile::read(file, &path).map_err(EnrolError::KeyFile)?;
    // Enrolling is root's, so "own" is root's, too.
    if uid != 0 && uid != nix::unistd::geteuid().as_raw() {
        return Err(EnrolError::Owner { path, uid });
    }
    if key.rp_id() != list.rp_id {
        let found = key.rp_id().to_owned();
        return Err(EnrolError::OtherRpId { path, found, expected: list.rp_id.clone() });
    }
    if let Some(enrolled) = list.passkeys.iter().find(|passkey| passkey.credential_id == key.credential_id())
    {
        return Err(EnrolError::AlreadyEnrolled { path, name: enrolled.name.clone() });
    }
    if wish.passphrase.is_some() && !key.encrypted() {
        return Err(EnrolError::NoPassphrase { path });
    }
    Ok(key)
}

fn passkey(wish: &Wish<'_>, registration: &Registration) -> Passkey {
    Passkey {
        name: wish.name.to_owned(),
        kind: Kind::Software,
        credential_id: registration.credential_id.clone(),
        public_key: registration.public_key.clone(),
        aaguid: registration.aaguid.clone(),
        be: registration.be,
        bs: registration.bs,
        sign_count: registration.sign_count,
        created: format!("{:.3}", jiff::Timestamp::now()),
        approver: wish.approver.to_owned(),
        key_file: Some(wish.key_file.to_owned()),
    }
}

fn sign(
    key: &mut SoftwarePasskey,
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
