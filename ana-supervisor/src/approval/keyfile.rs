//! The file of a software passkey: one private key, 0600, optionally under a passphrase.
//!
//! Who can read an unencrypted one can approve. It is therefore read only through a descriptor that nobody else
//! can reach: a path is opened without following a link, and a file that others may read is refused.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use p256::{
    SecretKey,
    pkcs8::{DecodePrivateKey, EncodePrivateKey, LineEnding},
};
use pkcs8::{
    EncryptedPrivateKeyInfo, PrivateKeyInfo, SecretDocument,
    pkcs5::{pbes2, scrypt},
    rand_core::{OsRng, RngCore},
};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::{ZeroizeOnDrop, Zeroizing};

const VERSION: u32 = 1;
const FILE_BYTES_MAX: usize = 16 * 1024;
const ENCRYPTED_LABEL: &str = "ENCRYPTED PRIVATE KEY";

/// scrypt's cost, as a power of two: 2^17 is 128 MiB and a quarter of a second.
#[cfg(not(test))]
const SCRYPT_LOG_N: u8 = 17;
#[cfg(test)]
const SCRYPT_LOG_N: u8 = 4;
/// What a file may ask for at most: a gigabyte.
const SCRYPT_LOG_N_MAX: u64 = 20;

/// What is in the file.
#[derive(Serialize, Deserialize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub struct KeyFile {
    version: u32,
    rp_id: String,
    /// Base64url.
    credential_id: String,
    /// Base64url.
    user_handle: String,
    /// PKCS#8 PEM.
    private_key: String,
    /// The PEM is PBES2 (scrypt, AES-256) under a passphrase.
    encrypted: bool,
}

/// Why a key file cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyFileError {
    #[error("cannot {action} the key file {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the key file {} is not a regular file", path.display())]
    NotAFile { path: PathBuf },
    #[error("the key file {} is open to others (mode {mode:04o}); whoever can read it can approve: chmod 600 it, or enroll a new one", path.display())]
    Mode { path: PathBuf, mode: u32 },
    #[error("{} is too large to be a key file", path.display())]
    TooLarge { path: PathBuf },
    #[error("{} is not a key file of a software passkey", path.display())]
    Parse {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("the key file's version is {found}; this program knows {VERSION}")]
    Version { found: u32 },
    #[error("the key file's {field} is not valid")]
    Field { field: &'static str },
    #[error("the key file's private key is not a PKCS#8 P-256 key")]
    Key,
    #[error("the passphrase is wrong")]
    WrongPassphrase,
    #[error("the key cannot be encrypted")]
    Encrypt,
}

impl KeyFile {
    pub(super) fn new(
        rp_id: &str,
        credential_id: &[u8],
        user_handle: &[u8],
        key: &SecretKey,
        passphrase: Option<&str>,
    ) -> Result<Self, KeyFileError> {
        let private_key = match passphrase {
            None => key.to_pkcs8_pem(LineEnding::LF).map_err(|_opaque| KeyFileError::Key)?.to_string(),
            Some(passphrase) => encrypt(key, passphrase)?,
        };
        Ok(Self {
            version: VERSION,
            rp_id: rp_id.to_owned(),
            credential_id: BASE64_URL_SAFE_NO_PAD.encode(credential_id),
            user_handle: BASE64_URL_SAFE_NO_PAD.encode(user_handle),
            private_key,
            encrypted: passphrase.is_some(),
        })
    }

    /// Reads the file at `path`, which must not be a link and not be open to others.
    ///
    /// # Errors
    /// It cannot be opened, is open to others, or is not a key file.
    pub fn open(path: &Path) -> Result<Self, KeyFileError> {
        Self::read(open(path)?.0, path)
    }

