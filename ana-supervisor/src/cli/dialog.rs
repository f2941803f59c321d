//! One question before a person, from its first line to the answer: what is typed, what the passkey says meanwhile, what there
//! is to be told. Whoever has the terminal draws [`Dialog::lines`] and hands over the keys.

use std::{
    fs::File,
    os::fd::BorrowedFd,
    time::{Duration, Instant},
};

use super::{
    ceremony::{Ceremony, Step},
    keys::{Key, Look},
    question::{self, Answer, SETTLE},
};
use crate::approval::{Assertion, authenticator::Options};

/// The longest word that answers, and some room to see what is wrong with another.
const TYPED_MAX: usize = 16;

/// How long a question is looked at that has taken the place of another one.
const SETTLE_INSTEAD: Duration = Duration::from_secs(2);

/// A question that is being asked.
pub struct Dialog {
    options: Box<Options>,
    /// The software passkey that came with it.
    key: Option<File>,
    /// The person has named it: nothing else is asked.
    by_file: bool,
    /// How many more operations like this one wait.
    more: usize,
    since: Instant,
    settled: bool,
    /// How long what is typed does not count after it came up.
    settle: Duration,
    /// It does not fit on the screen.
    tall: bool,
    typed: String,
    /// What there is to be told above the line where one answers.
    notes: Vec<String>,
    ceremony: Option<Ceremony>,
    /// It is answered, and the supervisor has it in hands.
    answered: Option<&'static str>,
}

/// What a person has decided.
#[derive(Debug)]
pub enum Verdict {
    Signed(Box<Assertion>),
    /// And why.
    Denied(String),
    Later,
    /// Ctrl-C.
    Interrupted,
}

/// What a key or the passkey has brought.
#[derive(Debug)]
pub enum Outcome {
    /// It goes on.
    Open,
    Over(Verdict),
    /// Ctrl-Z.
    Suspend,
    /// To look at another part of the question.
    Look(Look),
    /// The terminal has answered somebody else's question.
    Report(Vec<u8>),
}

impl Dialog {
    pub fn new(options: Box<Options>, key: Option<File>) -> Self {
        Self {
            options,
            key,
            by_file: false,
            more: 0,
            since: Instant::now(),
            settled: false,
            settle: SETTLE,
            tall: false,
            typed: String::new(),
            notes: Vec::new(),
            ceremony: None,
            answered: None,
        }
    }

    /// The software passkey is asked, whatever else is enrolled.
    pub fn by_file(mut self) -> Self {
        self.by_file = true;
        self
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    pub fn id(&self) -> &str {
        &self.options.operation.id
    }

    /// How many more operations like this one wait.
    pub fn more(&self) -> usize {
        self.more
    }

    /// So many more operations like this one wait.
    pub fn set_more(&mut self, more: usize) {
        self.more = more;
    }

    /// It comes before the person now: what is typed counts once it has stood there for [`SETTLE`].
    pub fn show(&mut self) {
        (self.since, self.settled, self.settle) = (Instant::now(), false, SETTLE);
        self.typed.clear();
    }

    /// The same, in the place of another one that has gone by itself: whoever was about to answer that has to notice.
    pub fn show_instead(&mut self) {
        self.show();
        self.settle = SETTLE_INSTEAD;
        self.notes.push(
            "ana: the question before is over (answered elsewhere, expired, or its process has ended); this is another one"
                .to_owned(),
        );
    }

    /// It does not fit on the screen: part of it has to be scrolled back to.
    pub fn set_tall(&mut self, tall: bool) {
        self.tall = tall;
    }

    /// How long what is typed does not count yet; `None`: it does.
    pub fn unsettled(&self) -> Option<Duration> {
        (!self.settled).then(|| self.settle.saturating_sub(self.since.elapsed()))
    }

    /// What is typed from here on counts.
    pub fn settle(&mut self) {
        self.settled = true;
        self.typed.clear();
    }

    /// What is to be polled beside the terminal.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.ceremony.as_ref().and_then(Ceremony::fd)
    }

    /// When to call [`Dialog::tick`] at the latest.
    pub fn timeout(&self) -> Option<Duration> {
        self.ceremony.as_ref().and_then(Ceremony::timeout)
    }

    /// Its passkey is being asked.
    pub fn signing(&self) -> bool {
        self.ceremony.is_some()
    }

