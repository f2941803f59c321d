//! A software passkey to be enrolled, and one that authorises.

use std::path::Path;

use zeroize::Zeroizing;

use super::{EnrolError, Made, NewPasskey};
use crate::approval::{
    Assertion,
    authenticator::{Authenticator, AuthenticatorError, Request},
    keyfile::{self, KeyFile},
    passkeys::{Kind, Passkeys},
    software::{AskPassphrase, Registration, SoftwarePasskey},
};

/// Where a new software passkey is to be.
#[derive(Debug)]
pub struct KeyFileWish<'a> {
    /// Where the key file is, or will be.
    pub key_file: &'a Path,
    /// Put a new key under this passphrase.
    pub passphrase: Option<Zeroizing<String>>,
}

/// A software passkey in the making. It creates the key file; one that a failed attempt left behind is taken over.
pub struct NewSoftware<'a, F> {
    wish: KeyFileWish<'a>,
    ask: F,
    key: Option<SoftwarePasskey>,
}

impl<'a, F: Fn(&Path) -> AskPassphrase> NewSoftware<'a, F> {
    /// `ask` gets a key file's path and gives its passphrase.
    pub fn new(wish: KeyFileWish<'a>, ask: F) -> Self {
        Self { wish, ask, key: None }
    }
}

impl<F: Fn(&Path) -> AskPassphrase> NewPasskey for NewSoftware<'_, F> {
    fn make(&mut self, list: &Passkeys, approver: &str) -> Result<Made, EnrolError> {
        let (key, registration) = new_key(list, &self.wish, approver, &self.ask)?;
        self.key = Some(key);
        let key_file = Some(self.wish.key_file.to_owned());
        Ok(Made { registration, transports: Vec::new(), key_file, attested: None })
    }
}

impl<F: Fn(&Path) -> AskPassphrase> Authenticator for NewSoftware<'_, F> {
    fn kind(&self) -> Kind {
        Kind::Software
    }

    fn sign(&mut self, request: &Request<'_>) -> Result<Assertion, AuthenticatorError> {
        self.key.as_mut().ok_or(AuthenticatorError::NotOffered)?.sign(request)
    }
}

/// The enrolled software passkey that authorises: `with`, or the first remembered key file that opens; `None` for the
/// first passkey of a host.
///
/// # Errors
/// There is none.
pub fn authoriser(
    list: &Passkeys,
    with: Option<&Path>,
    ask: &impl Fn(&Path) -> AskPassphrase,
) -> Result<Option<SoftwarePasskey>, EnrolError> {
    if let Some(path) = with {
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
    wish: &KeyFileWish<'_>,
    approver: &str,
    ask: &impl Fn(&Path) -> AskPassphrase,
) -> Result<(SoftwarePasskey, Registration), EnrolError> {
    let path = wish.key_file;
    let there = path.symlink_metadata().is_ok();
    let (file, made) = if there {
        (existing(list, wish)?, None)
    } else {
        let passphrase = wish.passphrase.as_ref().map(|text| text.as_str());
        let (file, registration) =
            SoftwarePasskey::generate(&list.rp_id, approver, passphrase).map_err(EnrolError::Possession)?;
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
fn existing(list: &Passkeys, wish: &KeyFileWish<'_>) -> Result<KeyFile, EnrolError> {
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
