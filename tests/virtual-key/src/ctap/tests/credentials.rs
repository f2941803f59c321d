use ciborium::Value;

use super::platform::{
    Asking, Assertion, Data, HASH, RP, Registered, assert, authorized, bytes, getting, key, last, list,
    making, options, register, registered, rp_id_hash, verifies,
};
use crate::{
    algorithm::Algorithm,
    builder::{Attestation, Backup, Builder},
    ctap::{Authenticator, Status, cbor},
    seen::Command,
};

#[test]
fn a_credential_of_each_algorithm_signs() {
    for algorithm in [-7, -8] {
        let key = key(|key| key.counter_from(7));
        let credential = register(&key, algorithm);
        let data = Data { rp_id_hash: rp_id_hash(), flags: 0x41, counter: 8 };
        assert_eq!(credential.data, data);
        assert_eq!(credential.aaguid, b"ana-virtual-key\0");
        for counter in 9..12 {
            let assertion = assert(&key, &credential);
            assert!(assertion.verifies(&credential), "{algorithm}");
            assert_eq!(assertion.raw.len(), 37);
            assert_eq!(Data::of(&assertion.raw), Data { rp_id_hash: rp_id_hash(), flags: 0x01, counter });
            assert_eq!(assertion.id.as_ref(), Some(&credential.id));
        }
        assert_eq!(key.store().counter, 11);
    }
}

#[test]
fn attestation_is_signed_by_the_credential_or_not_at_all() {
    for algorithm in [-7, -8] {
        let packed = register(&key(|key| key), algorithm);
        assert_eq!(packed.format, "packed");
        assert_eq!(packed.statement.number("alg"), Ok(Some(algorithm)));
        let signature = packed.statement.bytes("sig").unwrap().unwrap();
        assert!(verifies(&packed.cose, &[packed.raw.as_slice(), &HASH].concat(), &signature));
        let none = register(&key(|key| key.attestation(Attestation::None)), algorithm);
        assert_eq!(none.format, "none");
        assert_eq!(none.statement.names(), [""; 0]);
    }
}

#[test]
fn the_first_algorithm_that_the_key_has_is_taken() {
    let both = key(|key| key);
    assert_eq!(registered(&making(&[-257, -8, -7]).of(&both, 1).unwrap()).cose[..4], [0xa4, 1, 1, 3]);
    assert_eq!(last(&both).algorithms, [-257, -8, -7]);
    let ed = key(|key| key.algorithms(&[Algorithm::EdDsa]));
    assert_eq!(making(&[-257, -7]).of(&ed, 1).err(), Some(Status::UNSUPPORTED_ALGORITHM));
    assert_eq!(making(&[-7, -8]).of(&ed, 1).map(|answer| registered(&answer).cose[4]), Ok(0x27));
}

#[test]
fn backup_flags_and_counters_are_as_built() {
    for (backup, flags) in [(Backup::No, 0x01), (Backup::Eligible, 0x09), (Backup::State, 0x19)] {
        let key = key(|key| key.backup(backup).no_counter());
        let credential = register(&key, -8);
        assert_eq!(credential.data.flags, flags | 0x40);
        let data = Data::of(&assert(&key, &credential).raw);
        assert_eq!((data.flags, data.counter), (flags, 0));
    }
}

#[test]
fn a_counter_set_lower_goes_on_from_there() {
    let key = key(|key| key.counter_from(100));
    let credential = register(&key, -8);
    key.store().counter = 3;
    assert_eq!(Data::of(&assert(&key, &credential).raw).counter, 4);
}

#[test]
fn credentials_are_found_by_relying_party_and_id() {
    let key = key(|key| key);
    let credential = register(&key, -7);
    let none = |asking: Asking| assert_eq!(asking.of(&key, 2).err(), Some(Status::NO_CREDENTIALS));
    none(getting().with(1, "other.example").with(3, list(&[&credential.id])));
    none(getting().with(3, list(&[b"unknown"])));
    // Not discoverable.
    none(getting());
    let several = getting().with(3, list(&[b"unknown", &credential.id]));
    assert!(Assertion::of(&several.of(&key, 2).unwrap()).verifies(&credential));
    assert_eq!(last(&key).allow_list, 2);
    let other_type =
        Value::Array(vec![cbor::map([("id", bytes(&credential.id)), ("type", Value::from("other"))])]);
    none(getting().with(3, other_type));
}

#[test]
fn a_preflight_neither_blinks_nor_says_present() {
    let key = key(|key| key);
    let credential = register(&key, -7);
    // Would be refused, if anybody asked.
    key.live.set_person(crate::Person::Denies);
    let asking = getting().with(3, list(&[&credential.id])).with(5, options(&[("up", false)]));
    let assertion = Assertion::of(&asking.of(&key, 2).unwrap());
    assert!(assertion.verifies(&credential));
    assert_eq!(Data::of(&assertion.raw).flags, 0);
    assert!(!last(&key).up);
    let unknown = getting().with(3, list(&[b"unknown"])).with(5, options(&[("up", false)]));
    assert_eq!(unknown.of(&key, 2).err(), Some(Status::NO_CREDENTIALS));
    // Only for assertions.
    let making = making(&[-7]).with(7, options(&[("up", false)]));
    assert_eq!(making.of(&key, 1).err(), Some(Status::INVALID_OPTION));
}

