//! A security key at the caller's own terminal: blocks until it is over. What is to be done is told on stderr.

use std::{
    io::{self, IsTerminal, Write},
    os::fd::AsFd,
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags},
    sys::{
        signal::Signal,
        signalfd::SignalFd,
        termios::{self, LocalFlags, SetArg, Termios},
    },
};

use super::{
    Rest,
    security_key::{Dialogue, Heard, Purpose},
};
use crate::{
    approval::{
        Assertion,
        authenticator::{Authenticator, AuthenticatorError, Request},
        enrolment::{Attested, EnrolError, Made, NewPasskey, Wish},
        passkeys::{Kind, Passkeys},
        security_key::{
            Asked, Helper, NewCredential,
            wire::{self, Fault, Order},
        },
    },
    cli::{
        keys,
        terminal::{obey, signals, unblock},
    },
    operation::Verify,
    sys::readiness,
};

/// How long a person may take for one touch: to find the key, choose a PIN and type it twice.
const STEP_MAX: Duration = Duration::from_secs(300);
/// What would end us with the terminal as it is.
const SIGNALS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Whatever security key the person at the terminal plugs in and touches.
pub struct AtTerminal {
    helper: Option<Helper>,
    verify: Verify,
    resident: bool,
    /// The passkeys that may answer; empty for a new one.
    passkeys: Vec<String>,
    /// What an enrolled one is asked for.
    doing: String,
    /// "step 2 of 3", where there are several.
    step: usize,
    steps: usize,
}

impl AtTerminal {
    /// One that is to be enrolled, in so many steps.
    pub fn new_key(verify: Verify, resident: bool, steps: usize) -> Self {
        let doing = "the new key signs its enrolment".to_owned();
        Self { helper: None, verify, resident, passkeys: Vec::new(), doing, step: 0, steps }
    }

    /// One of the enrolled ones, which is to approve `wish`; `steps`: it is the last of so many.
    pub fn enrolled(list: &Passkeys, wish: Wish<'_>, steps: Option<usize>) -> Self {
        let keys = list.passkeys.iter().filter(|passkey| passkey.kind == Kind::SecurityKey);
        let passkeys = keys.map(|passkey| passkey.name.clone()).collect();
        let steps = steps.unwrap_or(1);
        let doing = format!("an enrolled key approves {:?}, a passkey of {}", wish.name, wish.approver);
        Self {
            helper: None,
            verify: Verify::Presence,
            resident: false,
            passkeys,
            doing,
            step: steps - 1,
            steps,
        }
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
        let until = jiff::Timestamp::now() + STEP_MAX;
        let what = Purpose { step: format!("{step}: "), passkeys: self.passkeys.clone(), until };
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
        let (asked, order) = Asked::of(request, STEP_MAX);
        let doing = self.doing.clone();
        match self.converse(&order, &doing)? {
            Heard::Signed(signed) => Ok(asked.answered(*signed)),
            Heard::Failed(fault) => Err(AuthenticatorError::SecurityKey(fault)),
            Heard::Open | Heard::Made(_) => Err(AuthenticatorError::SecurityKey(unasked())),
        }
    }
}

impl NewPasskey for AtTerminal {
    fn make(&mut self, list: &Passkeys, approver: &str) -> Result<Made, EnrolError> {
        let (asked, order) = NewCredential::ask(list, approver, self.verify, self.resident, STEP_MAX);
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
        if keys.is_none() && dialogue.secret() {
            break Heard::Failed(Fault::NoTerminal);
        }
        screen.show(dialogue)?;
        let stdin = io::stdin();
        let mut fds = vec![PollFd::new(dialogue.fd(), PollFlags::POLLIN)];
        if let Some(keys) = &keys {
            fds.extend([stdin.as_fd(), keys.signals.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        }
        let ready = readiness::wait(&mut fds, dialogue.timeout())?;
        drop(fds);
        if let (Some(keys), Some(true)) = (&keys, ready.get(2)) {
            keys.obey()?;
        }
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
    if keys.is_some() && dialogue.secret() {
        let mut rest = Rest::default();
        rest.expect();
        rest.wait();
    }
    Ok(heard)
}

/// stdin without echo, lines and signals: Ctrl-C is a key, and whoever wants us to end gets the terminal back first.
/// Dropping it does so, too.
struct Quiet {
    found: Termios,
    signals: SignalFd,
}

impl Quiet {
    fn take() -> io::Result<Self> {
        let found = termios::tcgetattr(io::stdin())?;
        let signals = signals(&SIGNALS)?;
        let mut quiet = found.clone();
        quiet
            .local_flags
            .remove(LocalFlags::ECHO | LocalFlags::ECHONL | LocalFlags::ICANON | LocalFlags::ISIG);
        termios::tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &quiet)?;
        Ok(Self { found, signals })
    }

    /// A signal has come.
    fn obey(&self) -> io::Result<()> {
        while let Some(info) = self.signals.read_signal()? {
            self.give_back();
            obey(Signal::try_from(i32::try_from(info.ssi_signo).map_err(io::Error::other)?)?)?;
        }
        Ok(())
    }

    /// What was typed and not read may be part of a PIN.
    fn give_back(&self) {
        termios::tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &self.found).ok();
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        self.give_back();
        // One that has come in this moment ends us now.
        unblock(&SIGNALS).ok();
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
