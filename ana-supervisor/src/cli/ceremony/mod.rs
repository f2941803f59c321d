//! A passkey's signature in the making, as its person sees it: what to do now, and what became of it.
//!
//! It never blocks and owns no terminal: whoever shows the question polls [`Ceremony::fd`] and [`Ceremony::timeout`],
//! hands over the keys of a raw terminal, and draws [`Ceremony::lines`]. Dropping it takes the request back.

mod secret;
mod software;

use std::{fs::File, os::fd::BorrowedFd, time::Duration};

use anyhow::bail;

use self::software::Software;
use crate::approval::{Assertion, authenticator::Options};

/// A signature that is asked of a passkey.
pub struct Ceremony {
    software: Software,
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
    /// Asks a passkey that `options` offers; `remembered` is the software passkey that came with the question.
    ///
    /// # Errors
    /// There is none to ask.
    pub fn start(options: &Options, remembered: Option<&File>) -> anyhow::Result<Self> {
        let Some(file) = remembered else {
            bail!(
                "no passkey is at hand: the enrolled software passkey's file cannot be opened by the supervisor; \
                 name it with `ana approve {} --software KEYFILE`",
                options.operation.id
            );
        };
        Ok(Self { software: Software::start(options, file)? })
    }

    /// When this can be read, call [`Ceremony::hear`].
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// When to call [`Ceremony::tick`] at the latest; `None`: never.
    pub fn timeout(&self) -> Option<Duration> {
        self.software.timeout()
    }

    /// What stands below the question. If something is being typed that is not shown, the cursor belongs at the end of
    /// the last line.
    pub fn lines(&self) -> Vec<String> {
        self.software.lines()
    }

    /// What its other side says.
    pub fn hear(&mut self) -> Step {
        Step::Open
    }

    /// Time passed.
    pub fn tick(&mut self) -> Step {
        self.software.tick()
    }

    /// Keys were pressed.
    pub fn typed(&mut self, keys: &[u8]) -> Step {
        self.software.typed(keys)
    }
}
