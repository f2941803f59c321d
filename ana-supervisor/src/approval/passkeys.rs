//! The enrolled passkeys of one host: passkeys.json.
//!
//! The file is the approvers' list: who may write it may approve everything, so it is root's, and every change is
//! made under a lock, written beside it and renamed over it.

use std::{
    collections::HashSet,
    fmt,
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    assertion::{AssertionError, Verified, check_sign_count},
    cose::{KeyError, PublicKey},
};
use crate::state::{State, StateError};

const VERSION: u32 = 1;

const LOCK_FILE: &str = "passkeys.json.lock";

/// A list of a few dozen passkeys has some kilobytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
const PASSKEYS_MAX: usize = 256;
const NAME_BYTES_MAX: usize = 64;

/// All passkeys of this host and the two names that they are bound to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Passkeys {
    version: u32,
    /// The relying party id: `ana:<host>`. No browser accepts it, so no web page can ask for these passkeys.
    pub rp_id: String,
    /// The origin in the client data. It is the rp id: exactly what signed, compared as one string. A URL with an
    /// opaque path, so verifiers that parse origins as URLs take it, and it compares by text there, too.
    pub origin: String,
    pub passkeys: Vec<Passkey>,
}

/// One enrolled passkey.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Passkey {
    /// What people call it; unique.
    pub name: String,
    pub kind: Kind,
    /// Base64url; unique.
    pub credential_id: String,
    /// The COSE key, base64url.
    pub public_key: String,
    /// The authenticator's model, as a UUID.
    pub aaguid: String,
    /// How it is reached (WebAuthn, 5.8.4), in its own words.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub transports: Vec<String>,
    /// Backup eligible; fixed for the passkey's life.
    pub be: bool,
    /// Backed up at the enrolment.
    pub bs: bool,
    /// The last counter seen; 0 where the authenticator has none.
    pub sign_count: u32,
    /// RFC 3339.
    pub created: String,
    /// RFC 3339: when it approved something last, an enrolment included; a software passkey's operations do not count.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_used: Option<String>,
    /// The person, by account name.
    pub approver: String,
    /// Where a software passkey's key file was at the enrolment.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key_file: Option<PathBuf>,
}

/// What holds the private key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A file: for tests and demos. Whoever reads the file is the approver.
    Software,
    /// A FIDO2 authenticator that shows presence by a touch.
    SecurityKey,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Software => "software",
            Self::SecurityKey => "security-key",
        })
    }
}

/// Why the list cannot be read, changed or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PasskeysError {
    #[error("the list of passkeys cannot be used")]
    State(#[source] StateError),
    #[error("cannot {action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not a regular file", path.display())]
    NotAFile { path: PathBuf },
    #[error("{} can be written by others than its owner (mode {mode:04o}); chmod 600 it after a look at who changed it", path.display())]
    Mode { path: PathBuf, mode: u32 },
    #[error("{} is larger than {FILE_BYTES_MAX} bytes", path.display())]
    TooLarge { path: PathBuf },
    #[error("{} is not a list of passkeys", path.display())]
    Parse {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("{} is not valid", path.display())]
    Invalid {
        path: PathBuf,
        #[source]
        source: Invalid,
    },
}

/// What is wrong with a list of passkeys.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Invalid {
    #[error("its version is {found}; this program knows {VERSION}")]
    Version { found: u32 },
    #[error("{0:?} is not a relying party id of the form ana:HOST")]
    RpId(String),
    #[error("the origin {0:?} is not the relying party id")]
    Origin(String),
    #[error("there are more than {PASSKEYS_MAX} passkeys")]
    TooMany,
    #[error(
        "{0:?} is not a name: use 1 to {NAME_BYTES_MAX} letters, digits, '.', '_', '-', '@' or spaces inside"
    )]
    Name(String),
    #[error("two passkeys have the name {0:?}")]
    NameTwice(String),
    #[error("the passkey {0:?} has a credential id that is not base64url of 16 to 1023 bytes")]
    CredentialId(String),
    #[error("two passkeys have the credential id of {0:?}")]
    CredentialTwice(String),
    #[error("the passkey {name:?} has no usable public key")]
    PublicKey {
        name: String,
        #[source]
        source: KeyError,
    },
    #[error("the passkey {0:?} is backed up but not eligible for it (bs without be)")]
    Backup(String),
}

