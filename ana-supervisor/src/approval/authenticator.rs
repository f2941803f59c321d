//! The thing that holds a passkey, as the approver's side sees it.
//!
//! What is signed is never taken from the supervisor's word: [`Authenticator::assert`] hashes the operation that
//! was rendered to the person.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{assertion::Assertion, passkeys::Kind};
use crate::operation::{Operation, Verify, canonical::CanonicalError};

/// What a client needs to ask a person and an authenticator about one operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// What is rendered, and what is signed.
    pub operation: Operation,
    pub rp_id: String,
    pub origin: String,
    /// The passkeys that may answer, at least one.
    pub offered: Vec<Offer>,
    pub verify: Verify,
}

/// A passkey that may answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    pub name: String,
    pub kind: Kind,
    /// Base64url.
    pub credential_id: String,
    /// Where a software passkey's key file was at the enrolment.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key_file: Option<PathBuf>,
}

/// One signature that is asked of an authenticator.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    pub challenge: [u8; 32],
    pub rp_id: &'a str,
    pub origin: &'a str,
    /// The credential ids that may answer, base64url.
    pub allowed: Vec<&'a str>,
    pub verify: Verify,
}

impl<'a> Request<'a> {
    /// The signature that `options` asks for: the challenge is computed here, from what was rendered.
    ///
    /// # Errors
    /// The operation has no canonical form.
    pub fn of(options: &'a Options) -> Result<Self, AuthenticatorError> {
        Ok(Self {
            challenge: options.operation.challenge().map_err(AuthenticatorError::Operation)?,
            rp_id: &options.rp_id,
            origin: &options.origin,
            allowed: options.offered.iter().map(|offer| offer.credential_id.as_str()).collect(),
            // The rule's word is in the operation that was shown; a weaker one beside it does not count.
            verify: match (options.operation.verify, options.verify) {
                (Verify::Presence, Verify::Presence) => Verify::Presence,
                (Verify::Pin, _) | (_, Verify::Pin) => Verify::Pin,
            },
        })
    }
}

/// Something that signs with a passkey when a person agrees.
pub trait Authenticator {
    fn kind(&self) -> Kind;

    /// Signs one challenge.
    ///
    /// # Errors
    /// It holds none of the allowed passkeys, cannot verify the person, or fails.
    fn sign(&mut self, request: &Request<'_>) -> Result<Assertion, AuthenticatorError>;

    /// Signs the operation in `options`: the challenge is computed here, from what was rendered.
    ///
    /// # Errors
    /// As [`Authenticator::sign`]; the operation has no canonical form.
    fn assert(&mut self, options: &Options) -> Result<Assertion, AuthenticatorError> {
        self.sign(&Request::of(options)?)
    }
}

/// Why an authenticator did not sign.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AuthenticatorError {
    #[error("the operation cannot be hashed")]
    Operation(#[source] CanonicalError),
    #[error("this passkey is for {found:?}, and {asked:?} asks")]
    RpId { found: String, asked: String },
    #[error("this passkey is not one of those that may answer; `ana passkey list` shows which are enrolled")]
    NotOffered,
    #[error(
        "the rule asks for the passkey's PIN, and this key file has no passphrase; enroll one with `ana passkey enroll --passphrase`"
    )]
    CannotVerify,
    #[error("the key file's passphrase could not be asked for")]
    Passphrase(#[source] std::io::Error),
    #[error("the key file cannot be used")]
    KeyFile(#[source] super::keyfile::KeyFileError),
    #[error("the security key cannot be asked")]
    Helper(#[source] super::security_key::HelperError),
    #[error("{0}")]
    SecurityKey(super::security_key::wire::Fault),
    #[error("the terminal cannot be used")]
    Terminal(#[source] std::io::Error),
    #[error("the authenticator refused (CTAP status {status:#04x})")]
    Ctap { status: u8 },
}
