//! What a verifier believes: the keys of records, and the passkeys of people.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::key::{Jwk, KeyError, RecordKey};
use super::record::AssertionRecord;
use crate::state::{Folder, StateError};

const KEY_BYTES_MAX: u64 = 1 << 16;
const TRUST_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("the keys cannot be read")]
    State(#[from] StateError),
    #[error("{} is not a usable public key", path.display())]
    Key { path: PathBuf, source: KeyError },
    #[error("{} has another name than its key: it should be {expected}", path.display())]
    Name { path: PathBuf, expected: String },
    #[error("{} cannot be read", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is larger than {limit} bytes", path.display())]
    TooLarge { path: PathBuf, limit: u64 },
    #[error("{} is not a list of passkeys", path.display())]
    Passkeys { path: PathBuf, source: serde_json::Error },
    #[error("{} holds neither a JWK, nor a JWKS (\"keys\"), nor a list of passkeys (\"passkeys\")", path.display())]
    Nothing { path: PathBuf },
}

/// The keys that a verification believes.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    keys: BTreeMap<String, RecordKey>,
    passkeys: Vec<Enrolled>,
    rp_id: Option<String>,
}

/// The two members of an enrolment that make a person's approval proven.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Enrolled {
    credential_id: String,
    public_key: String,
}

/// A file given with `--trust`: a JWK, a JWKS, an enrolment list (passkeys.json), or the last two in one.
#[derive(Deserialize)]
struct Pinned {
    keys: Option<Vec<Jwk>>,
    passkeys: Option<Vec<Enrolled>>,
    rp_id: Option<String>,
}

impl Trust {
    /// The keys in `keys/*.jwk` and the list in `passkeys.json`, as far as `pinned` (the file given with `--trust`)
    /// does not replace them: pinned record keys replace the folder's, pinned passkeys replace the list.
    ///
    /// # Errors
    /// A key or list is unreadable or malformed: nothing is believed by halves.
    pub fn load(
        keys: Option<&Folder>,
        passkeys: Option<(&Folder, &str)>,
        pinned: Option<&Path>,
    ) -> Result<Self, TrustError> {
        let mut trust = Self::default();
        let mut has_passkeys = false;
        if let Some(path) = pinned {
            let bytes = read(path)?;
            has_passkeys = trust.pin(path, &bytes)?;
        }
        if let (true, Some(folder)) = (trust.keys.is_empty(), keys) {
            trust.add_keys(folder)?;
        }
        if let (false, Some((folder, name))) = (has_passkeys, passkeys)
            && let Some(bytes) = folder.read(name, TRUST_BYTES_MAX)?
        {
            let list: Pinned = parse(&folder.path().join(name), &bytes)?;
            trust.rp_id = list.rp_id;
            trust.passkeys = list.passkeys.unwrap_or_default();
        }
        Ok(trust)
    }

    /// Believes one more record key.
    pub fn add_key(&mut self, key: RecordKey) {
        self.keys.insert(key.kid().to_owned(), key);
    }

    /// Believes one more passkey (both base64url, the key in COSE form).
    pub fn add_passkey(&mut self, credential_id: &str, public_key: &str) {
        self.passkeys.push(Enrolled { credential_id: credential_id.into(), public_key: public_key.into() });
    }

    pub(crate) fn key(&self, kid: &str) -> Option<&RecordKey> {
        self.keys.get(kid)
    }

    /// Whether the assertion's key is one that we believe to be a person's.
    pub(crate) fn is_enrolled(&self, assertion: &AssertionRecord, rp_id: Option<&str>) -> bool {
        let same_rp = self.rp_id.as_deref().is_none_or(|expected| rp_id == Some(expected));
        same_rp
            && self.passkeys.iter().any(|passkey| {
                passkey.credential_id == assertion.credential_id && passkey.public_key == assertion.public_key
            })
    }

    fn add_keys(&mut self, folder: &Folder) -> Result<(), TrustError> {
        for name in
            folder.names()?.into_iter().filter(|name| name.ends_with(".jwk") && !name.starts_with('.'))
        {
            let path = folder.path().join(&name);
            let Some(bytes) = folder.read(&name, KEY_BYTES_MAX)? else {
                continue;
            };
            let key =
                RecordKey::parse(&bytes).map_err(|source| TrustError::Key { path: path.clone(), source })?;
            let expected = format!("{}.jwk", key.kid());
            if name != expected {
                return Err(TrustError::Name { path, expected });
            }
            self.add_key(key);
        }
        Ok(())
    }

    fn pin(&mut self, path: &Path, bytes: &[u8]) -> Result<bool, TrustError> {
        let unusable = |source| TrustError::Key { path: path.to_path_buf(), source };
        let pinned: Pinned = parse(path, bytes)?;
        match (pinned.keys, pinned.passkeys) {
            (None, None) => {
                let single: serde_json::Value = parse(path, bytes)?;
                if single.get("kty").is_none() {
                    return Err(TrustError::Nothing { path: path.to_path_buf() });
                }
                self.add_key(RecordKey::parse(bytes).map_err(unusable)?);
                Ok(false)
            }
            (keys, passkeys) => {
                for jwk in keys.unwrap_or_default() {
                    self.add_key(RecordKey::from_jwk(&jwk).map_err(unusable)?);
                }
                self.rp_id = pinned.rp_id;
                let has_passkeys = passkeys.is_some();
                self.passkeys = passkeys.unwrap_or_default();
                Ok(has_passkeys)
            }
        }
    }
}

fn parse<T: for<'de> Deserialize<'de>>(path: &Path, bytes: &[u8]) -> Result<T, TrustError> {
    serde_json::from_slice(bytes).map_err(|source| TrustError::Passkeys { path: path.to_path_buf(), source })
}

fn read(path: &Path) -> Result<Vec<u8>, TrustError> {
    let failed = |source| TrustError::Read { path: path.to_path_buf(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(TRUST_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > TRUST_BYTES_MAX {
        return Err(TrustError::TooLarge { path: path.to_path_buf(), limit: TRUST_BYTES_MAX });
    }
    Ok(bytes)
}