impl Passkeys {
    /// The empty list of a host.
    ///
    /// # Errors
    /// The host's name cannot be part of a relying party id.
    pub fn new(host: &str) -> Result<Self, Invalid> {
        let rp_id = format!("ana:{host}");
        let list = Self { version: VERSION, origin: rp_id.clone(), rp_id, passkeys: Vec::new() };
        list.validate()?;
        Ok(list)
    }

    /// The list of this state folder; `None` when nothing was ever enrolled.
    ///
    /// # Errors
    /// It cannot be read, is not root's alone where it has to be, or what it says is not valid.
    pub fn load(state: &State) -> Result<Option<Self>, PasskeysError> {
        state
            .read_passkeys()
            .map_err(PasskeysError::State)?
            .map(|text| Self::parse(&text, &state.passkeys_file()))
            .transpose()
    }

    /// As [`Passkeys::load`], for commands that need no root and open no state folder.
    ///
    /// # Errors
    /// It cannot be read, others can write it, or what it says is not valid.
    pub fn load_from(path: &Path) -> Result<Option<Self>, PasskeysError> {
        let io = |action| move |source| PasskeysError::Io { action, path: path.to_owned(), source };
        let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK;
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io("open")(error)),
        };
        let metadata = file.metadata().map_err(io("look at"))?;
        if !metadata.is_file() {
            return Err(PasskeysError::NotAFile { path: path.to_owned() });
        }
        if metadata.mode() & 0o022 != 0 {
            return Err(PasskeysError::Mode { path: path.to_owned(), mode: metadata.mode() & 0o7777 });
        }
        let mut text = Vec::new();
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(io("read"))?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(PasskeysError::TooLarge { path: path.to_owned() });
        }
        Self::parse(&text, path).map(Some)
    }

    fn parse(text: &[u8], path: &Path) -> Result<Self, PasskeysError> {
        let list: Self = serde_json::from_slice(text)
            .map_err(|source| PasskeysError::Parse { path: path.to_owned(), source })?;
        list.validate().map_err(|source| PasskeysError::Invalid { path: path.to_owned(), source })?;
        Ok(list)
    }

    /// Replaces the list of the state folder: a crash leaves the old one or the new. Hold the [`Lock`] from load
    /// to save. It holds no secret and all may read it, so that people can list their passkeys without root.
    ///
    /// # Errors
    /// The list is not valid, or a step failed; the old file is then still there.
    pub fn save(&self, state: &State) -> Result<(), PasskeysError> {
        let path = state.passkeys_file();
        self.validate().map_err(|source| PasskeysError::Invalid { path: path.clone(), source })?;
        let mut text =
            serde_json::to_vec_pretty(self).map_err(|source| PasskeysError::Parse { path, source })?;
        text.push(b'\n');
        state.replace_passkeys(&text).map_err(PasskeysError::State)
    }

    /// The same host's, without any passkey.
    #[must_use]
    pub fn emptied(&self) -> Self {
        Self { passkeys: Vec::new(), ..self.clone() }
    }

    /// Whether these are the same passkeys, however often they were used meanwhile.
    pub fn same_passkeys(&self, other: &Self) -> bool {
        let unused = |list: &Self| {
            let mut list = list.clone();
            for passkey in &mut list.passkeys {
                (passkey.sign_count, passkey.last_used) = (0, None);
            }
            list
        };
        unused(self) == unused(other)
    }

    /// A passkey was used: its counter and the time.
    ///
    /// # Errors
    /// SignCount: its counter did not grow; UnknownPasskey: it was removed.
    pub fn count(&mut self, verified: &Verified) -> Result<(), AssertionError> {
        let id = &verified.assertion().credential_id;
        let passkey = self.passkeys.iter_mut().find(|passkey| passkey.credential_id == *id);
        let passkey = passkey.ok_or_else(|| AssertionError::UnknownPasskey { credential_id: id.clone() })?;
        check_sign_count(passkey.sign_count, verified.sign_count())?;
        passkey.sign_count = verified.sign_count();
        passkey.last_used = Some(format!("{:.3}", jiff::Timestamp::now()));
        Ok(())
    }

    /// By name.
    pub fn named(&self, name: &str) -> Option<&Passkey> {
        self.passkeys.iter().find(|passkey| passkey.name == name)
    }

    /// The host in the relying party id.
    pub fn host(&self) -> &str {
        self.rp_id.strip_prefix("ana:").unwrap_or(&self.rp_id)
    }

    /// Everything that makes a list unusable or ambiguous.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn validate(&self) -> Result<(), Invalid> {
        if self.version != VERSION {
            return Err(Invalid::Version { found: self.version });
        }
        if !self.rp_id.strip_prefix("ana:").is_some_and(is_host) {
            return Err(Invalid::RpId(self.rp_id.clone()));
        }
        if self.origin != self.rp_id {
            return Err(Invalid::Origin(self.origin.clone()));
        }
        if self.passkeys.len() > PASSKEYS_MAX {
            return Err(Invalid::TooMany);
        }
        let mut names = HashSet::new();
        let mut credentials = HashSet::new();
        for passkey in &self.passkeys {
            passkey.validate()?;
            if !names.insert(&passkey.name) {
                return Err(Invalid::NameTwice(passkey.name.clone()));
            }
            if !credentials.insert(&passkey.credential_id) {
                return Err(Invalid::CredentialTwice(passkey.name.clone()));
            }
        }
        Ok(())
    }
}

