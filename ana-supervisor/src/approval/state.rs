//! The life of one question: Asked → Shown → Signed → Decided.
//!
//! Takes [`Input`]s and the time (CLOCK_BOOTTIME, nanoseconds), gives the next state; does no IO and reads no
//! clock. A state is consumed by its successor. Every state but the last has the same deadline, and after it only
//! one thing can happen: a refusal. The one way to an approval leads through [`Input::Sign`] with a [`Verified`]
//! for this question's challenge.

use std::{mem, sync::Arc};

use thiserror::Error;

use super::{Decided, Judged, Reason, Verified, WentBack};
use crate::operation::Operation;

/// What can happen to a question. A closed list.
#[derive(Debug)]
pub enum Input {
    /// Its operation was rendered to somebody.
    Show,
    /// Somebody signed it; the assertion is verified.
    Sign(Box<Verified>),
    /// The signer's counter is stored: the approval may take effect.
    Settle,
    /// Somebody said no.
    Deny { by: String, reason: String },
    /// Somebody signed it with a key whose counter went back.
    GoBack(Box<WentBack>),
    /// The process that asked is gone.
    Withdraw,
    /// Time passed.
    Tick,
}

/// A question in one of its four states.
#[derive(Debug)]
#[must_use = "the question goes on in its next state"]
pub enum Approval {
    Asked(Question),
    Shown(Question),
    Signed(Question, Box<Verified>),
    Decided(Box<Decided>),
}

/// What is asked, until when.
#[derive(Debug)]
pub struct Question {
    judged: Judged,
    challenge: [u8; 32],
    deadline_ns: u64,
}

/// Why an input did nothing. The state is then what it was, or decided by the deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InputError {
    #[error("the operation was not shown to anybody yet")]
    NotShown,
    #[error("the assertion signs another operation")]
    OtherChallenge,
    #[error("the operation is signed already")]
    AlreadySigned,
    #[error("nobody has signed the operation")]
    NotSigned,
    #[error("the time to answer is over")]
    Expired,
    #[error("the operation is decided already")]
    AlreadyDecided,
}

impl Approval {
    /// A new question; `challenge` is its operation's, `deadline_ns` is on CLOCK_BOOTTIME.
    pub fn ask(judged: Judged, challenge: [u8; 32], deadline_ns: u64) -> Self {
        Self::Asked(Question { judged, challenge, deadline_ns })
    }

    /// The next state, and whether the input was what made it.
    pub fn handle(self, input: Input, now_ns: u64) -> (Self, Result<(), InputError>) {
        match self {
            Self::Decided(_) => (self, Err(InputError::AlreadyDecided)),
            Self::Asked(question) | Self::Shown(question) | Self::Signed(question, _)
                if now_ns >= question.deadline_ns =>
            {
                (question.time_out(), expired(&input))
            }
            Self::Asked(question) => question.when_asked(input),
            Self::Shown(question) => question.when_shown(input),
            Self::Signed(question, verified) => question.when_signed(verified, input),
        }
    }

    /// The operation in question.
    pub fn operation(&self) -> &Arc<Operation> {
        match self {
            Self::Asked(question) | Self::Shown(question) | Self::Signed(question, _) => {
                &question.judged.operation
            }
            Self::Decided(decided) => decided.operation(),
        }
    }

    /// Until when it waits, CLOCK_BOOTTIME nanoseconds; `None` when it does not wait any more.
    pub fn deadline_ns(&self) -> Option<u64> {
        self.question().map(|question| question.deadline_ns)
    }

    /// What is asked; `None` when it is decided.
    pub fn question(&self) -> Option<&Question> {
        match self {
            Self::Asked(question) | Self::Shown(question) | Self::Signed(question, _) => Some(question),
            Self::Decided(_) => None,
        }
    }
}

impl Question {
    pub fn judged(&self) -> &Judged {
        &self.judged
    }

    pub fn challenge(&self) -> &[u8; 32] {
        &self.challenge
    }

    fn when_asked(self, input: Input) -> (Approval, Result<(), InputError>) {
        match input {
            Input::Show => (Approval::Shown(self), Ok(())),
            Input::Sign(_) => (Approval::Asked(self), Err(InputError::NotShown)),
            Input::Settle => (Approval::Asked(self), Err(InputError::NotSigned)),
            Input::Deny { by, reason } => (self.decide(Reason::Refused { by, reason }), Ok(())),
            Input::GoBack(back) => (self.decide(Reason::CounterWentBack(back)), Ok(())),
            Input::Withdraw => (self.decide(Reason::ProcessEnded), Ok(())),
            Input::Tick => (Approval::Asked(self), Ok(())),
        }
    }

    fn when_shown(self, input: Input) -> (Approval, Result<(), InputError>) {
        match input {
            // A second terminal looks at it, too.
            Input::Show | Input::Tick => (Approval::Shown(self), Ok(())),
            Input::Sign(verified) if *verified.challenge() == self.challenge => {
                (Approval::Signed(self, verified), Ok(()))
            }
            Input::Sign(_) => (Approval::Shown(self), Err(InputError::OtherChallenge)),
            Input::Settle => (Approval::Shown(self), Err(InputError::NotSigned)),
            Input::Deny { by, reason } => (self.decide(Reason::Refused { by, reason }), Ok(())),
            Input::GoBack(back) => (self.decide(Reason::CounterWentBack(back)), Ok(())),
            Input::Withdraw => (self.decide(Reason::ProcessEnded), Ok(())),
        }
    }

    fn when_signed(self, verified: Box<Verified>, input: Input) -> (Approval, Result<(), InputError>) {
        match input {
            Input::Settle => {
                let approver = verified.approver().to_owned();
                (self.decide(Reason::Person { approver, assertion: verified }), Ok(()))
            }
            Input::Show | Input::Tick => (Approval::Signed(self, verified), Ok(())),
            Input::Sign(_) => (Approval::Signed(self, verified), Err(InputError::AlreadySigned)),
            // Nothing has happened yet, so a no still counts.
            Input::Deny { by, reason } => (self.decide(Reason::Refused { by, reason }), Ok(())),
            Input::GoBack(back) => (self.decide(Reason::CounterWentBack(back)), Ok(())),
            Input::Withdraw => (self.decide(Reason::ProcessEnded), Ok(())),
        }
    }

    fn time_out(self) -> Approval {
        let seconds = self.judged.verdict.timeout.as_secs();
        self.decide(Reason::TimedOut { seconds })
    }

    fn decide(self, reason: Reason) -> Approval {
        Approval::Decided(Box::new(Decided::new(self.judged, reason)))
    }
}

/// Time itself is not late; everything else that comes after the deadline is.
fn expired(input: &Input) -> Result<(), InputError> {
    if mem::discriminant(input) == mem::discriminant(&Input::Tick) {
        Ok(())
    } else {
        Err(InputError::Expired)
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
