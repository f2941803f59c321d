//! A security key at the caller's own terminal: blocks until it is over. What is to be done is told on stderr.

use std::{
    io::{self, IsTerminal, Write},
    os::fd::AsFd,
};

use nix::{
    poll::{PollFd, PollFlags},
    sys::termios::{self, LocalFlags, SetArg, Termios},
};

use super::security_key::{Dialogue, Heard, Purpose};
use crate::{
    approval::{
        Assertion,
        authenticator::{Authenticator, AuthenticatorError, Request},
        enrolment::{Attested, EnrolError, Made, NewPasskey},
        passkeys::{Kind, Passkeys},
        security_key::{
            Asked, Helper, NewCredential,
            wire::{self, Fault, Order},
        },
    },
    cli::keys,
    operation::Verify,
    sys::readiness,
};

/// Whatever security key the person at the terminal plugs in and touches.
pub struct AtTerminal {
    helper: Option<Helper>,
    verify: Verify,
    resident: bool,
    /// The passkeys that may answer; empty for a new one.
    passkeys: Vec<String>,
    /// "step 2 of 3", where there are several.
    step: usize,
    steps: usize,
}

impl AtTerminal {
    /// One that is to be enrolled, in so many steps.
    pub fn new_key(verify: Verify, resident: bool, steps: usize) -> Self {
        Self { helper: None, verify, resident, passkeys: Vec::new(), step: 0, steps }
    }

    /// One of the enrolled ones; `steps`: it is the last of so many.
    pub fn enrolled(list: &Passkeys, steps: Option<usize>) -> Self {
        let keys = list.passkeys.iter().filter(|passkey| passkey.kind == Kind::SecurityKey);
        let passkeys = keys.map(|passkey| passkey.name.clone()).collect();
        let steps = steps.unwrap_or(1);
        Self { helper: None, verify: Verify::Presence, resident: false, passkeys, step: steps - 1, steps }
    }

    fn converse(&mut self, order: &Order, doing: &str) -> Result<Heard, AuthenticatorError> {
        self.step += 1;
        let helper = match self.helper.take() {
            Some(helper) => helper,
            None => Helper::start().map_err(AuthenticatorError::Helper)?,
        };
        let step = match self.steps {
            1 => doing.to_owned(),
            steps => format!("{} of {steps}, {doing}", self.step),
        };
        let what = Purpose { step: format!("{step}: "), passkeys: self.passkeys.clone(), until: None };
        let mut dialogue = Dialogue::start(helper, order, what).map_err(AuthenticatorError::SecurityKey)?;
        let heard = until_over(&mut dialogue).map_err(AuthenticatorError::Terminal)?;
        self.helper = Some(dialogue.into_helper());
        Ok(heard)
    }
}

impl Authenticator for AtTerminal {
    fn kind(&self) -> Kind {
        Kind::SecurityKey
    }

    fn sign(&mut self, request: &Request<'_>) -> Result<Assertion, AuthenticatorError> {
        let (asked, order) = Asked::of(request);
        let doing = match self.passkeys.is_empty() {
            true => "the new key signs its enrolment",
            false => "an enrolled key approves",
        };
        match self.converse(&order, doing)? {
            Heard::Signed(signed) => Ok(asked.answered(*signed)),
            Heard::Failed(fault) => Err(AuthenticatorError::SecurityKey(fault)),
            Heard::Open | Heard::Made(_) => Err(AuthenticatorError::SecurityKey(unasked())),
        }
    }
}

impl NewPasskey for AtTerminal {
    fn make(&mut self, list: &Passkeys, approver: &str) -> Result<Made, EnrolError> {
        let (asked, order) = NewCredential::ask(list, approver, self.verify, self.resident);
        let made = match self.converse(&order, "the new key makes a passkey").map_err(EnrolError::Key)? {
            Heard::Made(made) => made,
            Heard::Failed(fault) => return Err(EnrolError::Key(AuthenticatorError::SecurityKey(fault))),
            Heard::Open | Heard::Signed(_) => {
                return Err(EnrolError::Key(AuthenticatorError::SecurityKey(unasked())));
            }
        };
        let registration = asked.check(&made).map_err(EnrolError::Registration)?;
        let wire::Made { authenticator_data, attestation, transports, .. } = *made;
        let attested = (attestation.format != "none" && !attestation.format.is_empty()).then(|| Attested {
            authenticator_data,
            client_data_json: asked.client_data.clone(),
            statement: attestation,
        });
        Ok(Made { registration, transports, key_file: None, attested })
    }
}

fn unasked() -> Fault {
    Fault::Other { why: "it did something else than it was asked to".to_owned() }
}

/// Shows what is to be done until it is over.
fn until_over(dialogue: &mut Dialogue) -> io::Result<Heard> {
    let keys = if io::stdin().is_terminal() { Some(Quiet::take()?) } else { None };
    let mut screen = Screen::new();
    let heard = loop {
        screen.show(dialogue)?;
        let stdin = io::stdin();
        let mut fds = vec![PollFd::new(dialogue.fd(), PollFlags::POLLIN)];
        if keys.is_some() {
            fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        }
        let ready = readiness::wait(&mut fds, dialogue.timeout())?;
        drop(fds);
        let mut heard = dialogue.tick();
        if let (Heard::Open, Some(true)) = (&heard, ready.first()) {
            heard = dialogue.hear();
        }
        if let (Heard::Open, Some(true)) = (&heard, ready.get(1)) {
            let bytes = keys::read()?;
            // The end of the input is no answer either.
            heard = dialogue.typed(if bytes.is_empty() { &[0x04] } else { &bytes });
        }
        if !matches!(heard, Heard::Open) {
            break heard;
        }
    };
    screen.end()?;
    Ok(heard)
}

/// stdin without echo and without lines; signals stay what they are. Dropping it gives the terminal back.
struct Quiet {
    found: Termios,
}

impl Quiet {
    fn take() -> io::Result<Self> {
        let found = termios::tcgetattr(io::stdin())?;
        let mut quiet = found.clone();
        quiet.local_flags.remove(LocalFlags::ECHO | LocalFlags::ECHONL | LocalFlags::ICANON);
        termios::tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &quiet)?;
        Ok(Self { found })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        termios::tcsetattr(io::stdin(), SetArg::TCSADRAIN, &self.found).ok();
    }
}

/// The lines on stderr: the last one is written over where that is a terminal.
struct Screen {
    terminal: bool,
    shown: Vec<String>,
}

impl Screen {
    fn new() -> Self {
        Self { terminal: io::stderr().is_terminal(), shown: Vec::new() }
    }

    fn show(&mut self, dialogue: &Dialogue) -> io::Result<()> {
        let lines = if self.terminal { dialogue.lines() } else { dialogue.words() };
        if lines == self.shown {
            return Ok(());
        }
        let mut stderr = io::stderr();
        if self.terminal {
            write!(stderr, "\r\x1b[K{}", lines.join("\r\n"))?;
        } else {
            writeln!(stderr, "{}", lines.join("\n"))?;
        }
        self.shown = lines;
        stderr.flush()
    }

    fn end(&self) -> io::Result<()> {
        if self.terminal { writeln!(io::stderr()) } else { Ok(()) }
    }
}
