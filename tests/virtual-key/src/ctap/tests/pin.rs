use ciborium::Value;

use super::platform::{
    Assertion, Data, HASH, Platform, RP, authorized, bytes, getting, key, last, list, making, options,
    pin_asking, pin_token, register, registered,
};
use crate::{
    builder::Version,
    ctap::{Authenticator, Status},
    fault::Fault,
};

fn set_pin(key: &Authenticator, protocol: i64, pin: &str) -> Result<(), Status> {
    let platform = Platform::agree(key, protocol);
    let new_pin = platform.new_pin_enc(pin);
    let asking = pin_asking(protocol, 3).with(3, platform.public()).with(5, bytes(&new_pin));
    asking.with(4, bytes(&platform.authenticate_shared(&new_pin))).of(key, 6).map(drop)
}

fn change_pin(key: &Authenticator, protocol: i64, old: &str, new: &str) -> Result<(), Status> {
    let platform = Platform::agree(key, protocol);
    let (new_pin, old_hash) = (platform.new_pin_enc(new), platform.pin_hash_enc(old));
    let message = [new_pin.as_slice(), old_hash.as_bytes().unwrap()].concat();
    let asking = pin_asking(protocol, 4).with(3, platform.public()).with(5, bytes(&new_pin));
    let asking = asking.with(4, bytes(&platform.authenticate_shared(&message))).with(6, old_hash);
    asking.of(key, 6).map(drop)
}

fn retries(key: &Authenticator) -> (i64, bool) {
    let answer = pin_asking(2, 1).without(1).of(key, 6).unwrap();
    (answer.number(3).unwrap().unwrap(), answer.flag(4).unwrap().unwrap_or(false))
}

fn wrong(key: &Authenticator, protocol: i64) -> Status {
    pin_token(key, protocol, "0000").map(drop).unwrap_err()
}

#[test]
fn a_pin_makes_verified_credentials_and_assertions_by_both_protocols() {
    for protocol in [1, 2] {
        let key = key(|key| key);
        set_pin(&key, protocol, "1234").unwrap();
        let asking = authorized(making(&[-7]), 1, &key, protocol, "1234");
        let credential = registered(&asking.of(&key, 1).unwrap());
        assert_eq!(credential.data.flags, 0x45);
        assert!(last(&key).pin);
        assert_eq!(last(&key).pin_protocol, Some(protocol));
        let asking = getting().with(3, list(&[&credential.id]));
        let asking = authorized(asking, 2, &key, protocol, "1234");
        let assertion = Assertion::of(&asking.of(&key, 2).unwrap());
        assert_eq!(Data::of(&assertion.raw).flags, 0x05);
        assert!(assertion.verifies(&credential));
    }
}

#[test]
fn a_pin_is_set_once_and_changed_by_who_knows_it() {
    for protocol in [1, 2] {
        let key = key(|key| key);
        assert_eq!(wrong(&key, protocol), Status::PIN_NOT_SET);
        assert_eq!(change_pin(&key, protocol, "1234", "5678"), Err(Status::PIN_NOT_SET));
        set_pin(&key, protocol, "1234").unwrap();
        assert_eq!(set_pin(&key, protocol, "5678"), Err(Status::PIN_AUTH_INVALID));
        assert_eq!(change_pin(&key, protocol, "0000", "5678"), Err(Status::PIN_INVALID));
        assert_eq!(retries(&key), (7, false));
        change_pin(&key, protocol, "1234", "5678").unwrap();
        assert_eq!(retries(&key), (8, false));
        assert_eq!(pin_token(&key, protocol, "1234").err(), Some(Status::PIN_INVALID));
        assert!(pin_token(&key, protocol, "5678").is_ok());
    }
}

#[test]
fn a_pin_has_four_characters_and_fits() {
    for pin in ["", "123", "äöü", &"1".repeat(64)] {
        let key = key(|key| key);
        assert_eq!(set_pin(&key, 2, pin), Err(Status::PIN_POLICY_VIOLATION), "{pin}");
        assert!(!key.store().has_pin());
    }
    for pin in ["1234", "äöüß", &"1".repeat(63)] {
        let key = key(|key| key);
        set_pin(&key, 2, pin).unwrap();
        assert!(pin_token(&key, 2, pin).is_ok());
    }
}

