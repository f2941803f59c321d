//! `ana approve` at a terminal: the question, and below it the conversation with the person and the passkey.

use std::{
    fs::File,
    io::{self, IsTerminal, Write},
    os::fd::AsFd,
    time::Duration,
};

use anyhow::bail;
use nix::{
    poll::{PollFd, PollFlags},
    sys::{
        signal::{Signal, raise},
        signalfd::SignalFd,
    },
};

use super::{
    answer::Waiting,
    ceremony::{Ceremony, Rest, Step},
    dialog::{Dialog, Outcome, Verdict},
    inline::Inline,
    keys::{self, Keys},
    question,
    terminal::{Raw, obey, signals},
};
use crate::{approval::authenticator::Options, sys::readiness};

/// What is pasted is told from what is typed, and is no answer (bracketed paste).
const PASTES: &str = "\x1b[?2004h";
const NO_PASTES: &str = "\x1b[?2004l";

/// One question on the caller's own terminal (stdin and stderr).
pub(super) struct Asking {
    raw: Raw,
    signals: SignalFd,
    keys: Keys,
    inline: Inline,
    pub(super) dialog: Dialog,
    pub(super) waiting: Waiting,
    /// Nothing is asked but what the passkey wants to know.
    sign: bool,
    ended: bool,
    /// What is still typed of a secret that is not wanted any more.
    rest: Rest,
}

