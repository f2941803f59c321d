//! What clients say to a question: a signature, or no.

use super::{Desk, DeskError, Hold, Inner, accepted};
use crate::{
    approval::{
        Verified, WentBack,
        assertion::{self, Assertion, AssertionError, Expected},
        counters::CounterError,
        passkeys::{Kind, Passkey},
        state::Input,
    },
    operation::Verify,
};

impl Desk {
    /// Approves, if the assertion is one for exactly this operation by a passkey that was offered. Verification,
    /// the counter's comparison and its update happen under one lock, so an assertion cannot count twice.
    ///
    /// # Errors
    /// It does not wait any more, or the assertion does not count (it then goes on waiting).
    pub fn sign(&self, id: &str, assertion: &Assertion, now_ns: u64) -> Result<(), DeskError> {
        let mut inner = self.lock();
        // Is it there, shown, and in time? Only then is a signature worth checking.
        self.step(&mut inner, id, Input::Tick, now_ns)?;
        inner.refresh()?;
        let verified = match self.verify(&inner, id, assertion) {
            Err(DeskError::Verification { source, .. }) => {
                return Err(self.unverified(&mut inner, id, assertion, source, now_ns));
            }
            Err(error) => return Err(error),
            Ok(verified) => verified,
        };
        self.step(&mut inner, id, Input::Sign(Box::new(verified.clone())), now_ns)?;
        if verified.sign_count() != 0 || verified.kind() == Kind::SecurityKey {
            self.count(&mut inner, id, &verified, now_ns)?;
        }
        self.step(&mut inner, id, Input::Settle, now_ns)?;
        inner.backoff.approved();
        Ok(())
    }

    /// An assertion that does not count leaves the question where it was, unless it is one of two keys' that should be one.
    fn unverified(
        &self,
        inner: &mut Inner,
        id: &str,
        assertion: &Assertion,
        source: AssertionError,
        now_ns: u64,
    ) -> DeskError {
        if let Some(back) = WentBack::of(&source, &inner.passkeys.passkeys, assertion) {
            // One that has just expired is denied as well.
            self.step(inner, id, Input::GoBack(Box::new(back)), now_ns).ok();
        }
        DeskError::Verification { id: id.to_owned(), source }
    }

    /// Stores the counter that came with a signature; whatever goes wrong with it denies.
    fn count(&self, inner: &mut Inner, id: &str, verified: &Verified, now_ns: u64) -> Result<(), DeskError> {
        match inner.counters.store(verified) {
            Ok(()) => {
                inner.count(verified);
                Ok(())
            }
            Err(CounterError::WentBack(source)) => {
                Err(self.unverified(inner, id, verified.assertion(), source, now_ns))
            }
            Err(CounterError::Io(source)) => {
                let reason = "the passkey's counter could not be stored".to_owned();
                self.step(inner, id, Input::Deny { by: "ana".to_owned(), reason }, now_ns)?;
                Err(DeskError::Counter { id: id.to_owned(), source })
            }
        }
    }

    /// A person refuses, in the name of `by`: this operation and all that are like it.
    ///
    /// # Errors
    /// It does not wait any more.
    pub fn deny(&self, id: &str, by: &str, reason: &str, now_ns: u64) -> Result<(), DeskError> {
        let input = || Input::Deny { by: by.to_owned(), reason: reason.to_owned() };
        let mut inner = self.lock();
        let denied = inner.holds.get(id).map(|hold| (hold.asked_ns, hold.alike));
        self.step(&mut inner, id, input(), now_ns)?;
        if let Some((asked_ns, alike)) = denied {
            inner.backoff.denied(asked_ns, now_ns);
            for other in inner.like(alike) {
                // One that has just expired is denied as well.
                self.step(&mut inner, &other, input(), now_ns).ok();
            }
        }
        Ok(())
    }

    fn verify(&self, inner: &Inner, id: &str, assertion: &Assertion) -> Result<Verified, DeskError> {
        let hold = inner.holds.get(id).ok_or_else(|| DeskError::Unknown { id: id.to_owned() })?;
        let question = hold.approval.question().ok_or_else(|| DeskError::Unknown { id: id.to_owned() })?;
        let enrolled = &inner.passkeys.passkeys;
        let passkey = enrolled.iter().find(|passkey| passkey.credential_id == assertion.credential_id);
        if let Some(passkey) = passkey.filter(|passkey| !accepted(passkey, self.allow_software_passkey)) {
            return Err(DeskError::SoftwarePasskey { name: passkey.name.clone() });
        }
        let offered: Vec<Passkey> = inner.offered(self.allow_software_passkey).into_iter().cloned().collect();
        let expected = Expected {
            challenge: *question.challenge(),
            origin: &inner.passkeys.origin,
            rp_id: &inner.passkeys.rp_id,
            verify: required(hold).unwrap_or(Verify::Pin),
            offered: &offered,
        };
        assertion::verify(assertion, &expected)
            .map_err(|source| DeskError::Verification { id: id.to_owned(), source })
    }
}

/// The stricter of what the rule asks and what the operation shows.
pub(super) fn required(hold: &Hold) -> Option<Verify> {
    hold.approval.question().map(|question| {
        match (question.judged().verdict.verify, question.judged().operation.verify) {
            (Verify::Presence, Verify::Presence) => Verify::Presence,
            (Verify::Pin, _) | (_, Verify::Pin) => Verify::Pin,
        }
    })
}
