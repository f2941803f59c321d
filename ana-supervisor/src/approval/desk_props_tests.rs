//! Any sequence of what can happen to a desk, against a model of it.

use std::collections::HashMap;

use p256::ecdsa::signature::Verifier;
use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::{super::samples::*, *};
use crate::approval::Assertion;

const QUESTIONS: usize = 6;
const TIMEOUT: u64 = 60 * SECOND;

/// What can happen; numbers choose the question.
#[derive(Clone, Copy, Debug)]
enum Feed {
    Ask(usize),
    Show(usize),
    /// By the enrolled passkey, over this question.
    Sign(usize),
    /// By the enrolled passkey, over another question.
    SignOther(usize, usize),
    /// By a passkey that is not enrolled, in the enrolled one's name.
    Forge(usize),
    /// The enrolled passkey's signature with one byte changed: of the signature, or of what was signed.
    Spoil(usize, u8),
    Deny(usize),
    Withdraw(usize),
    Expire,
    Wait(u64),
}

fn feeds() -> impl Strategy<Value = Vec<Feed>> {
    let question = 0..QUESTIONS;
    let feed = prop_oneof![
        5 => question.clone().prop_map(Feed::Ask),
        5 => question.clone().prop_map(Feed::Show),
        4 => question.clone().prop_map(Feed::Sign),
        2 => (question.clone(), question.clone()).prop_map(|(this, other)| Feed::SignOther(this, other)),
        1 => question.clone().prop_map(Feed::Forge),
        2 => (question.clone(), any::<u8>()).prop_map(|(this, byte)| Feed::Spoil(this, byte)),
        2 => question.clone().prop_map(Feed::Deny),
        1 => question.prop_map(Feed::Withdraw),
        1 => Just(Feed::Expire),
        2 => (0..40 * SECOND).prop_map(Feed::Wait),
    ];
    prop::collection::vec(feed, 0..40)
}

/// The questions in pairs: two of each pair are alike.
fn question(at: usize) -> (String, Judged) {
    let id = format!("Q{at}");
    let judged = judged(&id);
    let alike = Likeness::of(&format!("pair {}", at / 2), &judged.operation.kind);
    (id, Judged { alike, ..judged })
}

struct World {
    token: Token,
    desk: Desk,
    now: u64,
    answers: HashMap<String, oneshot::Receiver<Decided>>,
    /// What the model says: those shown, and those whose own signature was taken in time.
    shown: Vec<String>,
    signed: Vec<String>,
}

impl World {
    fn new() -> Self {
        let token = Token::new("key");
        let desk = Desk::new(4, list(vec![token.passkey.clone()]), true);
        let (answers, shown, signed) = (HashMap::new(), Vec::new(), Vec::new());
        Self { token, desk, now: SECOND, answers, shown, signed }
    }

    fn feed(&mut self, feed: Feed) -> Result<(), TestCaseError> {
        match feed {
            Feed::Ask(at) => return self.ask(at),
            Feed::Show(at) => {
                let (id, _) = question(at);
                if self.desk.show(&id, self.now).is_ok() {
                    self.shown.push(id);
                }
            }
            Feed::Sign(at) => {
                let id = question(at).0;
                let assertion = self.token.sign(&operation(&id).challenge().unwrap());
                if self.desk.sign(&id, &assertion, self.now).is_ok() {
                    prop_assert!(self.shown.contains(&id), "signed unseen");
                    self.signed.push(id);
                }
            }
            Feed::SignOther(at, other) if at != other => {
                let other = operation(&question(other).0).challenge().unwrap();
                let taken = self.desk.sign(&question(at).0, &self.token.sign(&other), self.now);
                prop_assert!(taken.is_err(), "another question's signature was taken");
            }
            Feed::Forge(at) => {
                let mut forged =
                    Token::new("stranger").sign(&operation(&question(at).0).challenge().unwrap());
                forged.credential_id = self.token.passkey.credential_id.clone();
                prop_assert!(self.desk.sign(&question(at).0, &forged, self.now).is_err(), "forged");
            }
            Feed::Spoil(at, byte) => {
                let mut spoilt = self.token.sign(&operation(&question(at).0).challenge().unwrap());
                let part = match byte % 3 {
                    0 => &mut spoilt.signature,
                    1 => &mut spoilt.authenticator_data,
                    _ => &mut spoilt.client_data_json,
                };
                let mut bytes = unb64(part);
                let place = usize::from(byte) % bytes.len();
                bytes[place] ^= 1 << (byte % 8);
                *part = b64(bytes);
                prop_assert!(self.desk.sign(&question(at).0, &spoilt, self.now).is_err(), "spoilt {byte}");
            }
            Feed::Deny(at) => drop(self.desk.deny(&question(at).0, "bob", "", self.now)),
            Feed::Withdraw(at) => drop(self.desk.withdraw(&question(at).0, self.now)),
            Feed::Expire => self.desk.expire(self.now),
            Feed::Wait(ns) => self.now += ns,
            Feed::SignOther(..) => {}
        }
        Ok(())
    }

    fn ask(&mut self, at: usize) -> Result<(), TestCaseError> {
        let (id, judged) = question(at);
        match self.desk.ask(judged, self.now, self.now + TIMEOUT) {
            Ok(answer) => prop_assert!(self.answers.insert(id, answer).is_none(), "an id was asked twice"),
            Err(refused) => prop_assert!(!refused.approved(), "approved without being asked"),
        }
        Ok(())
    }

    /// Every question has exactly one answer, an approving one only with its own signature.
    fn end(mut self) -> Result<(), TestCaseError> {
        let pending: usize = self.desk.pending().iter().map(|waiting| 1 + waiting.more).sum();
        prop_assert_eq!(pending, self.desk.waiting());
        self.desk.expire(u64::MAX);
        prop_assert_eq!(self.desk.waiting(), 0);
        for (id, mut answer) in std::mem::take(&mut self.answers) {
            let decided = answer.try_recv();
            prop_assert!(decided.is_ok(), "{} was not answered", id);
            let decided = decided.unwrap();
            prop_assert_eq!(&decided.operation().id, &id, "the answer of another question");
            prop_assert!(answer.try_recv().is_err(), "{} was answered twice", id);
            prop_assert_eq!(decided.approved(), self.signed.contains(&id), "{:?}", decided.reason());
            if let Reason::Person { assertion, .. } = decided.reason() {
                let challenge = operation(&id).challenge().unwrap();
                prop_assert_eq!(assertion.challenge(), &challenge);
                prop_assert!(self.holds(assertion.assertion(), &challenge), "it does not verify");
            }
        }
        Ok(())
    }

    /// The signature once more, by nothing of this room but the key.
    fn holds(&self, assertion: &Assertion, challenge: &[u8; 32]) -> bool {
        let client_data = unb64(&assertion.client_data_json);
        let parsed: serde_json::Value = serde_json::from_slice(&client_data).unwrap();
        let message = [unb64(&assertion.authenticator_data), Sha256::digest(&client_data).to_vec()].concat();
        let signature = p256::ecdsa::Signature::from_der(&unb64(&assertion.signature)).unwrap();
        parsed["challenge"] == b64(challenge)
            && self.token.key.verifying_key().verify(&message, &signature).is_ok()
    }
}

proptest! {
    /// Whatever happens in whatever order.
    #[test]
    fn nothing_is_approved_without_its_own_signature(feeds in feeds()) {
        let mut world = World::new();
        for feed in feeds {
            world.feed(feed)?;
        }
        world.end()?;
    }
}
