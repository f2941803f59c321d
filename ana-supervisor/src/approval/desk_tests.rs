use std::{sync::Barrier, thread};

use super::{super::samples::*, *};
use crate::{
    approval::{Assertion, counters::CounterError},
    operation::Verify,
};

const DEADLINE: u64 = 120 * SECOND;

fn desk(passkeys: Vec<Passkey>) -> Desk {
    Desk::new(4, list(passkeys), true)
}

fn sign_for(token: &Token, id: &str) -> Assertion {
    token.sign(&operation(id).challenge().unwrap())
}

#[test]
fn a_person_approves() {
    let token = Token::new("key");
    let desk = desk(vec![token.passkey.clone()]);
    let mut changed = desk.changed();
    let mut answer = desk.ask(judged("A"), 0, DEADLINE).unwrap();
    assert!(changed.has_changed().unwrap());
    changed.mark_unchanged();
    assert_eq!(desk.pending()[0].operation.id, "A");
    assert_eq!(desk.next_deadline(), Some(DEADLINE));
    let options = desk.show("A", SECOND).unwrap();
    assert_eq!((options.rp_id.as_str(), options.offered.len()), (RP_ID, 1));
    assert_eq!(options.operation, operation("A"));
    desk.sign("A", &sign_for(&token, "A"), SECOND).unwrap();
    let decided = answer.try_recv().unwrap();
    assert!(decided.approved());
    assert_eq!(decided.operation().id, "A");
    let Reason::Person { approver, assertion } = decided.reason() else { panic!("{decided:?}") };
    assert_eq!(approver, "bob");
    assert_eq!(*assertion.challenge(), operation("A").challenge().unwrap());
    assert!(changed.has_changed().unwrap());
    assert!(desk.pending().is_empty());
    assert_eq!(desk.next_deadline(), None);
}

#[test]
fn rules_are_not_asked_about() {
    let desk = desk(vec![]);
    for (action, approved) in [(Action::Allow, true), (Action::Deny, false)] {
        let decided = desk.ask(judged_as(operation("A"), action), 0, DEADLINE).unwrap_err();
        assert_eq!(decided.approved(), approved);
        assert!(matches!(decided.reason(), Reason::Rule { .. }));
    }
    assert!(Decided::by_rule(judged("A")).is_err());
}

#[test]
fn unanswered_is_denied() {
    let token = Token::new("key");
    let desk = desk(vec![token.passkey.clone()]);
    let mut early = desk.ask(judged("A"), 0, DEADLINE).unwrap();
    let mut late = desk.ask(judged("B"), 0, 2 * DEADLINE).unwrap();
    desk.show("A", 0).unwrap();
    desk.expire(DEADLINE - 1);
    assert!(early.try_recv().is_err());
    desk.expire(DEADLINE);
    let decided = early.try_recv().unwrap();
    assert!(!decided.approved());
    assert_eq!(decided.reason().to_string(), "timed out after 120s");
    assert!(late.try_recv().is_err());
    assert!(matches!(desk.sign("A", &sign_for(&token, "A"), DEADLINE), Err(DeskError::Expired { .. })));
    assert_eq!(desk.next_deadline(), Some(2 * DEADLINE));
}

#[test]
fn too_late_is_too_late_even_before_the_clock_was_looked_at() {
    let token = Token::new("key");
    let desk = desk(vec![token.passkey.clone()]);
    let mut answer = desk.ask(judged("A"), 0, DEADLINE).unwrap();
    desk.show("A", 0).unwrap();
    assert!(matches!(desk.sign("A", &sign_for(&token, "A"), DEADLINE), Err(DeskError::Expired { .. })));
    assert!(!answer.try_recv().unwrap().approved());
    let mut answer = desk.ask(judged("B"), 0, DEADLINE).unwrap();
    assert!(matches!(desk.show("B", DEADLINE), Err(DeskError::Expired { .. })));
    assert!(!answer.try_recv().unwrap().approved());
    let mut answer = desk.ask(judged("C"), 0, DEADLINE).unwrap();
    assert!(matches!(desk.deny("C", "bob", "", DEADLINE), Err(DeskError::Expired { .. })));
    assert!(matches!(answer.try_recv().unwrap().reason(), Reason::TimedOut { .. }));
}