impl Passkey {
    fn validate(&self) -> Result<(), Invalid> {
        check_name(&self.name)?;
        match BASE64_URL_SAFE_NO_PAD.decode(&self.credential_id) {
            Ok(id) if (16..=1023).contains(&id.len()) => {}
            Ok(_) | Err(_) => return Err(Invalid::CredentialId(self.name.clone())),
        }
        PublicKey::from_b64(&self.public_key)
            .map_err(|source| Invalid::PublicKey { name: self.name.clone(), source })?;
        if self.bs && !self.be {
            return Err(Invalid::Backup(self.name.clone()));
        }
        Ok(())
    }
}

/// A name that is safe on a terminal, in a shell and in a message.
///
/// # Errors
/// It is not.
pub fn check_name(name: &str) -> Result<(), Invalid> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-@ ".contains(c);
    let good = !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name.chars().all(plain)
        && name.trim() == name
        && !name.starts_with('-');
    if good { Ok(()) } else { Err(Invalid::Name(name.to_owned())) }
}

fn is_host(host: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !host.is_empty() && host.len() <= 64 && host.chars().all(plain)
}

/// The right to change the list: held from load to save, given up when dropped.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "the lock is the open file")] File);

impl Lock {
    /// Waits for the lock of this state folder's list. The lock file is 0600 root's, so nobody else can hold it.
    ///
    /// # Errors
    /// The lock file cannot be made or locked.
    pub fn take(state: &State) -> Result<Self, PasskeysError> {
        let file = state
            .base_dir()
            .open_file(LOCK_FILE, OFlag::O_RDWR | OFlag::O_CREAT, 0o600)
            .map_err(PasskeysError::State)?;
        let path = state.base_dir().path().join(LOCK_FILE);
        file.lock().map_err(|source| PasskeysError::Io { action: "lock", path, source })?;
        Ok(Self(file))
    }
}

#[cfg(test)]
#[path = "passkeys_tests.rs"]
mod tests;
