//! The questions of an interactive session: one at a time, answered inline.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Write},
    os::fd::AsFd,
    time::{Duration, Instant},
};

use nix::sys::termios::{FlushArg, tcflush};

use crate::{
    api::{client::Client, wire::Request},
    approval::authenticator::Options,
    cli::{
        answer,
        question::{self, Answer, SETTLE},
    },
};

/// A question and the key that may answer it.
struct Question {
    options: Box<Options>,
    key: Option<File>,
    /// How many more operations like this one wait.
    more: usize,
}

/// The questions, in the order in which they came. The first is the one on the screen.
#[derive(Default)]
pub(super) struct Questions {
    waiting: VecDeque<Question>,
    /// The first is on the screen.
    shown: Option<Shown>,
}

/// A question on the screen.
#[derive(Clone, Copy)]
struct Shown {
    since: Instant,
    /// What is typed from here on is meant for it.
    settled: bool,
}

/// What became of the question on the screen.
pub(super) enum Outcome {
    /// It is still there.
    Open,
    /// It is over; the terminal is the agent's again, or the next question's.
    Over,
}

impl Questions {
    pub(super) fn push(&mut self, options: Box<Options>, key: Option<File>) {
        self.waiting.push_back(Question { options, key, more: 0 });
    }

    /// A question is on the screen.
    pub(super) fn open(&self) -> bool {
        self.shown.is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Puts the first question on the screen.
    pub(super) fn show(&mut self) -> io::Result<()> {
        let Some(question) = self.waiting.front() else { return Ok(()) };
        let more = match self.waiting.len() {
            1 => String::new(),
            n => format!("({} more wait)\n", n - 1),
        };
        let mut stdout = io::stdout();
        let text = question::text(&question.options, question::width(&stdout), question::color(true));
        write!(stdout, "{text}{more}{}", self.invitation())?;
        stdout.flush()?;
        self.shown = Some(Shown { since: Instant::now(), settled: false });
        Ok(())
    }

    /// So many more operations like this one wait: the line where the answer is typed says so.
    pub(super) fn alike(&mut self, id: &str, more: usize) -> io::Result<()> {
        for (place, question) in self.waiting.iter_mut().enumerate() {
            if question.options.operation.id == id && question.more != more {
                question.more = more;
                if place == 0 && self.shown.is_some() {
                    return self.invite_anew();
                }
                return Ok(());
            }
        }
        Ok(())
    }

    fn invitation(&self) -> String {
        match self.waiting.front().map_or(0, |question| question.more) {
            0 => question::INVITATION.to_owned(),
            1 => format!("(1 more like this one waits, d denies both) {}", question::INVITATION),
            more => format!("({more} more like this one wait, d denies all) {}", question::INVITATION),
        }
    }

    /// The line where the answer is typed, in its own place.
    fn invite_anew(&self) -> io::Result<()> {
        write!(io::stdout(), "\r\x1b[K{}", self.invitation())?;
        io::stdout().flush()
    }

    /// The operation is over: answered elsewhere, expired, or its process has ended.
    pub(super) fn withdraw(&mut self, id: &str) -> io::Result<Outcome> {
        let first = self.waiting.front().is_some_and(|question| question.options.operation.id == id);
        self.waiting.retain(|question| question.options.operation.id != id);
        if !(first && self.shown.take().is_some()) {
            return Ok(Outcome::Open);
        }
        writeln!(
            io::stdout(),
            "\nana: the question is over: answered elsewhere, expired, or its process has ended"
        )?;
        Ok(Outcome::Over)
    }

    /// How long what is typed does not count yet; `None` when it does, or nothing is asked.
    pub(super) fn unsettled(&self) -> Option<Duration> {
        self.shown.filter(|shown| !shown.settled).map(|shown| SETTLE.saturating_sub(shown.since.elapsed()))
    }

    /// Throws away what was typed for something else, the beginning of a line included; from here on it counts.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        if self.unsettled() == Some(Duration::ZERO)
            && let Some(shown) = &mut self.shown
        {
            shown.settled = true;
            tcflush(io::stdin().as_fd(), FlushArg::TCIFLUSH)?;
            self.invite_anew()?;
        }
        Ok(())
    }

    /// A line was typed.
    pub(super) fn typed(&mut self, line: &[u8], client: &Client) -> anyhow::Result<Outcome> {
        let settled = self.shown.is_some_and(|shown| shown.settled);
        let answer = question::parse(&String::from_utf8_lossy(line)).filter(|_| settled);
        let Some(answer) = answer else {
            write!(io::stdout(), "{}", self.invitation())?;
            io::stdout().flush()?;
            return Ok(Outcome::Open);
        };
        self.answer(answer, client)
    }

    pub(super) fn answer(&mut self, answer: Answer, client: &Client) -> anyhow::Result<Outcome> {
        let Some(question) = self.waiting.pop_front() else { return Ok(Outcome::Over) };
        let (id, summary) = (question.options.operation.id.clone(), question.options.operation.summary());
        match answer {
            Answer::Approve => match answer::sign(&question.options, None, question.key) {
                Ok(assertion) => {
                    client.send(&Request::Sign { id, assertion })?;
                    writeln!(io::stdout(), "ana: signed: {summary}")?;
                }
                Err(error) => {
                    writeln!(io::stdout(), "ana: not approved: {error:#}")?;
                    writeln!(io::stdout(), "ana: it still waits: ana approve {id}")?;
                }
            },
            Answer::Deny => {
                client.send(&Request::Deny { id, reason: String::new() })?;
                let more = match question.more {
                    0 => String::new(),
                    more => format!(" (and {more} more like it)"),
                };
                writeln!(io::stdout(), "ana: denied: {summary}{more}")?;
            }
            Answer::Later => writeln!(io::stdout(), "ana: it still waits: ana approve {id}")?,
        }
        self.shown = None;
        Ok(Outcome::Over)
    }
}