    /// Something is being typed that is not shown.
    pub fn secret(&self) -> bool {
        self.ceremony.as_ref().is_some_and(Ceremony::secret)
    }

    /// It leaves the screen, and comes back later: no passkey is asked meanwhile.
    pub fn leave(&mut self) {
        self.ceremony = None;
        self.notes.clear();
    }

    /// What [`Dialog::fd`] has to say.
    pub fn hear(&mut self) -> Outcome {
        let step = self.ceremony.as_mut().map_or(Step::Open, Ceremony::hear);
        self.step(step)
    }

    /// Time passed.
    pub fn tick(&mut self) -> Outcome {
        let step = self.ceremony.as_mut().map_or(Step::Open, Ceremony::tick);
        self.step(step)
    }

    /// What there is to be told.
    pub fn note(&self) -> Option<&str> {
        self.notes.first().map(String::as_str)
    }

    /// Asks the passkey.
    pub fn sign(&mut self) {
        self.notes.clear();
        let ceremony = match (&self.key, self.by_file) {
            (Some(file), true) => Ceremony::by_software(&self.options, file),
            (key, _) => Ceremony::start(&self.options, key.as_ref()),
        };
        match ceremony {
            Ok(ceremony) => self.ceremony = Some(ceremony),
            Err(error) => self.notes.push(format!("ana: not approved: {error:#}")),
        }
    }

    /// The answer is on its way; the question stays until it has arrived.
    pub fn answered(&mut self, how: &'static str) {
        self.answered = Some(how);
        self.notes.clear();
    }

    /// The supervisor did not take the answer: there can be another.
    pub fn refused(&mut self, why: &str) {
        self.answered = None;
        self.notes = vec![format!("ana: not accepted: {why}")];
    }

    /// A key was pressed, which came as these bytes. `unread`: why it cannot be approved yet.
    pub fn press(&mut self, key: Key, bytes: &[u8], unread: Option<&str>) -> Outcome {
        if let Key::Report(report) = key {
            // Nothing of what is typed for a secret goes to anybody.
            return if self.secret() { Outcome::Open } else { Outcome::Report(report) };
        } else if !self.settled {
            return Outcome::Open;
        } else if key == Key::Suspend {
            return Outcome::Suspend;
        }
        if let Some(ceremony) = &mut self.ceremony {
            // Arrows and the like begin with an ESC, which would mean: not now.
            let one = bytes.len() == 1 || bytes.first().is_some_and(|byte| !byte.is_ascii());
            let step = if one { ceremony.typed(bytes) } else { Step::Open };
            return self.step(step);
        }
        if self.answered.is_some() {
            return Outcome::Open;
        }
        match key {
            Key::Interrupt => return Outcome::Over(Verdict::Interrupted),
            Key::End if self.typed.is_empty() => return Outcome::Over(Verdict::Later),
            Key::Enter => return self.enter(unread),
            Key::Char(' ') if self.typed.is_empty() => return Outcome::Look(Look::PageDown),
            Key::Char(letter) if self.typed.len() < TYPED_MAX => self.typed.push(letter),
            Key::Backspace => drop(self.typed.pop()),
            Key::Clear | Key::Escape => self.typed.clear(),
            Key::Look(look) => return Outcome::Look(look),
            Key::Char(_) | Key::End | Key::Other | Key::Suspend | Key::Report(_) => {}
        }
        Outcome::Open
    }

    fn enter(&mut self, unread: Option<&str>) -> Outcome {
        let typed = std::mem::take(&mut self.typed);
        self.notes.clear();
        match (question::parse(&typed), unread) {
            (Some(Answer::Approve), Some(unread)) => self.notes.push(unread.to_owned()),
            (Some(Answer::Approve), None) => self.sign(),
            (Some(Answer::Deny), _) => return Outcome::Over(Verdict::Denied(String::new())),
            (Some(Answer::Later), _) => return Outcome::Over(Verdict::Later),
            (Some(Answer::Help), _) => self.notes = question::help(&self.options),
            (None, _) if typed.trim().is_empty() => {}
            (None, _) => self.notes.push("the answer is one of a, d, l and ?".to_owned()),
        }
        Outcome::Open
    }

    fn step(&mut self, step: Step) -> Outcome {
        match step {
            Step::Open => return Outcome::Open,
            Step::Signed(assertion) => {
                self.ceremony = None;
                return Outcome::Over(Verdict::Signed(assertion));
            }
            Step::Denied(reason) => {
                self.ceremony = None;
                return Outcome::Over(Verdict::Denied(reason));
            }
            Step::Failed(why) => {
                self.ceremony = None;
                self.notes = vec![format!("ana: {why}")];
            }
        }
        Outcome::Open
    }

