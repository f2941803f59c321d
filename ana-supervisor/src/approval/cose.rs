//! A passkey's public key as it was enrolled (a COSE key), and the check of one signature under it.
//!
//! The algorithm is the stored key's, never the assertion's: an assertion names none.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use coset::{
    CborSerializable, CoseKey, KeyType, Label, RegisteredLabelWithPrivate,
    cbor::Value,
    iana::{self, EnumI64},
};
use p256::ecdsa::signature::Verifier;
use thiserror::Error;

/// The longest COSE key that is looked at, in bytes; an ES256 key has 77.
const KEY_BYTES_MAX: usize = 256;

/// Why a stored public key cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyError {
    #[error("the public key is not base64url without padding")]
    Base64(#[source] base64::DecodeError),
    #[error("the public key has {len} bytes; at most {KEY_BYTES_MAX} are allowed")]
    TooLong { len: usize },
    #[error("the public key is not a COSE key: {0}")]
    Cose(coset::CoseError),
    #[error("the public key is neither ES256 on P-256 nor EdDSA on Ed25519")]
    Unsupported,
    #[error("the public key has no valid member \"{0}\"")]
    Member(&'static str),
    #[error("the public key holds a private key")]
    Private,
    #[error("the public key is not a point on its curve")]
    Point,
}

/// Why a signature does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SignatureFault {
    /// Not one DER sequence of two integers in range (ES256), not 64 bytes (EdDSA).
    Encoding,
    /// Made by another key, or over other bytes.
    Mismatch,
}

/// A public key that can verify.
#[derive(Clone, Debug)]
pub(super) enum PublicKey {
    Es256(p256::ecdsa::VerifyingKey),
    EdDsa(ed25519_dalek::VerifyingKey),
}

impl PublicKey {
    pub(super) fn from_b64(text: &str) -> Result<Self, KeyError> {
        Self::from_cose(&BASE64_URL_SAFE_NO_PAD.decode(text).map_err(KeyError::Base64)?)
    }

    fn from_cose(bytes: &[u8]) -> Result<Self, KeyError> {
        if bytes.len() > KEY_BYTES_MAX {
            return Err(KeyError::TooLong { len: bytes.len() });
        }
        let key = CoseKey::from_slice(bytes).map_err(KeyError::Cose)?;
        match (&key.kty, &key.alg) {
            (
                KeyType::Assigned(iana::KeyType::EC2),
                Some(RegisteredLabelWithPrivate::Assigned(iana::Algorithm::ES256)),
            ) => es256(&key),
            (
                KeyType::Assigned(iana::KeyType::OKP),
                Some(RegisteredLabelWithPrivate::Assigned(iana::Algorithm::EdDSA)),
            ) => eddsa(&key),
            _ => Err(KeyError::Unsupported),
        }
    }

    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), SignatureFault> {
        match self {
            Self::Es256(key) => {
                let signature = p256::ecdsa::Signature::from_der(signature)
                    .map_err(|_opaque| SignatureFault::Encoding)?;
                key.verify(message, &signature).map_err(|_opaque| SignatureFault::Mismatch)
            }
            Self::EdDsa(key) => {
                let signature = ed25519_dalek::Signature::from_slice(signature)
                    .map_err(|_opaque| SignatureFault::Encoding)?;
                key.verify_strict(message, &signature).map_err(|_opaque| SignatureFault::Mismatch)
            }
        }
    }
}

fn es256(key: &CoseKey) -> Result<PublicKey, KeyError> {
    curve(key, iana::Ec2KeyParameter::Crv.to_i64(), iana::EllipticCurve::P_256)?;
    if member(key, iana::Ec2KeyParameter::D.to_i64()).is_some() {
        return Err(KeyError::Private);
    }
    let x = coordinate(key, iana::Ec2KeyParameter::X.to_i64(), "x")?;
    let y = coordinate(key, iana::Ec2KeyParameter::Y.to_i64(), "y")?;
    let point = p256::EncodedPoint::from_affine_coordinates(&x.into(), &y.into(), false);
    let key = p256::ecdsa::VerifyingKey::from_encoded_point(&point).map_err(|_opaque| KeyError::Point)?;
    Ok(PublicKey::Es256(key))
}

fn eddsa(key: &CoseKey) -> Result<PublicKey, KeyError> {
    curve(key, iana::OkpKeyParameter::Crv.to_i64(), iana::EllipticCurve::Ed25519)?;
    if member(key, iana::OkpKeyParameter::D.to_i64()).is_some() {
        return Err(KeyError::Private);
    }
    let x = coordinate(key, iana::OkpKeyParameter::X.to_i64(), "x")?;
    let key = ed25519_dalek::VerifyingKey::from_bytes(&x).map_err(|_opaque| KeyError::Point)?;
    // A key of small order verifies signatures over anything.
    if key.is_weak() {
        return Err(KeyError::Point);
    }
    Ok(PublicKey::EdDsa(key))
}

fn curve(key: &CoseKey, label: i64, wanted: iana::EllipticCurve) -> Result<(), KeyError> {
    let found = member(key, label).and_then(Value::as_integer).ok_or(KeyError::Member("crv"))?;
    if found == wanted.to_i64().into() { Ok(()) } else { Err(KeyError::Unsupported) }
}

fn coordinate(key: &CoseKey, label: i64, name: &'static str) -> Result<[u8; 32], KeyError> {
    member(key, label)
        .and_then(Value::as_bytes)
        .and_then(|bytes| <[u8; 32]>::try_from(bytes.as_slice()).ok())
        .ok_or(KeyError::Member(name))
}

fn member(key: &CoseKey, label: i64) -> Option<&Value> {
    key.params.iter().find(|(found, _)| *found == Label::Int(label)).map(|(_, value)| value)
}
