//! The signing key of this machine's records, made on first use.

use std::path::PathBuf;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as B64};
use jsonwebtoken::{Algorithm, EncodingKey};
use p256::ecdsa::{Signature, SigningKey};
use p256::elliptic_curve::rand_core::OsRng;
use p256::pkcs8::{DecodePrivateKey, EncodePrivateKey, LineEnding};
use zeroize::Zeroizing;

use super::error::{EvidenceError, SigningKeyError};
use super::key::RecordKey;
use crate::state::{State, StateError};

/// The `typ` of every record.
pub(crate) const TYPE: &str = "ana-evidence+jwt";
const KEY_BYTES_MAX: u64 = 4096;

/// Signs records with ES256.
pub struct Signer {
    key: EncodingKey,
    public: RecordKey,
}

impl Signer {
    /// Opens the signing key, or makes one. The caller holds the lock of the evidence: two processes that start
    /// for the first time must not make two keys.
    pub(crate) fn open(state: &State) -> Result<Self, EvidenceError> {
        let folder = state.signing_dir();
        let mut names =
            folder.names()?.into_iter().filter(|name| name.ends_with(".pem") && !name.starts_with('.'));
        let (signer, file) = match (names.next(), names.next()) {
            (Some(name), None) => (Self::read(state, &name)?, name),
            (None, _) => Self::create(state)?,
            (Some(_), Some(_)) => {
                return Err(EvidenceError::SeveralKeys { path: folder.path().to_path_buf() });
            }
        };
        let expected = format!("{}.pem", signer.public.kid());
        if file != expected {
            let path = folder.path().join(file);
            return Err(EvidenceError::SigningKey { path, source: SigningKeyError::Name(expected) });
        }
        signer.publish(state)?;
        Ok(signer)
    }

    /// The public half.
    pub fn public(&self) -> &RecordKey {
        &self.public
    }

    /// A compact JWS over `payload`, in the only form that [`super::verify`] accepts.
    pub(crate) fn sign(&self, payload: &[u8]) -> Result<String, EvidenceError> {
        self.sign_as(TYPE, payload)
    }

    /// The same with another `typ`, for what is not a record.
    pub(crate) fn sign_as(&self, typ: &str, payload: &[u8]) -> Result<String, EvidenceError> {
        let header = header(typ, self.public.algorithm(), self.public.kid());
        let mut line = String::with_capacity((header.len() + payload.len()) * 4 / 3 + 96);
        B64.encode_string(header, &mut line);
        line.push('.');
        B64.encode_string(payload, &mut line);
        let signature = jsonwebtoken::crypto::sign(line.as_bytes(), &self.key, Algorithm::ES256)
            .map_err(EvidenceError::Sign)?;
        line.push('.');
        line.push_str(&low_s(&signature).ok_or(EvidenceError::Signature)?);
        Ok(line)
    }

    pub(super) fn new(key: &SigningKey) -> Result<Self, SigningKeyError> {
        let public = RecordKey::from_es256(*key.verifying_key());
        Ok(Self { key: EncodingKey::from_ec_der(key.to_pkcs8_der()?.as_bytes()), public })
    }

    fn read(state: &State, name: &str) -> Result<Self, EvidenceError> {
        let folder = state.signing_dir();
        let path: PathBuf = folder.path().join(name);
        let bytes = folder.read_private(name, KEY_BYTES_MAX)?.map(Zeroizing::new);
        let bytes = bytes.ok_or_else(|| StateError::Missing { path: path.clone() })?;
        let unusable = |source: SigningKeyError| EvidenceError::SigningKey { path: path.clone(), source };
        let text = Zeroizing::new(String::from_utf8(bytes.to_vec()).map_err(|error| unusable(error.into()))?);
        let key = SigningKey::from_pkcs8_pem(&text).map_err(|error| unusable(error.into()))?;
        Self::new(&key).map_err(unusable)
    }

    fn create(state: &State) -> Result<(Self, String), EvidenceError> {
        let key = SigningKey::random(&mut OsRng);
        let path = || state.signing_dir().path().to_path_buf();
        let unusable = |source: SigningKeyError| EvidenceError::SigningKey { path: path(), source };
        let signer = Self::new(&key).map_err(unusable)?;
        let name = format!("{}.pem", signer.public.kid());
        let pem = key.to_pkcs8_pem(LineEnding::LF).map_err(|error| unusable(error.into()))?;
        // The public key first: a record whose key nobody can find would be worthless.
        signer.publish(state)?;
        state.signing_dir().replace(&name, pem.as_bytes(), 0o600)?;
        Ok((signer, name))
    }

    fn publish(&self, state: &State) -> Result<(), EvidenceError> {
        let mut jwk = serde_json::to_vec(&self.public.jwk())?;
        jwk.push(b'\n');
        let name = format!("{}.jwk", self.public.kid());
        if state.keys_dir().read(&name, KEY_BYTES_MAX)?.as_ref() != Some(&jwk) {
            state.keys_dir().replace(&name, &jwk, 0o644)?;
        }
        Ok(())
    }
}

/// Of the two signatures (r, s) and (r, n−s) that verify, the one with the smaller s: a record has one form.
fn low_s(signature: &str) -> Option<String> {
    let signature = Signature::from_slice(&B64.decode(signature).ok()?).ok()?;
    Some(B64.encode(signature.normalize_s().unwrap_or(signature).to_bytes()))
}

/// The exact bytes of a protected header.
pub(crate) fn header(typ: &str, algorithm: &str, kid: &str) -> String {
    format!(r#"{{"typ":"{typ}","alg":"{algorithm}","kid":"{kid}"}}"#)
}