#[test]
fn wrong_pins_block_until_it_is_plugged_in_anew_and_then_for_good() {
    for protocol in [1, 2] {
        let key = key(|key| key.pin("1234"));
        assert_eq!(retries(&key), (8, false));
        // Three in a row, a power cycle; three, a power cycle; the last two.
        for (left, status) in
            [(7, Status::PIN_INVALID), (6, Status::PIN_INVALID), (5, Status::PIN_AUTH_BLOCKED)]
        {
            assert_eq!(wrong(&key, protocol), status);
            assert_eq!(retries(&key), (left, left == 5));
        }
        // The right one does not help, and nothing is counted.
        assert_eq!(pin_token(&key, protocol, "1234").err(), Some(Status::PIN_AUTH_BLOCKED));
        assert_eq!(change_pin(&key, protocol, "1234", "5678"), Err(Status::PIN_AUTH_BLOCKED));
        assert_eq!(retries(&key), (5, true));
        key.store().power_cycle();
        assert_eq!(retries(&key), (5, false));
        for (left, status) in
            [(4, Status::PIN_INVALID), (3, Status::PIN_INVALID), (2, Status::PIN_AUTH_BLOCKED)]
        {
            assert_eq!(wrong(&key, protocol), status);
            assert_eq!(retries(&key).0, left);
        }
        key.store().power_cycle();
        assert_eq!(wrong(&key, protocol), Status::PIN_INVALID);
        assert_eq!(wrong(&key, protocol), Status::PIN_BLOCKED);
        key.store().power_cycle();
        assert_eq!(pin_token(&key, protocol, "1234").err(), Some(Status::PIN_BLOCKED));
        assert_eq!(retries(&key), (0, false));
    }
}

#[test]
fn the_right_pin_begins_to_count_anew() {
    let key = key(|key| key.pin("1234"));
    for _ in 0..5 {
        assert_eq!(wrong(&key, 2), Status::PIN_INVALID);
        assert_eq!(wrong(&key, 1), Status::PIN_INVALID);
        assert_eq!(retries(&key).0, 6);
        pin_token(&key, 2, "1234").unwrap();
        assert_eq!(retries(&key).0, 8);
    }
}

#[test]
fn after_a_wrong_pin_the_key_agreement_key_is_another() {
    let key = key(|key| key.pin("1234"));
    let platform = Platform::agree(&key, 2);
    let asking = |pin: &str| pin_asking(2, 5).with(6, platform.pin_hash_enc(pin));
    assert!(platform.token(&key, asking("0000")).is_err());
    assert_eq!(platform.token(&key, asking("1234")), Err(Status::PIN_INVALID));
}

#[test]
fn without_the_pin_only_what_the_key_allows() {
    let lenient = key(|key| key.pin("1234"));
    let strict = key(|key| key.pin("1234").make_cred_uv_not_required(false));
    assert_eq!(register(&lenient, -8).data.flags, 0x41);
    assert_eq!(making(&[-8]).of(&strict, 1).err(), Some(Status::PUAT_REQUIRED));
    let resident = making(&[-8]).with(7, options(&[("rk", true)]));
    for key in [&lenient, &strict] {
        assert_eq!(resident.clone().of(key, 1).err(), Some(Status::PUAT_REQUIRED));
        let asking = authorized(resident.clone(), 1, key, 2, "1234");
        let credential = registered(&asking.of(key, 1).unwrap());
        let assertion = Assertion::of(&getting().with(3, list(&[&credential.id])).of(key, 2).unwrap());
        assert_eq!(Data::of(&assertion.raw).flags, 0x01);
    }
}

#[test]
fn a_wrong_param_is_refused() {
    let key = key(|key| key.pin("1234"));
    let credential = register(&key, -8);
    let asking = getting().with(3, list(&[&credential.id]));
    let refused = |asking: &super::platform::Asking, status| {
        assert_eq!(asking.clone().of(&key, 2).err(), Some(status));
    };
    refused(&asking.clone().with(6, bytes(&[1; 32])).with(7, 2), Status::PIN_AUTH_INVALID);
    let right = authorized(asking, 2, &key, 2, "1234");
    refused(&right.clone().with(2, bytes(&[1; 32])), Status::PIN_AUTH_INVALID);
    refused(&right.clone().with(7, 1), Status::PIN_AUTH_INVALID);
    refused(&right.clone().with(7, 3), Status::INVALID_PARAMETER);
    refused(&right.clone().without(7), Status::MISSING_PARAMETER);
    refused(&right.clone().with(6, Value::from("text")), Status::CBOR_UNEXPECTED_TYPE);
    assert!(right.of(&key, 2).is_ok());
    let unset = super::platform::key(|key| key);
    let asking = making(&[-8]).with(8, bytes(&[1; 32])).with(9, 2);
    assert_eq!(asking.of(&unset, 1).err(), Some(Status::PIN_NOT_SET));
}