#[test]
fn an_assertion_for_another_operation_is_refused() {
    let token = Token::new("key");
    let desk = desk(vec![token.passkey.clone()]);
    let mut first = desk.ask(judged("A"), 0, DEADLINE).unwrap();
    let mut second = desk.ask(judged("B"), 0, DEADLINE).unwrap();
    for id in ["A", "B"] {
        desk.show(id, 0).unwrap();
    }
    let for_a = sign_for(&token, "A");
    let swapped = desk.sign("B", &for_a, SECOND).unwrap_err();
    assert!(
        matches!(swapped, DeskError::Verification { source: AssertionError::Challenge, .. }),
        "{swapped:?}"
    );
    desk.sign("A", &for_a, SECOND).unwrap();
    assert!(first.try_recv().unwrap().approved());
    // Once more, for the same and for the other.
    let again = desk.sign("A", &for_a, SECOND).unwrap_err();
    assert_eq!(again.to_string(), "the operation A is already decided: approved by bob");
    assert!(matches!(desk.sign("B", &for_a, SECOND), Err(DeskError::Verification { .. })));
    assert!(second.try_recv().is_err(), "a wrong assertion decided something");
}

#[test]
fn a_wrong_assertion_leaves_the_question_open() {
    let (token, stranger) = (Token::new("key"), Token::new("stranger"));
    let desk = desk(vec![token.passkey.clone()]);
    let mut answer = desk.ask(judged("A"), 0, DEADLINE).unwrap();
    assert!(matches!(desk.sign("A", &sign_for(&token, "A"), 0), Err(DeskError::NotShown { .. })));
    desk.show("A", 0).unwrap();
    let mut forged = sign_for(&stranger, "A");
    assert!(matches!(
        desk.sign("A", &forged, 0),
        Err(DeskError::Verification { source: AssertionError::UnknownPasskey { .. }, .. })
    ));
    forged.credential_id = token.passkey.credential_id.clone();
    assert!(matches!(
        desk.sign("A", &forged, 0),
        Err(DeskError::Verification { source: AssertionError::Signature { .. }, .. })
    ));
    assert!(answer.try_recv().is_err());
    desk.sign("A", &sign_for(&token, "A"), 0).unwrap();
    assert!(answer.try_recv().unwrap().approved());
}

#[test]
fn a_denial_names_who_and_why() {
    let desk = desk(vec![Token::new("key").passkey]);
    let mut answer = desk.ask(judged("A"), 0, DEADLINE).unwrap();
    desk.deny("A", "bob", "not today", 0).unwrap();
    let decided = answer.try_recv().unwrap();
    assert!(!decided.approved());
    assert_eq!(decided.reason().to_string(), "refused by bob: not today");
    let again = desk.deny("A", "eve", "", 0).unwrap_err();
    assert_eq!(again.to_string(), "the operation A is already decided: refused by bob: not today");
}

#[test]
fn a_dead_process_takes_its_question_along() {
    let token = Token::new("key");
    let desk = desk(vec![token.passkey.clone()]);
    let mut answer = desk.ask(judged("A"), 0, DEADLINE).unwrap();
    desk.show("A", 0).unwrap();
    assert!(desk.withdraw("A", 0));
    assert!(matches!(answer.try_recv().unwrap().reason(), Reason::ProcessEnded));
    assert!(!desk.withdraw("A", 0));
    assert!(matches!(desk.sign("A", &sign_for(&token, "A"), 0), Err(DeskError::AlreadyDecided { .. })));
}

