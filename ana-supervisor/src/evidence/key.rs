//! Public keys of records: JWK, thumbprint, signature check. ES256 and EdDSA, nothing else.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as B64};
use p256::ecdsa::signature::Verifier;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A JWK that is not a key we can use.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("it is not a JWK")]
    Json(#[from] serde_json::Error),
    #[error("{0}")]
    Wrong(&'static str),
}

/// The members of a JWK that we look at; others are allowed and ignored, as RFC 7517 asks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Jwk {
    kty: String,
    crv: String,
    x: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    y: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    alg: Option<String>,
    #[serde(default, rename = "use", skip_serializing_if = "Option::is_none")]
    usage: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
    /// A private key does not belong here.
    #[serde(default, skip_serializing)]
    d: Option<serde::de::IgnoredAny>,
}

#[derive(Clone, Debug)]
enum Verifying {
    Es256(p256::ecdsa::VerifyingKey),
    EdDsa(ed25519_dalek::VerifyingKey),
}

/// A record's public key.
#[derive(Clone, Debug)]
pub struct RecordKey {
    kid: String,
    verifying: Verifying,
}

impl RecordKey {
    /// The RFC 7638 thumbprint.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The one algorithm that goes with the key.
    pub fn algorithm(&self) -> &'static str {
        match self.verifying {
            Verifying::Es256(_) => "ES256",
            Verifying::EdDsa(_) => "EdDSA",
        }
    }

    /// Whether `signature` is this key's over `message`. An ES256 signature has two forms, (r, s) and (r, n−s);
    /// only the one with the low s is accepted, so that nobody can change a record and keep it valid.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.verifying {
            Verifying::Es256(key) => p256::ecdsa::Signature::from_slice(signature).is_ok_and(|signature| {
                signature.normalize_s().is_none() && key.verify(message, &signature).is_ok()
            }),
            Verifying::EdDsa(key) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(message, &signature).is_ok()),
        }
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, KeyError> {
        Self::from_jwk(&serde_json::from_slice(bytes)?)
    }

    pub(crate) fn from_jwk(jwk: &Jwk) -> Result<Self, KeyError> {
        let wrong = KeyError::Wrong;
        if jwk.d.is_some() {
            return Err(wrong("it is a private key"));
        }
        if jwk.usage.as_deref().is_some_and(|usage| usage != "sig") {
            return Err(wrong("it is not for signatures"));
        }
        let x = coordinate(&jwk.x)?;
        let (verifying, thumbprint) = match (jwk.kty.as_str(), jwk.crv.as_str(), &jwk.y) {
            ("EC", "P-256", Some(y)) => {
                let point =
                    p256::EncodedPoint::from_affine_coordinates(&x.into(), &coordinate(y)?.into(), false);
                let key = p256::ecdsa::VerifyingKey::from_encoded_point(&point);
                let key = key.ok().ok_or(wrong("it is not a point of P-256"))?;
                (Verifying::Es256(key), format!(r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{y}"}}"#, jwk.x))
            }
            ("OKP", "Ed25519", None) => {
                let key = ed25519_dalek::VerifyingKey::from_bytes(&x);
                let key =
                    key.ok().filter(|key| !key.is_weak()).ok_or(wrong("it is not a point of Ed25519"))?;
                (Verifying::EdDsa(key), format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, jwk.x))
            }
            _ => return Err(wrong("it is neither EC P-256 nor OKP Ed25519")),
        };
        let key = Self { kid: hash(thumbprint.as_bytes()), verifying };
        if jwk.alg.as_deref().is_some_and(|alg| alg != key.algorithm()) {
            return Err(wrong("its alg is not ES256 (P-256) or EdDSA (Ed25519)"));
        }
        if jwk.kid.as_ref().is_some_and(|kid| *kid != key.kid) {
            return Err(wrong("its kid is not its RFC 7638 thumbprint"));
        }
        Ok(key)
    }

    /// The JWK to publish.
    pub(crate) fn jwk(&self) -> Jwk {
        let (kty, crv, x, y) = match &self.verifying {
            Verifying::Es256(key) => {
                let point = key.to_encoded_point(false);
                let part =
                    |part: Option<&p256::FieldBytes>| part.map(|bytes| B64.encode(bytes)).unwrap_or_default();
                ("EC", "P-256", part(point.x()), Some(part(point.y())))
            }
            Verifying::EdDsa(key) => ("OKP", "Ed25519", B64.encode(key.as_bytes()), None),
        };
        Jwk {
            kty: kty.into(),
            crv: crv.into(),
            x,
            y,
            alg: Some(self.algorithm().into()),
            usage: Some("sig".into()),
            kid: Some(self.kid.clone()),
            d: None,
        }
    }

    pub(crate) fn from_es256(key: p256::ecdsa::VerifyingKey) -> Self {
        let mut key = Self { kid: String::new(), verifying: Verifying::Es256(key) };
        let jwk = key.jwk();
        let y = jwk.y.unwrap_or_default();
        key.kid = hash(format!(r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{y}"}}"#, jwk.x).as_bytes());
        key
    }
}

/// Base64url of the SHA-256.
pub(crate) fn hash(bytes: &[u8]) -> String {
    B64.encode(Sha256::digest(bytes))
}

fn coordinate(text: &str) -> Result<[u8; 32], KeyError> {
    let bytes = B64.decode(text).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    bytes.ok_or(KeyError::Wrong("a coordinate is not 32 bytes of base64url"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8037, A.2 to A.4: a key, its thumbprint and a signature.
    #[test]
    fn an_ed25519_key_is_read_as_the_rfc_says() {
        let jwk = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        let key = RecordKey::parse(jwk.as_bytes()).unwrap();
        assert_eq!((key.kid(), key.algorithm()), ("kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k", "EdDSA"));
        let message = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
        let signature =
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
        let mut signature = B64.decode(signature).unwrap();
        assert!(key.verifies(message, &signature));
        signature[0] ^= 1;
        assert!(!key.verifies(message, &signature));
    }
}