#[test]
fn a_token_of_ctap_2_1_is_for_one_touch_and_one_of_ctap_2_0_for_many() {
    let newer = key(|key| key.pin("1234"));
    let older = key(|key| key.pin("1234").version(Version::Ctap20));
    for (key, protocol, again) in [(&newer, 2, Err(Status::PIN_AUTH_INVALID)), (&older, 1, Ok(()))] {
        let asking = authorized(making(&[-8]), 1, key, protocol, "1234");
        assert!(asking.clone().of(key, 1).is_ok());
        assert_eq!(asking.of(key, 1).map(drop), again);
    }
}

#[test]
fn permissions_are_for_one_command_and_one_relying_party() {
    let key = key(|key| key.pin("1234"));
    let platform = Platform::agree(&key, 2);
    let asking =
        |permissions: i64| pin_asking(2, 9).with(6, platform.pin_hash_enc("1234")).with(9, permissions);
    let refused = |asking, status| assert_eq!(platform.token(&key, asking), Err(status));
    refused(asking(0), Status::INVALID_PARAMETER);
    refused(asking(1), Status::INVALID_PARAMETER);
    refused(asking(4).with(10, RP), Status::UNAUTHORIZED_PERMISSION);
    refused(asking(1).without(9), Status::MISSING_PARAMETER);
    let token = platform.token(&key, asking(1).with(10, RP)).unwrap();
    assert_eq!(last(&key).rp.as_deref(), Some(RP));
    let param = bytes(&platform.authenticate(&token, &HASH));
    let made = making(&[-8]).with(8, param.clone()).with(9, 2);
    let other = made.clone().with(2, crate::ctap::cbor::map([("id", "other.example")]));
    assert_eq!(other.of(&key, 1).err(), Some(Status::PIN_AUTH_INVALID));
    assert_eq!(getting().with(6, param).with(7, 2).of(&key, 2).err(), Some(Status::PIN_AUTH_INVALID));
    assert!(made.of(&key, 1).is_ok());
    // getPinToken has none of that.
    let old = pin_asking(2, 5).with(6, platform.pin_hash_enc("1234")).with(9, 1);
    refused(old, Status::INVALID_PARAMETER);
}

#[test]
fn a_finger_gets_a_token_too() {
    let key = key(|key| key.without_client_pin().uv(true));
    let platform = Platform::agree(&key, 2);
    let token = platform.token(&key, pin_asking(2, 6).with(9, 1).with(10, RP)).unwrap();
    let asking = making(&[-8]).with(8, bytes(&platform.authenticate(&token, &HASH))).with(9, 2);
    assert_eq!(registered(&asking.of(&key, 1).unwrap()).data.flags, 0x45);
    assert_eq!(pin_asking(2, 7).of(&key, 6).unwrap().number(5), Ok(Some(3)));
    assert_eq!(pin_asking(2, 5).of(&key, 6).err(), Some(Status::INVALID_SUBCOMMAND));
}

#[test]
fn a_wrong_token_helps_nobody() {
    let key = key(|key| key.pin("1234"));
    key.live.misbehave(Fault::WrongPinToken.into());
    let asking = authorized(making(&[-8]), 1, &key, 2, "1234");
    assert_eq!(asking.of(&key, 1).err(), Some(Status::PIN_AUTH_INVALID));
}

#[test]
fn malformed_requests_are_refused_and_cost_no_retry() {
    let key = key(|key| key.pin("1234"));
    let platform = Platform::agree(&key, 2);
    let asking = pin_asking(2, 5).with(6, platform.pin_hash_enc("1234"));
    let refused =
        |asking: super::platform::Asking, status| assert_eq!(asking.of(&key, 6).err(), Some(status));
    refused(asking.clone(), Status::MISSING_PARAMETER);
    refused(asking.clone().without(6).with(3, platform.public()), Status::MISSING_PARAMETER);
    let off_curve = crate::ctap::cbor::map([(-2, bytes(&[1; 32])), (-3, bytes(&[1; 32]))]);
    refused(asking.with(3, off_curve), Status::INVALID_PARAMETER);
    refused(pin_asking(2, 99), Status::INVALID_SUBCOMMAND);
    refused(pin_asking(3, 2), Status::INVALID_PARAMETER);
    assert_eq!(retries(&key), (8, false));
}
