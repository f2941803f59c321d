//! Each fault changes what it says, and nothing else.

use ciborium::Value;

use super::platform::{
    Assertion, Data, HASH, Registered, ask_bytes, getting, key, list, register, registered, rp_id_hash,
    verifies,
};
use crate::{
    ctap::{Authenticator, Status, cbor::encoded},
    fault::{Fault, Misbehaviour},
    seen::Command,
};

/// A key that misbehaves, one of its credentials, and an assertion by it.
fn asserted(fault: Fault) -> (Registered, Assertion) {
    let (key, credential) = counting();
    key.live.misbehave(fault.into());
    let assertion = super::platform::assert(&key, &credential);
    (credential, assertion)
}

fn counting() -> (Authenticator, Registered) {
    let key = key(|key| key.counter_from(40));
    let credential = register(&key, -7);
    (key, credential)
}

const RIGHT: (u8, u32) = (0x01, 42);

fn flags_and_counter(assertion: &Assertion) -> (u8, u32) {
    let data = Data::of(&assertion.raw);
    (data.flags, data.counter)
}

#[test]
fn wrong_rp() {
    let (credential, assertion) = asserted(Fault::WrongRp);
    assert_ne!(Data::of(&assertion.raw).rp_id_hash, rp_id_hash());
    assert!(assertion.verifies(&credential));
    assert_eq!(flags_and_counter(&assertion), RIGHT);
}

#[test]
fn not_present() {
    let (credential, assertion) = asserted(Fault::NotPresent);
    assert_eq!(flags_and_counter(&assertion), (0, 42));
    assert_eq!(Data::of(&assertion.raw).rp_id_hash, rp_id_hash());
    assert!(assertion.verifies(&credential));
}

#[test]
fn bad_signature() {
    let (credential, assertion) = asserted(Fault::BadSignature);
    assert!(!assertion.verifies(&credential));
    assert_eq!(flags_and_counter(&assertion), RIGHT);
    let mut repaired = assertion;
    *repaired.signature.last_mut().unwrap() ^= 1;
    assert!(repaired.verifies(&credential));
}

#[test]
fn wrong_credential_id() {
    let (credential, assertion) = asserted(Fault::WrongCredentialId);
    assert!(assertion.id.as_ref().is_some_and(|id| *id != credential.id && id.len() == credential.id.len()));
    assert!(assertion.verifies(&credential));
}

#[test]
fn counter_rollback() {
    let (credential, assertion) = asserted(Fault::CounterRollback(10));
    assert_eq!(flags_and_counter(&assertion), (0x01, 32));
    assert!(assertion.verifies(&credential));
}

#[test]
fn no_credential_member() {
    let (credential, assertion) = asserted(Fault::NoCredentialMember);
    assert_eq!(assertion.id, None);
    assert!(assertion.verifies(&credential));
}

#[test]
fn short_authenticator_data() {
    let (credential, assertion) = asserted(Fault::ShortAuthenticatorData);
    assert_eq!(assertion.raw.len(), 35);
    assert!(assertion.verifies(&credential));
}

#[test]
fn number_of_credentials() {
    for claimed in [-1, 0, 2, i64::MAX] {
        let (credential, assertion) = asserted(Fault::NumberOfCredentials(claimed));
        assert_eq!(assertion.number, Some(claimed));
        assert!(assertion.verifies(&credential));
    }
}

#[test]
fn faults_of_the_encoding() {
    let (key, credential) = counting();
    let asking = encoded(&getting().with(3, list(&[&credential.id])).value());
    let answer = |fault: Option<Fault>| {
        key.live.misbehave(fault.into());
        ask_bytes(&key, 2, &asking).unwrap()
    };
    let parsed = |bytes: &[u8]| ciborium::from_reader::<Value, _>(bytes);
    assert!(parsed(&answer(None)).is_ok());
    assert!(parsed(&answer(Some(Fault::TruncatedCbor))).is_err());
    assert!(parsed(&answer(Some(Fault::DeepNesting))).is_err());
    assert_eq!(answer(Some(Fault::RandomCbor(1))), answer(Some(Fault::RandomCbor(1))));
    assert!(parsed(&answer(Some(Fault::RandomCbor(1)))).is_ok());
    key.live.misbehave(Fault::StatusByte(0x99).into());
    assert_eq!(ask_bytes(&key, 2, &asking), Err(Status(0x99)));
    assert_eq!(ask_bytes(&key, 4, &[]), Err(Status(0x99)));
}

#[test]
fn a_fault_on_one_command_leaves_the_others_alone() {
    let (key, credential) = counting();
    key.live.misbehave(Fault::BadSignature.on(Command::MakeCredential));
    assert!(super::platform::assert(&key, &credential).verifies(&credential));
    let made = register(&key, -8);
    let signature = made.statement.bytes("sig").unwrap().unwrap();
    assert!(!verifies(&made.cose, &[made.raw.as_slice(), &HASH].concat(), &signature));
    key.live.misbehave(Misbehaviour::from(None));
    assert!(super::platform::assert(&key, &made).verifies(&made));
}

#[test]
fn a_new_credential_can_be_wrong_too() {
    let (key, _) = counting();
    let made = |fault: Fault| {
        key.live.misbehave(fault.into());
        registered(&super::platform::making(&[-8]).of(&key, 1).unwrap())
    };
    assert_ne!(made(Fault::WrongRp).data.rp_id_hash, rp_id_hash());
    assert_eq!(made(Fault::NotPresent).data.flags, 0x40);
    let unknown = made(Fault::WrongCredentialId).id;
    assert!(key.store().credentials.iter().all(|credential| credential.id != unknown));
    let signed = made(Fault::WrongRp);
    let signature = signed.statement.bytes("sig").unwrap().unwrap();
    assert!(verifies(&signed.cose, &[signed.raw.as_slice(), &HASH].concat(), &signature));
}