#[test]
fn an_unknown_id_is_said_to_be_one() {
    let desk = desk(vec![Token::new("key").passkey]);
    assert!(matches!(desk.show("Z", 0), Err(DeskError::Unknown { .. })));
    assert!(matches!(desk.deny("Z", "bob", "", 0), Err(DeskError::Unknown { .. })));
    assert!(matches!(desk.sign("Z", &sign_for(&Token::new("key"), "Z"), 0), Err(DeskError::Unknown { .. })));
}

#[test]
fn a_full_desk_denies_and_an_id_is_used_once() {
    let desk = desk(vec![Token::new("key").passkey]);
    let mut answers: Vec<_> =
        ["A", "B", "C", "D"].map(|id| desk.ask(judged(id), 0, DEADLINE).unwrap()).into();
    let full = desk.ask(judged("E"), 0, DEADLINE).unwrap_err();
    assert!(matches!(full.reason(), Reason::QueueFull { limit: 4 }) && !full.approved());
    desk.deny("A", "bob", "", 0).unwrap();
    for id in ["A", "B"] {
        let used = desk.ask(judged(id), 0, DEADLINE).unwrap_err();
        assert!(!used.approved(), "{id} was asked twice");
    }
    assert!(answers[1].try_recv().is_err(), "B was disturbed");
    desk.ask(judged("E"), 0, DEADLINE).unwrap();
}

