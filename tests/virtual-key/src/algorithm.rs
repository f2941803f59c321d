//! Signature algorithms and the key pairs of credentials (RFC 9053).

use ciborium::Value;
use ed25519_dalek::Signer as _;
use rand_core::{OsRng, RngCore};

use crate::ctap::cbor;

/// What a key signs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256, COSE -7
    Es256,
    /// Ed25519, COSE -8
    EdDsa,
}

impl Algorithm {
    /// Its number in COSE.
    #[must_use]
    pub const fn cose(self) -> i64 {
        match self {
            Self::Es256 => -7,
            Self::EdDsa => -8,
        }
    }
}

/// The key pair of one credential.
pub(crate) enum KeyPair {
    Es256(p256::ecdsa::SigningKey),
    EdDsa(ed25519_dalek::SigningKey),
}

impl KeyPair {
    pub(crate) fn generate(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Es256 => Self::Es256(p256::ecdsa::SigningKey::random(&mut OsRng)),
            Algorithm::EdDsa => Self::EdDsa(ed25519_dalek::SigningKey::from_bytes(&random())),
        }
    }

    pub(crate) const fn algorithm(&self) -> Algorithm {
        match self {
            Self::Es256(_) => Algorithm::Es256,
            Self::EdDsa(_) => Algorithm::EdDsa,
        }
    }

    /// The public half as a `COSE_Key` (CTAP 2.1, 8: canonical; RFC 9053, 7.1 and 7.2).
    pub(crate) fn cose_key(&self) -> Value {
        match self {
            Self::Es256(key) => {
                let (x, y) = coordinates(&key.verifying_key().into());
                let number = |n: i64| Value::from(n);
                cbor::map([(1, number(2)), (3, number(-7)), (-1, number(1)), (-2, x), (-3, y)])
            }
            Self::EdDsa(key) => {
                let x = Value::Bytes(key.verifying_key().to_bytes().to_vec());
                cbor::map([(1, Value::from(1)), (3, Value::from(-8)), (-1, Value::from(6)), (-2, x)])
            }
        }
    }

    /// As WebAuthn has it: ES256 in ASN.1 DER (WebAuthn 3, 6.5.5).
    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Es256(key) => {
                let signature: p256::ecdsa::Signature = key.sign(message);
                signature.to_der().as_bytes().to_vec()
            }
            Self::EdDsa(key) => key.sign(message).to_bytes().to_vec(),
        }
    }
}

/// x and y of a point on P-256.
pub(crate) fn coordinates(key: &p256::PublicKey) -> (Value, Value) {
    use p256::elliptic_curve::sec1::ToEncodedPoint;
    let point = key.to_encoded_point(false);
    let bytes = point.as_bytes();
    (Value::Bytes(bytes[1..33].to_vec()), Value::Bytes(bytes[33..65].to_vec()))
}

pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    OsRng.fill_bytes(&mut bytes);
    bytes
}
