use proptest::prelude::*;

use super::{
    super::{
        assertion::{Expected, verify},
        passkeys::Passkey,
        samples::*,
    },
    *,
};

const DEADLINE: u64 = 100;

fn challenge(id: &str) -> [u8; 32] {
    operation(id).challenge().unwrap()
}

fn question() -> Approval {
    Approval::ask(judged("A"), challenge("A"), DEADLINE)
}

fn verified(token: &Token, id: &str) -> Box<Verified> {
    let offered: &[Passkey] = std::slice::from_ref(&token.passkey);
    let expected = Expected {
        challenge: challenge(id),
        origin: RP_ID,
        rp_id: RP_ID,
        verify: crate::operation::Verify::Presence,
        offered,
    };
    Box::new(verify(&token.sign(&challenge(id)), &expected).unwrap())
}

fn decided(state: Approval) -> Decided {
    let Approval::Decided(decided) = state else { panic!("{state:?}") };
    *decided
}

#[test]
fn the_way_to_an_approval() {
    let token = Token::new("key");
    let (state, outcome) = question().handle(Input::Show, 1);
    assert_eq!(outcome, Ok(()));
    let (state, outcome) = state.handle(Input::Sign(verified(&token, "A")), 2);
    assert_eq!(outcome, Ok(()));
    assert!(matches!(state, Approval::Signed(..)));
    let (state, outcome) = state.handle(Input::Settle, 3);
    assert_eq!(outcome, Ok(()));
    assert!(decided(state).approved());
}

#[test]
fn no_step_can_be_skipped() {
    let token = Token::new("key");
    let (state, outcome) = question().handle(Input::Sign(verified(&token, "A")), 1);
    assert_eq!(outcome, Err(InputError::NotShown));
    let (state, outcome) = state.handle(Input::Settle, 1);
    assert_eq!(outcome, Err(InputError::NotSigned));
    let (state, _) = state.handle(Input::Show, 1);
    let (state, outcome) = state.handle(Input::Settle, 1);
    assert_eq!(outcome, Err(InputError::NotSigned));
    let (state, outcome) = state.handle(Input::Sign(verified(&token, "B")), 1);
    assert_eq!(outcome, Err(InputError::OtherChallenge));
    assert!(matches!(state, Approval::Shown(_)));
}

#[test]
fn a_signature_that_settles_too_late_is_no_approval() {
    let token = Token::new("key");
    let (state, _) = question().handle(Input::Show, 1);
    let (state, _) = state.handle(Input::Sign(verified(&token, "A")), DEADLINE - 1);
    let (state, outcome) = state.handle(Input::Settle, DEADLINE);
    assert_eq!(outcome, Err(InputError::Expired));
    assert!(matches!(decided(state).reason(), Reason::TimedOut { seconds: 120 }));
}

#[test]
fn a_no_before_the_signature_settles_counts() {
    let token = Token::new("key");
    let (state, _) = question().handle(Input::Show, 1);
    let (state, _) = state.handle(Input::Sign(verified(&token, "A")), 1);
    let (state, outcome) = state.handle(Input::Deny { by: "bob".to_owned(), reason: String::new() }, 1);
    assert_eq!(outcome, Ok(()));
    assert!(!decided(state).approved());
}

/// What a test feeds; `Input` is not `Clone`, since a `Verified` is used up.
#[derive(Clone, Copy, Debug)]
enum Feed {
    Show,
    SignThis,
    SignOther,
    Settle,
    Deny,
    Withdraw,
    Tick,
}

fn feeds() -> impl Strategy<Value = Vec<(Feed, u64)>> {
    let feed = prop_oneof![
        4 => Just(Feed::Show), 4 => Just(Feed::SignThis), 2 => Just(Feed::SignOther), 4 => Just(Feed::Settle),
        1 => Just(Feed::Deny), 1 => Just(Feed::Withdraw), 3 => Just(Feed::Tick),
    ];
    prop::collection::vec((feed, 0u64..40), 0..16)
}

proptest! {
    /// Whatever happens in whatever order: an approval has seen Show, then a signature over this operation, then
    /// Settle, all before the deadline and with no refusal between; and there is one decision, which stays.
    #[test]
    fn nothing_but_a_signature_in_time_approves(feeds in feeds()) {
        let token = Token::new("key");
        let (this, other) = (verified(&token, "A"), verified(&token, "B"));
        let (mut state, mut now) = (question(), 0);
        let (mut shown, mut signed) = (false, false);
        let mut verdict: Option<bool> = None;
        for (feed, step) in feeds {
            now += step;
            let input = match feed {
                Feed::Show => Input::Show,
                Feed::SignThis => Input::Sign(this.clone()),
                Feed::SignOther => Input::Sign(other.clone()),
                Feed::Settle => Input::Settle,
                Feed::Deny => Input::Deny { by: "bob".to_owned(), reason: String::new() },
                Feed::Withdraw => Input::Withdraw,
                Feed::Tick => Input::Tick,
            };
            let (next, outcome) = state.handle(input, now);
            state = next;
            if let Some(before) = verdict {
                prop_assert_eq!(outcome, Err(InputError::AlreadyDecided));
                let Approval::Decided(decided) = &state else { return Err(TestCaseError::fail("undecided again")) };
                prop_assert_eq!(decided.approved(), before);
                continue;
            }
            let in_time = now < DEADLINE;
            let expected = match feed {
                _ if !in_time => Some(false),
                Feed::Deny | Feed::Withdraw => Some(false),
                Feed::Settle if signed => Some(true),
                Feed::Show | Feed::SignThis | Feed::SignOther | Feed::Settle | Feed::Tick => None,
            };
            match &state {
                Approval::Decided(decided) => {
                    prop_assert_eq!(Some(decided.approved()), expected);
                    verdict = Some(decided.approved());
                }
                Approval::Asked(_) | Approval::Shown(_) | Approval::Signed(..) => prop_assert_eq!(expected, None),
            }
            shown |= matches!(feed, Feed::Show);
            signed |= matches!(feed, Feed::SignThis) && shown;
        }
        // Time alone ends it.
        let (state, _) = state.handle(Input::Tick, DEADLINE);
        prop_assert_eq!(decided(state).approved(), verdict.unwrap_or(false));
    }
}