#[test]
fn an_excluded_credential_is_told_of_after_a_touch() {
    let key = key(|key| key);
    let credential = register(&key, -7);
    let excluding = making(&[-7]).with(5, list(&[b"unknown", &credential.id]));
    assert_eq!(excluding.clone().of(&key, 1).err(), Some(Status::CREDENTIAL_EXCLUDED));
    assert_eq!(last(&key).exclude_list, 2);
    // It is another relying party's, or none of ours.
    let other = excluding.with(2, cbor::map([("id", "other.example")]));
    assert!(other.of(&key, 1).is_ok());
    assert!(making(&[-7]).with(5, list(&[b"unknown"])).of(&key, 1).is_ok());
}

fn resident(key: &Authenticator, user: &str) -> Registered {
    let user = cbor::map([("id", bytes(user.as_bytes())), ("name", Value::from(user))]);
    let asking = making(&[-8]).with(3, user).with(7, options(&[("rk", true)]));
    let asking = if key.store().has_pin() { authorized(asking, 1, key, 2, "1234") } else { asking };
    registered(&asking.of(key, 1).unwrap())
}

#[test]
fn discoverable_credentials_come_one_after_the_other_the_newest_first() {
    let key = key(|key| key);
    let credentials = ["one", "two", "three"].map(|user| resident(&key, user));
    let first = getting().of(&key, 2).unwrap();
    assert_eq!(Assertion::of(&first).number, Some(3));
    let user = first.map(4).unwrap().unwrap();
    assert_eq!(user.names(), ["id"]);
    assert_eq!(user.bytes("id"), Ok(Some(b"three".to_vec())));
    assert!(Assertion::of(&first).verifies(&credentials[2]));
    for credential in credentials[..2].iter().rev() {
        let next = super::platform::ask(&key, 8, &cbor::map([(1, 1); 0])).unwrap();
        assert!(Assertion::of(&next).verifies(credential));
        assert_eq!(Assertion::of(&next).number, None);
    }
    assert_eq!(super::platform::ask_bytes(&key, 8, &[]), Err(Status::NOT_ALLOWED));
    // The same user again takes the old one's place.
    let newer = resident(&key, "two");
    let again = Assertion::of(&getting().of(&key, 2).unwrap());
    assert_eq!(again.number, Some(3));
    assert!(again.verifies(&newer));
    assert!(!key.store().credentials.iter().any(|credential| credential.id == credentials[1].id));
}

#[test]
fn the_next_assertion_comes_after_an_assertion_only() {
    let key = key(|key| key);
    assert_eq!(super::platform::ask_bytes(&key, 8, &[]), Err(Status::NOT_ALLOWED));
    for user in ["one", "two"] {
        resident(&key, user);
    }
    getting().of(&key, 2).unwrap();
    super::platform::ask_bytes(&key, 0x0b, &[]).unwrap();
    assert_eq!(super::platform::ask_bytes(&key, 8, &[]), Err(Status::NOT_ALLOWED));
}

#[test]
fn cred_protect_hides_credentials_from_who_is_not_verified() {
    let protected = |build: fn(Builder) -> Builder, level: i64| {
        let key = key(|key| build(key.pin("1234")));
        let asking = making(&[-8]).with(6, cbor::map([("credProtect", level)]));
        let asking = asking.with(7, options(&[("rk", true)]));
        let asking = authorized(asking, 1, &key, 2, "1234");
        let credential = registered(&asking.of(&key, 1).unwrap());
        assert_eq!(last(&key).extensions, ["credProtect"]);
        (key, credential)
    };
    // Level, found without a list, found with a list.
    for (level, discovered, listed) in [(1, true, true), (2, false, true), (3, false, false)] {
        let (key, credential) = protected(|key| key, level);
        assert_eq!(credential.data.flags, 0xc5);
        assert_eq!(credential.extensions, Some(cbor::map([("credProtect", level)])));
        assert_eq!(getting().of(&key, 2).is_ok(), discovered, "{level}");
        let with_list = getting().with(3, list(&[&credential.id]));
        assert_eq!(with_list.clone().of(&key, 2).is_ok(), listed, "{level}");
        let with_pin = authorized(with_list, 2, &key, 2, "1234").of(&key, 2).unwrap();
        assert!(Assertion::of(&with_pin).verifies(&credential));
        let excluding = making(&[-8]).with(5, list(&[&credential.id]));
        assert_eq!(excluding.of(&key, 1).is_err(), listed, "{level}");
    }
    let (_, credential) = protected(|key| key.cred_protect(false), 3);
    assert_eq!((credential.data.flags, credential.extensions), (0x45, None));
}

#[test]
fn what_was_asked_is_seen() {
    let key = key(|key| key);
    let credential = register(&key, -8);
    let asking = getting().with(3, list(&[&credential.id])).with(4, cbor::map([("hmac-secret", true)]));
    asking.with(5, options(&[("up", true)])).of(&key, 2).unwrap();
    let seen = last(&key);
    assert_eq!(seen.command, Command::GetAssertion);
    assert_eq!(seen.rp.as_deref(), Some(RP));
    assert_eq!(seen.client_data_hash, Some(HASH.to_vec()));
    assert_eq!(seen.extensions, ["hmac-secret"]);
    assert!(seen.up && !seen.uv && !seen.pin && !seen.cancelled);
    assert_eq!((seen.allow_list, seen.status), (1, Some(Status::OK)));
}