    /// What stands below the question; the cursor belongs behind the last line. `still`: without what changes by itself,
    /// where nothing is drawn anew.
    pub fn lines(&self, width: usize, still: bool) -> Vec<String> {
        let mut lines = self.notes.clone();
        if self.tall {
            lines.insert(0, "longer than this screen, scroll up to read it; it is about:".to_owned());
            lines.insert(1, self.options.operation.summary().chars().take(width * 3).collect());
        }
        let asked: fn(&Ceremony) -> Vec<String> = if still { Ceremony::words } else { Ceremony::lines };
        let asked = self.ceremony.as_ref().map(asked).unwrap_or_default();
        match self.answered {
            Some(how) => lines.push(format!("ana: {how}")),
            None if asked.is_empty() => {
                lines.push(question::invitation(self.more, width) + &self.typed);
            }
            None => lines.extend(asked),
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        approval::{authenticator::Offer, passkeys::Kind},
        operation::example,
    };

    fn dialog() -> Dialog {
        let operation = example();
        let verify = operation.verify;
        let offer =
            Offer { name: "bob".into(), kind: Kind::Software, credential_id: "AAAA".into(), key_file: None };
        let options = Options {
            operation,
            rp_id: "ana:host".into(),
            origin: "ana:host".into(),
            offered: vec![offer],
            verify,
        };
        Dialog::new(Box::new(options), None)
    }

    /// Presses keys that came as single bytes; what the last of them brought.
    fn typed(dialog: &mut Dialog, text: &str) -> String {
        let mut last = Outcome::Open;
        for (key, bytes) in super::super::keys::Keys::default().take(text.as_bytes()) {
            last = dialog.press(key, &bytes, None);
        }
        format!("{last:?}")
    }

    #[test]
    fn nothing_counts_before_it_is_settled() {
        let mut dialog = dialog();
        assert_eq!(typed(&mut dialog, "deny\rde"), "Open");
        dialog.settle();
        assert_eq!(typed(&mut dialog, "\r"), "Open");
        assert_eq!(typed(&mut dialog, "ny\r"), "Open", "half a word from before");
        assert_eq!(typed(&mut dialog, "deny\r"), "Over(Denied(\"\"))");
    }

    #[test]
    fn a_line_can_be_edited() {
        let mut dialog = dialog();
        dialog.settle();
        assert_eq!(typed(&mut dialog, "xx\x7f\x7fz\x15l\r"), "Over(Later)");
        assert_eq!(typed(&mut dialog, "\x03"), "Over(Interrupted)");
        assert_eq!(typed(&mut dialog, "\x04"), "Over(Later)");
        assert_eq!(typed(&mut dialog, "d\x1b[A\x1b[200~eny\r\x1b[201~"), "Open");
        assert!(dialog.lines(80, false).concat().ends_with("[a/d/l/?] d"));
    }

    #[test]
    fn what_was_not_read_is_not_approved() {
        let mut dialog = dialog();
        dialog.settle();
        dialog.press(Key::Char('a'), b"a", Some("read it first"));
        dialog.press(Key::Enter, b"\r", Some("read it first"));
        assert!(!dialog.signing());
        assert_eq!(dialog.lines(80, false)[0], "read it first");
        dialog.press(Key::Char('d'), b"d", Some("read it first"));
        let outcome = dialog.press(Key::Enter, b"\r", Some("read it first"));
        assert!(matches!(outcome, Outcome::Over(Verdict::Denied(_))), "{outcome:?}");
    }

    #[test]
    fn without_a_passkey_it_is_asked_again() {
        let mut dialog = dialog();
        dialog.settle();
        assert_eq!(typed(&mut dialog, "a\r"), "Open");
        let lines = dialog.lines(80, false);
        assert!(lines[0].contains("not approved") && lines[1].contains("[a/d/l/?]"), "{lines:?}");
        dialog.answered("denied");
        assert_eq!(dialog.lines(80, false), ["ana: denied"]);
        assert_eq!(typed(&mut dialog, "l\r"), "Open", "answered once");
        dialog.refused("too late");
        assert!(dialog.lines(80, false)[0].contains("too late"));
    }
}