    /// Reads an open file; `path` is only for messages.
    ///
    /// # Errors
    /// It is open to others or not a key file.
    pub fn read(file: File, path: &Path) -> Result<Self, KeyFileError> {
        let io = |action| move |source| KeyFileError::Io { action, path: path.to_owned(), source };
        let metadata = file.metadata().map_err(io("look at"))?;
        if !metadata.is_file() {
            return Err(KeyFileError::NotAFile { path: path.to_owned() });
        }
        if metadata.mode() & 0o077 != 0 {
            return Err(KeyFileError::Mode { path: path.to_owned(), mode: metadata.mode() & 0o7777 });
        }
        // Room for all of it at once: a growing buffer would leave copies of the key behind.
        let mut text = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX + 2));
        file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut text).map_err(io("read"))?;
        if text.len() > FILE_BYTES_MAX {
            return Err(KeyFileError::TooLarge { path: path.to_owned() });
        }
        let key: Self = serde_json::from_slice(&text)
            .map_err(|source| KeyFileError::Parse { path: path.to_owned(), source })?;
        key.validate()?;
        Ok(key)
    }

    /// Creates the file, 0600, synced; never over another one.
    ///
    /// # Errors
    /// There is something at `path`, or it cannot be written.
    pub fn create(&self, path: &Path) -> Result<(), KeyFileError> {
        let io = |action| move |source| KeyFileError::Io { action, path: path.to_owned(), source };
        let mut text = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX));
        serde_json::to_writer_pretty(&mut *text, self)
            .map_err(|source| KeyFileError::Parse { path: path.to_owned(), source })?;
        text.push(b'\n');
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(path)
            .map_err(io("create"))?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(io("write"))?;
        File::open(folder_of(path)).and_then(|folder| folder.sync_all()).map_err(io("sync the folder of"))
    }

    pub fn rp_id(&self) -> &str {
        &self.rp_id
    }

    /// Base64url.
    pub fn credential_id(&self) -> &str {
        &self.credential_id
    }

    /// Is a passphrase needed?
    pub fn encrypted(&self) -> bool {
        self.encrypted
    }

    pub(super) fn credential_id_bytes(&self) -> Result<Vec<u8>, KeyFileError> {
        decode("credential_id", &self.credential_id)
    }

    pub(super) fn user_handle_bytes(&self) -> Result<Vec<u8>, KeyFileError> {
        decode("user_handle", &self.user_handle)
    }

    /// The private key; it is wiped from memory when dropped.
    pub(super) fn unlock(&self, passphrase: Option<&str>) -> Result<SecretKey, KeyFileError> {
        match passphrase {
            None => SecretKey::from_pkcs8_pem(&self.private_key).map_err(|_opaque| KeyFileError::Key),
            Some(passphrase) => decrypt(&self.private_key, passphrase),
        }
    }

    fn validate(&self) -> Result<(), KeyFileError> {
        if self.version != VERSION {
            return Err(KeyFileError::Version { found: self.version });
        }
        if !self.rp_id.starts_with("ana:") {
            return Err(KeyFileError::Field { field: "rp_id" });
        }
        if !(16..=1023).contains(&self.credential_id_bytes()?.len()) {
            return Err(KeyFileError::Field { field: "credential_id" });
        }
        if !(1..=64).contains(&self.user_handle_bytes()?.len()) {
            return Err(KeyFileError::Field { field: "user_handle" });
        }
        if self.encrypted != self.private_key.contains(ENCRYPTED_LABEL) {
            return Err(KeyFileError::Field { field: "encrypted" });
        }
        Ok(())
    }
}

impl std::fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyFile").field("credential_id", &self.credential_id).finish_non_exhaustive()
    }
}

/// Opens a key file, and says whose it is. A link is not followed, a pipe not waited for.
///
/// # Errors
/// It cannot be opened.
pub fn open(path: &Path) -> Result<(File, u32), KeyFileError> {
    let io = |source| KeyFileError::Io { action: "open", path: path.to_owned(), source };
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK)
        .open(path)
        .map_err(io)?;
    let uid = file.metadata().map_err(io)?.uid();
    Ok((file, uid))
}

/// The folder to sync; a name without one is in the current folder.
pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn decode(field: &'static str, text: &str) -> Result<Vec<u8>, KeyFileError> {
    BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_named_by_its_field| KeyFileError::Field { field })
}

fn encrypt(key: &SecretKey, passphrase: &str) -> Result<String, KeyFileError> {
    let mut salt = [0; 16];
    let mut iv = [0; 16];
    OsRng.fill_bytes(&mut salt);
    OsRng.fill_bytes(&mut iv);
    let cost = scrypt::Params::new(SCRYPT_LOG_N, 8, 1, 32).map_err(|_opaque| KeyFileError::Encrypt)?;
    let parameters =
        pbes2::Parameters::scrypt_aes256cbc(cost, &salt, &iv).map_err(|_opaque| KeyFileError::Encrypt)?;
    let der = key.to_pkcs8_der().map_err(|_opaque| KeyFileError::Key)?;
    let info = PrivateKeyInfo::try_from(der.as_bytes()).map_err(|_opaque| KeyFileError::Key)?;
    let document =
        info.encrypt_with_params(parameters, passphrase).map_err(|_opaque| KeyFileError::Encrypt)?;
    let pem = document.to_pem(ENCRYPTED_LABEL, LineEnding::LF).map_err(|_opaque| KeyFileError::Encrypt)?;
    Ok(pem.to_string())
}

fn decrypt(pem: &str, passphrase: &str) -> Result<SecretKey, KeyFileError> {
    let (label, document) = SecretDocument::from_pem(pem).map_err(|_opaque| KeyFileError::Key)?;
    let info = EncryptedPrivateKeyInfo::try_from(document.as_bytes()).map_err(|_opaque| KeyFileError::Key)?;
    let affordable = info
        .encryption_algorithm
        .pbes2()
        .and_then(|parameters| parameters.kdf.scrypt())
        .is_some_and(|scrypt| scrypt.cost_parameter <= 1 << SCRYPT_LOG_N_MAX && scrypt.block_size <= 8);
    if label != ENCRYPTED_LABEL || !affordable {
        return Err(KeyFileError::Key);
    }
    let der = info.decrypt(passphrase).map_err(|_opaque| KeyFileError::WrongPassphrase)?;
    // A wrong passphrase can leave padding that looks right, and then no key.
    SecretKey::from_pkcs8_der(der.as_bytes()).map_err(|_opaque| KeyFileError::WrongPassphrase)
}
