//! From a judged operation to a decided one: a person is asked, and signs with a passkey or refuses.
//!
//! Takes [`Judged`] by value, gives [`Decided`]. Nothing outside this room can make a `Decided` that approves
//! against the policy: either a rule allows ([`Decided::by_rule`]), or an [`assertion`] over exactly this
//! operation's challenge was verified. The [`state`] machine does no IO and reads no clock; the [`desk`] puts
//! many of them behind one lock. It never writes evidence: that is the next stage's.

mod alike;
pub mod assertion;
pub mod authenticator;
mod backoff;
mod client_data;
mod cose;
pub mod counters;
pub mod desk;
pub mod enrolment;
mod grant;
pub mod keyfile;
pub mod passkeys;
pub mod security_key;
pub mod software;
pub mod state;

#[cfg(test)]
mod crosscheck;
#[cfg(test)]
mod samples;

use std::sync::Arc;

use serde::Serialize;

use self::passkeys::Passkey;

use crate::{
    operation::Operation,
    policy::{Action, Verdict},
};

pub use alike::Likeness;
pub use assertion::{Assertion, AssertionError, Verified};
pub use desk::{Desk, DeskError, Waiting};
pub use grant::Grant;

/// An operation with the policy's verdict on it.
#[derive(Clone, Debug)]
pub struct Judged {
    pub operation: Arc<Operation>,
    pub verdict: Verdict,
    /// Operations with the same likeness that wait at the same time are one question; `None` is like no other.
    pub alike: Option<Likeness>,
}

/// An operation that is answered for good. Only this room makes one; the evidence room takes it by value.
#[must_use = "a decision has to be recorded before anything else happens"]
#[derive(Debug)]
pub struct Decided {
    judged: Box<Judged>,
    reason: Reason,
}

/// A valid signature by a passkey whose counter should have been larger.
#[derive(Clone, Debug, Serialize)]
pub struct WentBack {
    /// The passkey's name.
    pub passkey: String,
    /// The largest counter that was seen.
    pub stored: u32,
    /// This one's.
    pub found: u32,
    pub assertion: Assertion,
}

impl WentBack {
    /// What a refusal means, if it is that. `passkeys`: the one that signed is among them.
    pub fn of(error: &AssertionError, passkeys: &[Passkey], assertion: &Assertion) -> Option<Self> {
        let AssertionError::SignCount { stored, found } = *error else { return None };
        let passkey = passkeys.iter().find(|passkey| passkey.credential_id == assertion.credential_id);
        let passkey = passkey.map(|passkey| passkey.name.clone()).unwrap_or_default();
        Some(Self { passkey, stored, found, assertion: assertion.clone() })
    }
}

/// Why an operation was answered the way it was.
#[derive(Clone, Debug)]
pub enum Reason {
    /// The policy allows or denies it; nobody was asked.
    Rule { rule: String, because: String },
    /// A person signed exactly this operation.
    Person { approver: String, assertion: Box<Verified> },
    /// A person signed another operation, whose signature covers this one.
    Granted { approver: String, operation: String },
    /// A person (or ana itself, for the reason given) said no.
    Refused { by: String, reason: String },
    /// A passkey's counter went back: there may be a copy of it.
    CounterWentBack(Box<WentBack>),
    /// Nobody answered in time.
    TimedOut { seconds: u64 },
    /// The process that asked is gone.
    ProcessEnded,
    /// Too many operations wait already.
    QueueFull { limit: usize },
    /// A person said no so many times in a row that nothing is asked for so many seconds.
    BackedOff { denials: u32, seconds: u64 },
}

impl Decided {
    /// What the policy decided alone.
    ///
    /// # Errors
    /// Gives the judgement back when the verdict is to ask a person: only the [`Desk`] decides that.
    pub fn by_rule(judged: Judged) -> Result<Self, Judged> {
        match judged.verdict.action {
            Action::Allow | Action::Deny => {
                let reason = Reason::Rule {
                    rule: judged.verdict.rule.clone(),
                    because: judged.verdict.because.clone(),
                };
                Ok(Self::new(judged, reason))
            }
            Action::Approve => Err(judged),
        }
    }

    /// What a person's earlier signature covers; the caller has found that it does.
    ///
    /// # Errors
    /// Gives the judgement back when the policy does not ask a person: then it decides alone.
    pub fn by_grant(judged: Judged, grant: &Grant) -> Result<Self, Judged> {
        match judged.verdict.action {
            Action::Approve => {
                let (approver, operation) = (grant.approver().to_owned(), grant.operation().id.clone());
                Ok(Self::new(judged, Reason::Granted { approver, operation }))
            }
            Action::Allow | Action::Deny => Err(judged),
        }
    }

    /// A refusal that needs neither rule nor person: `by` is who refuses, usually "ana".
    pub fn refused(judged: Judged, by: &str, reason: &str) -> Self {
        Self::new(judged, Reason::Refused { by: by.to_owned(), reason: reason.to_owned() })
    }

    fn new(judged: Judged, reason: Reason) -> Self {
        Self { judged: Box::new(judged), reason }
    }

    pub fn operation(&self) -> &Arc<Operation> {
        &self.judged.operation
    }

    pub fn verdict(&self) -> &Verdict {
        &self.judged.verdict
    }

    pub fn reason(&self) -> &Reason {
        &self.reason
    }

    /// May it go on (once it is recorded)?
    pub fn approved(&self) -> bool {
        match &self.reason {
            Reason::Rule { .. } => self.judged.verdict.action == Action::Allow,
            Reason::Person { .. } | Reason::Granted { .. } => true,
            Reason::Refused { .. }
            | Reason::CounterWentBack(_)
            | Reason::TimedOut { .. }
            | Reason::ProcessEnded
            | Reason::QueueFull { .. }
            | Reason::BackedOff { .. } => false,
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rule { rule, because } if because.is_empty() => write!(f, "the policy's rule \"{rule}\""),
            Self::Rule { because, .. } => write!(f, "the policy ({because})"),
            Self::Person { approver, .. } => write!(f, "approved by {approver}"),
            Self::Granted { approver, operation } => {
                write!(f, "approved by {approver} with operation {operation}")
            }
            Self::Refused { by, reason } if reason.is_empty() => write!(f, "refused by {by}"),
            Self::Refused { by, reason } => write!(f, "refused by {by}: {reason}"),
            Self::CounterWentBack(back) => write!(
                f,
                "the counter of the passkey \"{}\" went from {} to {}: there may be a copy of the key; \
                 `ana passkey remove` it unless you know why",
                back.passkey, back.stored, back.found
            ),
            Self::TimedOut { seconds } => write!(f, "timed out after {seconds}s"),
            Self::ProcessEnded => write!(f, "the process that asked has ended"),
            Self::QueueFull { limit } => write!(f, "{limit} operations wait already"),
            Self::BackedOff { denials, seconds } => {
                write!(f, "a person denied the last {denials}; asking again is possible in {seconds} s")
            }
        }
    }
}
