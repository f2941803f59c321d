use ciborium::Value;

use super::platform::{ask_bytes, key, making, options, pin_asking};
use crate::{
    algorithm::Algorithm,
    builder::{Builder, Version},
    ctap::{Authenticator, Status, cbor::Fields},
};

fn info(key: &Authenticator) -> Fields {
    Fields::read(&ask_bytes(key, 4, &[]).unwrap()).unwrap()
}

fn option(key: &Authenticator, name: &str) -> Option<bool> {
    info(key).map(4).unwrap().unwrap().flag(name).unwrap()
}

fn texts(fields: &Fields, key: i64) -> Vec<String> {
    let array = fields.array(key).unwrap().unwrap_or_default();
    array.into_iter().map(|text| text.into_text().unwrap()).collect()
}

fn numbers(fields: &Fields, key: i64) -> Option<Vec<Value>> {
    fields.array(key).unwrap()
}

#[test]
fn a_key_of_ctap_2_1_says_what_it_is() {
    let key = key(|key| key.pin("1234").aaguid([9; 16]).algorithms(&[Algorithm::EdDsa]));
    let info = info(&key);
    assert_eq!(texts(&info, 1), ["FIDO_2_0", "FIDO_2_1"]);
    assert_eq!(texts(&info, 2), ["credProtect"]);
    assert_eq!(info.bytes(3).unwrap(), Some(vec![9; 16]));
    assert_eq!(numbers(&info, 6), Some(vec![Value::from(2), Value::from(1)]));
    assert_eq!(texts(&info, 9), ["usb"]);
    let algorithms = numbers(&info, 10).unwrap();
    assert_eq!(algorithms.len(), 1);
    assert_eq!(Fields::of(&algorithms[0]).unwrap().number("alg"), Ok(Some(-8)));
    let expected = [
        ("rk", Some(true)),
        ("up", Some(true)),
        ("clientPin", Some(true)),
        ("pinUvAuthToken", Some(true)),
        ("makeCredUvNotRqd", Some(true)),
        ("alwaysUv", Some(false)),
        ("uv", None),
    ];
    for (name, value) in expected {
        assert_eq!(option(&key, name), value, "{name}");
    }
}

#[test]
fn a_key_of_ctap_2_0_knows_nothing_newer() {
    let key = key(|key| key.pin("1234").version(Version::Ctap20));
    let info = info(&key);
    assert_eq!(texts(&info, 1), ["FIDO_2_0"]);
    assert_eq!(numbers(&info, 6), Some(vec![Value::from(1)]));
    for newer in [9, 10, 13, 14] {
        assert!(info.get(newer).is_none(), "{newer}");
    }
    for newer in ["pinUvAuthToken", "makeCredUvNotRqd", "alwaysUv"] {
        assert_eq!(option(&key, newer), None, "{newer}");
    }
    assert_eq!(ask_bytes(&key, 0x0b, &[]), Err(Status::INVALID_COMMAND));
    assert_eq!(pin_asking(1, 9).of(&key, 6).err(), Some(Status::INVALID_SUBCOMMAND));
    assert_eq!(pin_asking(2, 2).of(&key, 6).err(), Some(Status::INVALID_PARAMETER));
    assert_eq!(making(&[-7]).of(&key, 1).err(), Some(Status::PUAT_REQUIRED));
}

#[test]
fn options_say_what_was_built() {
    let none = key(Builder::without_client_pin);
    assert_eq!(option(&none, "clientPin"), None);
    assert!(numbers(&info(&none), 6).is_none());
    assert_eq!(pin_asking(2, 2).of(&none, 6).err(), Some(Status::INVALID_COMMAND));
    let unset = key(|key| key);
    assert_eq!(option(&unset, "clientPin"), Some(false));
    let finger = key(|key| key.uv(true).always_uv(true).resident_keys(false).cred_protect(false));
    assert_eq!(option(&finger, "uv"), Some(true));
    assert_eq!(option(&finger, "alwaysUv"), Some(true));
    assert_eq!(option(&finger, "makeCredUvNotRqd"), Some(false));
    assert_eq!(option(&finger, "rk"), Some(false));
    assert!(info(&finger).get(2).is_none());
    let resident = making(&[-7]).with(7, options(&[("rk", true)]));
    assert_eq!(resident.of(&finger, 1).err(), Some(Status::UNSUPPORTED_OPTION));
}

#[test]
fn what_is_no_command_is_refused() {
    let key = key(|key| key);
    assert_eq!(ask_bytes(&key, 0x40, &[]), Err(Status::INVALID_COMMAND));
    assert_eq!(ask_bytes(&key, 1, &[0xff]), Err(Status::INVALID_CBOR));
    assert_eq!(ask_bytes(&key, 1, &[]), Err(Status::MISSING_PARAMETER));
}
