use std::{sync::Arc, thread, time::Duration};

use super::platform::{Assertion, Data, assert, bytes, getting, key, last, list, making, options, register};
use crate::{
    builder::Builder,
    ctap::{Authenticator, Status},
    person::{Hand, Person},
};

const LONG: Duration = Duration::from_secs(60);

fn presence(key: &Authenticator) -> [Result<(), Status>; 3] {
    let made = making(&[-8]).of(key, 1).map(drop);
    let id = key.store().credentials[0].id.clone();
    let got = getting().with(3, list(&[&id])).of(key, 2).map(drop);
    let selected = super::platform::ask_bytes(key, 0x0b, &[]).map(drop);
    [made, got, selected]
}

#[test]
fn everything_that_wants_a_touch_tells_how_it_went() {
    let key = key(|key| key);
    register(&key, -8);
    let persons = [
        (Person::Touches, Ok(())),
        (Person::TouchesAfter(Duration::from_millis(1)), Ok(())),
        (Person::Denies, Err(Status::OPERATION_DENIED)),
        (Person::Never(Some(Duration::from_millis(1))), Err(Status::USER_ACTION_TIMEOUT)),
    ];
    for (person, result) in persons {
        key.live.set_person(person);
        assert_eq!(presence(&key), [result; 3], "{person:?}");
    }
}

#[test]
fn what_is_refused_signs_and_counts_nothing() {
    let key = key(|key| key);
    register(&key, -8);
    key.live.set_person(Person::Denies);
    assert!(presence(&key).iter().all(Result::is_err));
    let store = key.store();
    assert_eq!((store.counter, store.credentials.len()), (1, 1));
}

/// Asks in another thread; answers when the key blinks.
fn blinking(key: &Arc<Authenticator>, act: impl FnOnce(&Authenticator)) -> Result<(), Status> {
    key.live.set_person(Person::ByHand);
    let asked = Arc::clone(key);
    let asking = thread::spawn(move || super::platform::ask_bytes(&asked, 0x0b, &[]).map(drop));
    assert!(key.live.until(LONG, |blinking, _| blinking));
    act(key);
    asking.join().unwrap()
}

#[test]
fn a_hand_and_a_cancel_answer() {
    let key = Arc::new(key(|key| key));
    assert_eq!(blinking(&key, |key| key.live.hand(Hand::Touch)), Ok(()));
    assert_eq!(blinking(&key, |key| key.live.hand(Hand::Deny)), Err(Status::OPERATION_DENIED));
    assert_eq!(blinking(&key, |key| key.live.cancel()), Err(Status::KEEPALIVE_CANCEL));
    assert!(last(&key).cancelled);
}

#[test]
fn retries_and_counter_can_be_looked_at_while_it_blinks() {
    let key = Arc::new(key(|key| key.counter_from(5)));
    let looked = blinking(&key, |key| {
        let store = key.store();
        assert_eq!((store.pin_retries, store.counter), (8, 5));
        drop(store);
        key.live.hand(Hand::Touch);
    });
    assert_eq!(looked, Ok(()));
}

#[test]
fn an_excluded_credential_is_told_of_whatever_the_person_does_but_not_before() {
    let key = Arc::new(key(|key| key));
    let credential = register(&key, -8);
    for (hand, status) in
        [(Hand::Touch, Status::CREDENTIAL_EXCLUDED), (Hand::Deny, Status::CREDENTIAL_EXCLUDED)]
    {
        key.live.set_person(Person::ByHand);
        let (asked, id) = (Arc::clone(&key), credential.id.clone());
        let asking = thread::spawn(move || making(&[-8]).with(5, list(&[&id])).of(&asked, 1).map(drop));
        assert!(key.live.until(LONG, |blinking, _| blinking));
        assert_eq!(last(&key).status, None);
        key.live.hand(hand);
        assert_eq!(asking.join().unwrap(), Err(status));
    }
}

#[test]
fn an_empty_pin_param_lets_the_person_choose_the_key() {
    for (build, status) in [
        ((|key| key.pin("1234")) as fn(Builder) -> Builder, Status::PIN_INVALID),
        (|key| key, Status::PIN_NOT_SET),
    ] {
        let key = key(build);
        let made = making(&[-7]).with(8, bytes(&[])).with(9, 1);
        assert_eq!(made.clone().of(&key, 1).err(), Some(status));
        let got = getting().with(6, bytes(&[])).with(7, 1);
        assert_eq!(got.of(&key, 2).err(), Some(status));
        // It takes a touch.
        key.live.set_person(Person::Denies);
        assert_eq!(made.of(&key, 1).err(), Some(Status::OPERATION_DENIED));
    }
}

#[test]
fn built_in_verification_sets_the_flag() {
    let key = key(|key| key.uv(true));
    let asking = making(&[-8]).with(7, options(&[("uv", true)]));
    let credential = super::platform::registered(&asking.of(&key, 1).unwrap());
    assert_eq!(credential.data.flags, 0x45);
    assert!(last(&key).uv);
    let asking = getting().with(3, list(&[&credential.id])).with(5, options(&[("uv", true)]));
    let assertion = Assertion::of(&asking.of(&key, 2).unwrap());
    assert_eq!(Data::of(&assertion.raw).flags, 0x05);
    assert!(assertion.verifies(&credential));
    assert_eq!(Data::of(&assert(&key, &credential).raw).flags, 0x01);
}

#[test]
fn who_cannot_verify_says_so() {
    let key = key(|key| key);
    let asking = making(&[-8]).with(7, options(&[("uv", true)]));
    assert_eq!(asking.of(&key, 1).err(), Some(Status::INVALID_OPTION));
    let asking = getting().with(5, options(&[("uv", true)]));
    assert_eq!(asking.of(&key, 2).err(), Some(Status::INVALID_OPTION));
    let asking = getting().with(5, options(&[("rk", true)]));
    assert_eq!(asking.of(&key, 2).err(), Some(Status::UNSUPPORTED_OPTION));
}

#[test]
fn a_key_that_always_verifies_does() {
    let finger = key(|key| key.uv(true).always_uv(true));
    let credential = register(&finger, -8);
    assert_eq!(credential.data.flags, 0x45);
    assert_eq!(Data::of(&assert(&finger, &credential).raw).flags, 0x05);
    let pin = key(|key| key.pin("1234").always_uv(true));
    assert_eq!(making(&[-8]).of(&pin, 1).err(), Some(Status::PUAT_REQUIRED));
    assert_eq!(getting().of(&pin, 2).err(), Some(Status::PUAT_REQUIRED));
    // A preflight needs none.
    let preflight = getting().with(5, options(&[("up", false)]));
    assert_eq!(preflight.of(&pin, 2).err(), Some(Status::NO_CREDENTIALS));
}
