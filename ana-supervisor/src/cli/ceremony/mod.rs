//! A passkey's signature in the making, as its person sees it: what to do now, and what became of it.
//!
//! It never blocks and owns no terminal: whoever shows the question polls [`Ceremony::fd`] and [`Ceremony::timeout`],
//! hands over the keys of a raw terminal, and draws [`Ceremony::lines`]. Dropping it takes the request back.

mod secret;
pub mod security_key;
mod software;
mod terminal;

use std::{fs::File, os::fd::BorrowedFd, time::Duration};

use anyhow::{Context, bail};

use self::{
    security_key::{Dialogue, Heard, Purpose},
    software::Software,
};
use crate::approval::{
    Assertion,
    authenticator::{Options, Request},
    passkeys::Kind,
    security_key::{Asked, Helper, wire::Fault},
};

pub use secret::Rest;
pub use terminal::AtTerminal;

/// A signature that is asked of a passkey.
pub struct Ceremony(By);

enum By {
    Software(Box<Software>),
    SecurityKey(Box<Dialogue>, Option<Asked>),
}

/// How far it has come.
#[derive(Debug)]
pub enum Step {
    /// It goes on.
    Open,
    Signed(Box<Assertion>),
    /// The person said no where the passkey is.
    Denied(String),
    /// It did not work, or was taken back by a key; the question can be asked again.
    Failed(String),
}

impl Ceremony {
    /// Asks a passkey that `options` offers: a security key if there is one among them, else the software passkey that
    /// came with the question.
    ///
    /// # Errors
    /// There is none to ask.
    pub fn start(options: &Options, remembered: Option<&File>) -> anyhow::Result<Self> {
        if options.offered.iter().any(|offer| offer.kind == Kind::SecurityKey) {
            return Self::by_security_key(options);
        }
        let Some(file) = remembered else {
            bail!(
                "no passkey is at hand: the enrolled software passkey's file cannot be opened by the supervisor; \
                 name it with `ana approve {} --software KEYFILE`",
                options.operation.id
            );
        };
        Self::by_software(options, file)
    }

    /// Asks the software passkey in this file.
    ///
    /// # Errors
    /// It is none.
    pub fn by_software(options: &Options, file: &File) -> anyhow::Result<Self> {
        Ok(Self(By::Software(Box::new(Software::start(options, file)?))))
    }

    fn by_security_key(options: &Options) -> anyhow::Result<Self> {
        let keys = options.offered.iter().filter(|offer| offer.kind == Kind::SecurityKey);
        let (ids, names): (Vec<&str>, Vec<String>) =
            keys.map(|offer| (offer.credential_id.as_str(), offer.name.clone())).unzip();
        let request = Request { allowed: ids, ..Request::of(options)? };
        let until: jiff::Timestamp =
            options.operation.expires_at.parse().context("the operation has no end")?;
        // One that is over already is said to be so.
        let left = until.duration_since(jiff::Timestamp::now()).try_into().unwrap_or_default();
        let (asked, order) = Asked::of(&request, left);
        let what = Purpose { step: String::new(), passkeys: names, until };
        let helper = Helper::start().context("no security key can be asked")?;
        Ok(Self(By::SecurityKey(Box::new(Dialogue::start(helper, &order, what)?), Some(asked))))
    }

    /// When this can be read, call [`Ceremony::hear`].
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.0 {
            By::Software(_) => None,
            By::SecurityKey(dialogue, _) => Some(dialogue.fd()),
        }
    }

    /// When to call [`Ceremony::tick`] at the latest; `None`: never.
    pub fn timeout(&self) -> Option<Duration> {
        match &self.0 {
            By::Software(software) => software.timeout(),
            By::SecurityKey(dialogue, _) => dialogue.timeout(),
        }
    }

    /// Something is being typed that is not shown.
    pub fn secret(&self) -> bool {
        match &self.0 {
            By::Software(software) => software.secret(),
            By::SecurityKey(dialogue, _) => dialogue.secret(),
        }
    }

    /// What stands below the question. If something is being typed that is not shown, the cursor belongs at the end of
    /// the last line.
    pub fn lines(&self) -> Vec<String> {
        match &self.0 {
            By::Software(software) => software.lines(),
            By::SecurityKey(dialogue, _) => dialogue.lines(),
        }
    }

    /// The same without the time that is left, for where nothing is drawn anew.
    pub fn words(&self) -> Vec<String> {
        match &self.0 {
            By::Software(software) => software.lines(),
            By::SecurityKey(dialogue, _) => dialogue.words(),
        }
    }

    /// What its other side says.
    pub fn hear(&mut self) -> Step {
        match &mut self.0 {
            By::Software(_) => Step::Open,
            By::SecurityKey(dialogue, asked) => step(dialogue.hear(), asked),
        }
    }

    /// Time passed.
    pub fn tick(&mut self) -> Step {
        match &mut self.0 {
            By::Software(software) => software.tick(),
            By::SecurityKey(dialogue, asked) => step(dialogue.tick(), asked),
        }
    }

    /// Keys were pressed.
    pub fn typed(&mut self, keys: &[u8]) -> Step {
        match &mut self.0 {
            By::Software(software) => software.typed(keys),
            By::SecurityKey(dialogue, asked) => step(dialogue.typed(keys), asked),
        }
    }
}

fn step(heard: Heard, asked: &mut Option<Asked>) -> Step {
    match heard {
        Heard::Open => Step::Open,
        Heard::Signed(signed) => match asked.take() {
            Some(asked) => Step::Signed(Box::new(asked.answered(*signed))),
            None => Step::Failed("the key signed twice".to_owned()),
        },
        Heard::Made(_) => Step::Failed("the key made a credential instead of signing".to_owned()),
        Heard::Failed(fault @ Fault::Denied { .. }) => Step::Denied(fault.to_string()),
        Heard::Failed(Fault::Cancelled) => Step::Failed("not approved".to_owned()),
        Heard::Failed(fault) => Step::Failed(fault.to_string()),
    }
}
