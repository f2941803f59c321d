//! A software passkey: signs at once, or once its passphrase was typed.

use std::{
    cell::RefCell,
    fs::File,
    io::{self, Seek},
    rc::Rc,
    time::Duration,
};

use anyhow::Context;
use zeroize::Zeroizing;

use super::{
    Step,
    secret::{Secret, Typed},
};
use crate::approval::{
    authenticator::{Authenticator, Options},
    software::SoftwarePasskey,
};

pub(super) struct Software {
    options: Options,
    passkey: SoftwarePasskey,
    /// What the passkey asks for, once it was typed.
    passphrase: Rc<RefCell<Option<Zeroizing<String>>>>,
    /// It has a passphrase, which is being typed.
    secret: Option<Secret>,
}

impl Software {
    pub(super) fn start(options: &Options, file: &File) -> anyhow::Result<Self> {
        let passphrase = Rc::<RefCell<Option<Zeroizing<String>>>>::default();
        let typed = Rc::clone(&passphrase);
        let ask = Box::new(move || {
            typed.borrow_mut().take().ok_or_else(|| io::Error::other("no passphrase was typed"))
        });
        let mut file = file.try_clone().context("cannot use the remembered software passkey")?;
        // It may have been read before, by a first attempt.
        let passkey = file
            .rewind()
            .map_err(anyhow::Error::from)
            .and_then(|()| Ok(SoftwarePasskey::from_file(file, ask)?))
            .context("cannot use the remembered software passkey")?;
        let secret = passkey.key_file().encrypted().then(Secret::new);
        Ok(Self { options: options.clone(), passkey, passphrase, secret })
    }

    pub(super) fn timeout(&self) -> Option<Duration> {
        self.secret.is_none().then_some(Duration::ZERO)
    }

    pub(super) fn secret(&self) -> bool {
        self.secret.is_some()
    }

    pub(super) fn lines(&self) -> Vec<String> {
        match self.secret {
            Some(_) => vec!["passphrase of the passkey (Esc: not now): ".to_owned()],
            None => Vec::new(),
        }
    }

    pub(super) fn tick(&mut self) -> Step {
        if self.secret.is_some() { Step::Open } else { self.sign() }
    }

    pub(super) fn typed(&mut self, keys: &[u8]) -> Step {
        match self.secret.as_mut().map(|secret| secret.take(keys)) {
            None | Some(Typed::More) => Step::Open,
            Some(Typed::Cancelled) => Step::Failed("not approved".to_owned()),
            Some(Typed::Line(passphrase)) => {
                *self.passphrase.borrow_mut() = Some(passphrase);
                self.sign()
            }
        }
    }

    fn sign(&mut self) -> Step {
        match self.passkey.assert(&self.options).context("the passkey did not sign") {
            Ok(assertion) => Step::Signed(Box::new(assertion)),
            Err(error) => Step::Failed(format!("{error:#}")),
        }
    }
}