#[test]
fn a_desk_that_is_gone_approves_nothing() {
    let desk = desk(vec![Token::new("key").passkey]);
    let mut answer = desk.ask(judged("A"), 0, DEADLINE).unwrap();
    drop(desk);
    assert!(matches!(answer.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
}

#[test]
fn decided_ids_are_remembered_within_a_bound() {
    let desk = desk(vec![Token::new("key").passkey]);
    for n in 0..DECIDED_MAX + 10 {
        let id = format!("{n:04}");
        let _answer = desk.ask(judged(&id), 0, DEADLINE).unwrap();
        desk.deny(&id, "bob", "", 0).unwrap();
    }
    assert_eq!(desk.lock().decided.len(), DECIDED_MAX);
    assert!(matches!(desk.deny("0000", "bob", "", 0), Err(DeskError::Unknown { .. })));
    assert!(matches!(desk.deny("0100", "bob", "", 0), Err(DeskError::AlreadyDecided { .. })));
}

#[test]
fn software_passkeys_need_the_policys_leave() {
    let (mut software, soft) = software("demo", None);
    let hard = Token::new("key");
    let assertion = sign_with(&mut software, operation("A").challenge().unwrap(), Verify::Presence);
    let strict = Desk::new(4, list(vec![soft.clone(), hard.passkey.clone()]), false);
    let mut answer = strict.ask(judged("A"), 0, DEADLINE).unwrap();
    let options = strict.show("A", 0).unwrap();
    assert_eq!(options.offered.iter().map(|offer| offer.name.as_str()).collect::<Vec<_>>(), ["key"]);
    assert!(matches!(strict.sign("A", &assertion, 0), Err(DeskError::SoftwarePasskey { .. })));
    assert!(answer.try_recv().is_err());
    strict.sign("A", &sign_for(&hard, "A"), 0).unwrap();
    assert!(answer.try_recv().unwrap().approved());

    let only = Desk::new(4, list(vec![soft.clone()]), false);
    let _answer = only.ask(judged("A"), 0, DEADLINE).unwrap();
    assert!(matches!(only.show("A", 0), Err(DeskError::OnlySoftwarePasskeys)));
    let none = Desk::new(4, list(vec![]), true);
    let _answer = none.ask(judged("A"), 0, DEADLINE).unwrap();
    assert!(matches!(none.show("A", 0), Err(DeskError::NoPasskey)));

    let lenient = Desk::new(4, list(vec![soft, hard.passkey.clone()]), true);
    let mut answer = lenient.ask(judged("A"), 0, DEADLINE).unwrap();
    assert_eq!(lenient.show("A", 0).unwrap().offered.len(), 2);
    lenient.sign("A", &assertion, 0).unwrap();
    assert!(answer.try_recv().unwrap().approved());
}

#[test]
fn the_stricter_verification_counts() {
    let token = Token::new("key");
    let desk = desk(vec![token.passkey.clone()]);
    let mut judged = judged("A");
    judged.verdict.verify = Verify::Pin;
    let mut answer = desk.ask(judged, 0, DEADLINE).unwrap();
    assert_eq!(desk.show("A", 0).unwrap().verify, Verify::Pin);
    assert!(matches!(
        desk.sign("A", &sign_for(&token, "A"), 0),
        Err(DeskError::Verification { source: AssertionError::NotVerified, .. })
    ));
    assert!(answer.try_recv().is_err());
}

struct Recorder(Arc<Mutex<Vec<u32>>>, bool);

impl Counters for Recorder {
    fn list(&mut self, known: &Passkeys) -> io::Result<Passkeys> {
        Ok(known.clone())
    }

    fn store(&mut self, verified: &Verified) -> Result<(), CounterError> {
        self.0.lock().unwrap().push(verified.sign_count());
        if self.1 { Ok(()) } else { Err(io::Error::other("disk full").into()) }
    }
}

/// What other sessions have left on the disk.
struct Disk(Passkeys);

impl Counters for Disk {
    fn list(&mut self, _: &Passkeys) -> io::Result<Passkeys> {
        Ok(self.0.clone())
    }

    fn store(&mut self, verified: &Verified) -> Result<(), CounterError> {
        self.0.count(verified).map_err(CounterError::WentBack)
    }
}

/// A copy of a key, used in another session: the counter that this session has seen is not the last one.
#[test]
fn a_counter_that_another_session_has_seen_denies() {
    let token = Token::new("key");
    let mut used = token.passkey.clone();
    used.sign_count = 9;
    let desk = desk(vec![token.passkey.clone()]).with_counters(Box::new(Disk(list(vec![used]))));
    let mut answer = desk.ask(judged("A"), 0, DEADLINE).unwrap();
    desk.show("A", 0).unwrap();
    assert!(matches!(
        desk.sign("A", &counted(&token, "A", 9), 0),
        Err(DeskError::Verification { source: AssertionError::SignCount { stored: 9, found: 9 }, .. })
    ));
    let decided = answer.try_recv().unwrap();
    assert!(matches!(decided.reason(), Reason::CounterWentBack(back) if back.found == 9), "{decided:?}");
}

/// A passkey that was removed approves nothing in sessions that run, and one that was enrolled does.
#[test]
fn a_session_follows_the_list() {
    let (removed, enrolled) = (Token::new("removed"), Token::new("enrolled"));
    let desk = desk(vec![removed.passkey.clone()])
        .with_counters(Box::new(Disk(list(vec![enrolled.passkey.clone()]))));
    let mut answer = desk.ask(judged("A"), 0, DEADLINE).unwrap();
    assert_eq!(desk.show("A", 0).unwrap().offered[0].name, "enrolled");
    assert!(desk.sign("A", &sign_for(&removed, "A"), 0).is_err());
    desk.sign("A", &counted(&enrolled, "A", 1), 0).unwrap();
    assert!(answer.try_recv().unwrap().approved());
}

fn counted(token: &Token, id: &str, count: u32) -> Assertion {
    let client_data = super::super::client_data::encode(&operation(id).challenge().unwrap(), RP_ID);
    token.sign_parts(&authenticator_data(RP_ID, 0x01, count), &client_data)
}

#[test]
fn a_counter_grows_from_operation_to_operation() {
    let token = Token::new("key");
    let stored = Arc::new(Mutex::new(Vec::new()));
    let desk = desk(vec![token.passkey.clone()]).with_counters(Box::new(Recorder(Arc::clone(&stored), true)));
    let ids = ["A", "B", "C", "D"];
    let mut answers = ids.map(|id| desk.ask(judged(id), 0, DEADLINE).unwrap());
    for id in ids {
        desk.show(id, 0).unwrap();
    }
    desk.sign("A", &counted(&token, "A", 7), 0).unwrap();
    // There may be two of this key: that question is over.
    for (id, count) in [("B", 7), ("C", 6)] {
        // A list from disk that is older does not turn the counter back.
        desk.replace_passkeys(list(vec![token.passkey.clone()]));
        assert!(matches!(
            desk.sign(id, &counted(&token, id, count), 0),
            Err(DeskError::Verification { source: AssertionError::SignCount { stored: 7, .. }, .. })
        ));
        assert!(matches!(desk.sign(id, &counted(&token, id, 8), 0), Err(DeskError::AlreadyDecided { .. })));
    }
    desk.sign("D", &counted(&token, "D", 8), 0).unwrap();
    assert_eq!(*stored.lock().unwrap(), [7, 8]);
    let decided = answers.each_mut().map(|answer| answer.try_recv().unwrap());
    assert_eq!(decided.each_ref().map(Decided::approved), [true, false, false, true]);
    let Reason::CounterWentBack(back) = decided[2].reason() else { panic!("{:?}", decided[2]) };
    assert_eq!((back.passkey.as_str(), back.stored, back.found), ("key", 7, 6));
    assert_eq!(back.assertion, counted(&token, "C", 6));
}

#[test]
fn the_list_that_was_changed_on_disk_is_the_one_that_counts() {
    let (removed, enrolled) = (Token::new("removed"), Token::new("enrolled"));
    let desk = desk(vec![removed.passkey.clone()]);
    let mut answer = desk.ask(judged("A"), 0, DEADLINE).unwrap();
    desk.show("A", 0).unwrap();
    desk.replace_passkeys(list(vec![enrolled.passkey.clone()]));
    assert!(matches!(
        desk.sign("A", &sign_for(&removed, "A"), 0),
        Err(DeskError::Verification { source: AssertionError::UnknownPasskey { .. }, .. })
    ));
    assert!(answer.try_recv().is_err());
    desk.sign("A", &sign_for(&enrolled, "A"), 0).unwrap();
    assert!(answer.try_recv().unwrap().approved());
}

#[test]
fn a_counter_that_cannot_be_stored_denies() {
    let token = Token::new("key");
    let desk = desk(vec![token.passkey.clone()])
        .with_counters(Box::new(Recorder(Arc::new(Mutex::new(Vec::new())), false)));
    let mut answer = desk.ask(judged("A"), 0, DEADLINE).unwrap();
    desk.show("A", 0).unwrap();
    assert!(matches!(desk.sign("A", &counted(&token, "A", 7), 0), Err(DeskError::Counter { .. })));
    assert!(!answer.try_recv().unwrap().approved());
}

#[test]
fn of_many_answers_at_once_the_first_counts() {
    let token = Token::new("key");
    for round in 0..20 {
        let desk = desk(vec![token.passkey.clone()]);
        let mut answer = desk.ask(judged("A"), 0, DEADLINE).unwrap();
        desk.show("A", 0).unwrap();
        let assertion = sign_for(&token, "A");
        let start = Barrier::new(4);
        let results: Vec<bool> = thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|n| {
                    let (desk, assertion, start) = (&desk, &assertion, &start);
                    scope.spawn(move || {
                        start.wait();
                        let result = if (n + round) % 2 == 0 {
                            desk.sign("A", assertion, 0)
                        } else {
                            desk.deny("A", "bob", "", 0)
                        };
                        match result {
                            Ok(()) => true,
                            Err(DeskError::AlreadyDecided { .. }) => false,
                            Err(other) => panic!("{other:?}"),
                        }
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(results.iter().filter(|first| **first).count(), 1);
        let winner = (results.iter().position(|first| *first).unwrap() + round) % 2 == 0;
        assert_eq!(answer.try_recv().unwrap().approved(), winner);
    }
}
