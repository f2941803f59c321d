//! One question for operations that are alike; less and less often a question for whoever keeps asking.

use super::{super::samples::*, *};

const DEADLINE: u64 = 600 * SECOND;

fn desk(token: &Token) -> Desk {
    Desk::new(16, list(vec![token.passkey.clone()]), true)
}

/// The operation `id`, one of those that are like every other one of `kind`.
fn alike(id: &str, kind: &str) -> Judged {
    let judged = judged(id);
    Judged { alike: Likeness::of(kind, &judged.operation.kind), ..judged }
}

fn ask(desk: &Desk, id: &str, kind: &str, now_ns: u64) -> oneshot::Receiver<Decided> {
    desk.ask(alike(id, kind), now_ns, now_ns + DEADLINE).unwrap()
}

fn questions(desk: &Desk) -> Vec<(String, usize)> {
    desk.pending().into_iter().map(|waiting| (waiting.operation.id.clone(), waiting.more)).collect()
}

fn approve(desk: &Desk, token: &Token, id: &str, now_ns: u64) -> Result<(), DeskError> {
    desk.show(id, now_ns)?;
    desk.sign(id, &token.sign(&operation(id).challenge().unwrap()), now_ns)
}

#[test]
fn alike_they_are_one_question_and_a_signature_frees_one() {
    let token = Token::new("key");
    let desk = desk(&token);
    // Ids do not order them: within a millisecond they are random.
    let mut answers: Vec<_> = ["C", "A", "B"].map(|id| ask(&desk, id, "push", 0)).into();
    let mut other = ask(&desk, "0", "fetch", 0);
    assert_eq!(questions(&desk), [("C".into(), 2), ("0".into(), 0)]);
    assert_eq!(desk.waiting(), 4);
    approve(&desk, &token, "C", 1).unwrap();
    assert!(answers[0].try_recv().unwrap().approved());
    assert!(answers[1].try_recv().is_err() && answers[2].try_recv().is_err(), "one signature freed two");
    assert_eq!(questions(&desk), [("A".into(), 1), ("0".into(), 0)]);
    // The same assertion does not free the next one.
    desk.show("A", 1).unwrap();
    let again = desk.sign("A", &token.sign(&operation("C").challenge().unwrap()), 1);
    assert!(matches!(again, Err(DeskError::Verification { source: AssertionError::Challenge, .. })));
    approve(&desk, &token, "A", 1).unwrap();
    assert!(answers[1].try_recv().unwrap().approved());
    assert!(answers[2].try_recv().is_err() && other.try_recv().is_err());
}

#[test]
fn a_denial_is_for_all_that_are_alike_and_for_no_other() {
    let token = Token::new("key");
    let desk = desk(&token);
    let mut answers: Vec<_> = ["A", "B", "C"].map(|id| ask(&desk, id, "push", 0)).into();
    let mut other = ask(&desk, "D", "fetch", 0);
    let mut alone = desk.ask(judged("E"), 0, DEADLINE).unwrap();
    desk.deny("B", "bob", "no", 1).unwrap();
    for answer in &mut answers {
        assert_eq!(answer.try_recv().unwrap().reason().to_string(), "refused by bob: no");
    }
    assert!(other.try_recv().is_err() && alone.try_recv().is_err());
    assert_eq!(questions(&desk), [("D".into(), 0), ("E".into(), 0)]);
    // Those without a likeness are not like each other.
    let mut also_alone = desk.ask(judged("F"), 1, DEADLINE).unwrap();
    desk.deny("E", "bob", "", 1).unwrap();
    assert!(alone.try_recv().is_ok() && also_alone.try_recv().is_err());
}

#[test]
fn the_question_passes_on_when_its_process_ends() {
    let token = Token::new("key");
    let desk = desk(&token);
    let answers: Vec<_> = ["A", "B"].map(|id| ask(&desk, id, "push", 0)).into();
    assert!(desk.withdraw("A", 1));
    assert_eq!(questions(&desk), [("B".into(), 0)]);
    desk.expire(DEADLINE);
    assert!(questions(&desk).is_empty());
    assert!(answers.into_iter().all(|mut answer| !answer.try_recv().unwrap().approved()));
}

#[test]
fn whoever_is_denied_again_and_again_waits() {
    let token = Token::new("key");
    let desk = desk(&token);
    let _first = ask(&desk, "A", "push", 0);
    desk.deny("A", "bob", "", SECOND).unwrap();
    let _second = ask(&desk, "B", "push", 2 * SECOND);
    desk.deny("B", "bob", "", 3 * SECOND).unwrap();
    let refused = desk.ask(alike("C", "fetch"), 4 * SECOND + 1, DEADLINE).unwrap_err();
    assert!(!refused.approved());
    assert_eq!(refused.reason().to_string(), "a person denied the last 2; asking again is possible in 9 s");
    assert!(desk.pending().is_empty());
    // What a rule decides is not asked, and goes on.
    let allowed = desk.ask(judged_as(operation("R"), Action::Allow), 4 * SECOND, DEADLINE).unwrap_err();
    assert!(allowed.approved());
    assert!(desk.ask(alike("D", "push"), 13 * SECOND - 1, DEADLINE).is_err());
    let _third = ask(&desk, "E", "push", 13 * SECOND);
    approve(&desk, &token, "E", 14 * SECOND).unwrap();
    let _fourth = ask(&desk, "F", "push", 15 * SECOND);
    desk.deny("F", "bob", "", 16 * SECOND).unwrap();
    let _fifth = ask(&desk, "G", "push", 17 * SECOND);
}

#[test]
fn only_a_persons_own_words_count() {
    let token = Token::new("key");
    let desk = desk(&token);
    // Nobody is there; or the process ends; or many wait at once: none of it is a person who keeps saying no.
    for n in 0..5 {
        let _answer = desk.ask(judged(&format!("T{n}")), 0, SECOND).unwrap();
    }
    desk.expire(SECOND);
    for n in 0..5 {
        let _answer = ask(&desk, &format!("W{n}"), "push", SECOND);
        assert!(desk.withdraw(&format!("W{n}"), SECOND));
    }
    let waiting: Vec<_> =
        (0..5).map(|n| ask(&desk, &format!("M{n}"), &format!("kind {n}"), SECOND)).collect();
    for n in 0..waiting.len() {
        desk.deny(&format!("M{n}"), "bob", "", (2 + n as u64) * SECOND).unwrap();
    }
    let _asked = ask(&desk, "Z", "push", 10 * SECOND);
}

#[test]
fn an_approval_that_does_not_count_opens_nothing() {
    let token = Token::new("key");
    let desk = desk(&token);
    let _waits = ask(&desk, "W", "push", 0);
    for (n, id) in ["A", "B"].into_iter().enumerate() {
        let now = n as u64 * SECOND;
        let _answer = ask(&desk, id, "fetch", now);
        desk.deny(id, "bob", "", now).unwrap();
    }
    desk.show("W", SECOND).unwrap();
    assert!(desk.sign("W", &token.sign(&[7; 32]), SECOND).is_err());
    assert!(desk.ask(alike("C", "fetch"), SECOND, DEADLINE).is_err(), "a bad signature opened the desk");
    approve(&desk, &token, "W", SECOND).unwrap();
    let _asked = ask(&desk, "D", "fetch", SECOND);
}