impl Asking {
    /// Whether there is a terminal to ask on.
    pub(super) fn possible() -> bool {
        io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Shows the question. With `sign` it is not asked: the passkey is asked at once.
    pub(super) fn start(
        options: Box<Options>,
        key: Option<File>,
        sign: bool,
        waiting: Waiting,
    ) -> anyhow::Result<Self> {
        let signals = signals(&[Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGWINCH])?;
        let mut dialog = Dialog::new(options, key);
        if sign {
            dialog = dialog.by_file();
            dialog.settle();
            dialog.sign();
        } else {
            let stderr = io::stderr();
            let width = question::width(&stderr);
            dialog.set_tall(question::is_tall(dialog.options(), width, question::rows(&stderr)));
            let text = question::text(dialog.options(), (1, 1), width, question::color(true));
            let pastes = if question::dumb() { "" } else { PASTES };
            write!(stderr.lock(), "{pastes}{text}")?;
        }
        let inline = Inline::new(question::dumb());
        let mut asking = Self {
            raw: Raw::take()?,
            signals,
            keys: Keys::default(),
            inline,
            dialog,
            waiting,
            sign,
            ended: false,
            rest: Rest::default(),
        };
        if !sign {
            asking.dialog.show();
        }
        Ok(asking)
    }

    /// Talks to the person until there is a decision.
    pub(super) fn decide(&mut self) -> anyhow::Result<Verdict> {
        loop {
            if self.sign && !self.dialog.signing() {
                bail!("{}", self.dialog.note().unwrap_or("not approved"));
            }
            self.draw()?;
            let [keys, signals, news, passkey] = self.wait()?;
            if news {
                self.waiting.check()?;
            }
            if signals {
                self.take_signals()?;
            }
            if keys && let Some(verdict) = self.take_keys()? {
                return Ok(verdict);
            }
            if self.dialog.unsettled() == Some(Duration::ZERO) {
                // What waits to be read was typed before.
                while !self.ended && readiness::readable(io::stdin().as_fd(), Duration::ZERO)? {
                    self.take_keys()?;
                }
                self.dialog.settle();
            }
            let secret = self.dialog.secret();
            let outcome = if passkey { self.dialog.hear() } else { self.dialog.tick() };
            if secret && !self.dialog.secret() {
                self.rest.expect();
            }
            if let Outcome::Over(verdict) = outcome {
                return Ok(verdict);
            }
        }
    }

    /// The conversation is over: the cursor goes below it.
    pub(super) fn end(mut self) -> anyhow::Result<()> {
        self.draw()?;
        Ok(write!(io::stderr(), "\r\n")?)
    }

    fn draw(&mut self) -> io::Result<()> {
        let mut stderr = io::stderr();
        let width = question::width(&stderr);
        let lines = self.dialog.lines(width, self.inline.plain());
        write!(stderr, "{}", self.inline.draw(lines, width))?;
        stderr.flush()
    }

    /// Waits for keys, signals, the session or the passkey.
    fn wait(&self) -> anyhow::Result<[bool; 4]> {
        let stdin = io::stdin();
        let mut fds = vec![
            PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.waiting.as_fd(), PollFlags::POLLIN),
        ];
        fds.extend(self.dialog.fd().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        let left = self.dialog.unsettled().into_iter().chain(self.dialog.timeout()).min();
        let ready = readiness::wait(&mut fds, left)?;
        Ok([0, 1, 2, 3].map(|place| ready.get(place) == Some(&true)))
    }

    fn take_keys(&mut self) -> anyhow::Result<Option<Verdict>> {
        let bytes = keys::read()?;
        if bytes.is_empty() {
            self.ended = true;
            return Ok(Some(Verdict::Later));
        }
        if self.rest.takes(&bytes) {
            return Ok(None);
        }
        for (key, bytes) in self.keys.take(&bytes) {
            let signing = self.dialog.signing();
            match self.dialog.press(key, &bytes, None) {
                Outcome::Over(verdict) => return Ok(Some(verdict)),
                Outcome::Suspend => {
                    // It must not blink while the terminal is somebody else's.
                    self.dialog.leave();
                    self.raw.off()?;
                    raise(Signal::SIGTSTP)?;
                    self.raw.on()?;
                    match self.sign {
                        true => self.dialog.sign(),
                        false => self.dialog.show(),
                    }
                }
                Outcome::Open | Outcome::Look(_) | Outcome::Report(_) => {}
            }
            if !signing && self.dialog.signing() {
                break;
            }
        }
        Ok(None)
    }

    fn take_signals(&mut self) -> anyhow::Result<()> {
        while let Some(info) = self.signals.read_signal()? {
            let signal = Signal::try_from(i32::try_from(info.ssi_signo)?)?;
            if signal == Signal::SIGWINCH {
                continue;
            }
            self.raw.off()?;
            obey(signal)?;
        }
        Ok(())
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if self.dialog.secret() {
            self.rest.expect();
        }
        // The shell's from here on.
        self.rest.wait();
        if !self.sign && !question::dumb() {
            write!(io::stderr(), "{NO_PASTES}").ok();
        }
    }
}

/// Has the passkey sign without asking anybody: there is no terminal.
pub(super) fn sign_without_terminal(
    mut ceremony: Ceremony,
    mut waiting: Waiting,
) -> anyhow::Result<(Waiting, Verdict)> {
    let mut said = Vec::new();
    loop {
        let lines = ceremony.words();
        if ceremony.secret() {
            bail!("the passkey asks for its PIN or passphrase: run this in a terminal");
        }
        if lines != said {
            lines.iter().try_for_each(|line| writeln!(io::stderr(), "{line}"))?;
            said = lines;
        }
        let mut fds = vec![PollFd::new(waiting.as_fd(), PollFlags::POLLIN)];
        fds.extend(ceremony.fd().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        let ready = readiness::wait(&mut fds, ceremony.timeout())?;
        let [news, heard] = [0, 1].map(|place| ready.get(place) == Some(&true));
        drop(fds);
        if news {
            waiting.check()?;
        }
        match if heard { ceremony.hear() } else { ceremony.tick() } {
            Step::Open => {}
            Step::Signed(assertion) => return Ok((waiting, Verdict::Signed(assertion))),
            Step::Denied(why) => return Ok((waiting, Verdict::Denied(why))),
            Step::Failed(why) => bail!("{why}"),
        }
    }
}
