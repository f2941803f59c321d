//! Asked by ctap-hid-fido2.

use std::{sync::Arc, thread, time::Duration};

use ana_virtual_key::{Algorithm, Attestation, Command, Fault, Person, Status, VirtualKey};
use ctap_hid_fido2::{
    FidoKeyHid, FidoKeyHidFactory, HidParam, LibCfg,
    fidokey::{
        CredentialSupportedKeyType, GetAssertionArgsBuilder, MakeCredentialArgsBuilder,
        get_assertion::get_assertion_params::Assertion,
        make_credential::make_credential_params::Attestation as Made,
    },
    verifier,
};

use crate::skip::no_uhid;

const RP: &str = "ana.example";
const CHALLENGE: &[u8] = b"{\"type\":\"webauthn.get\"}";

fn open(key: &VirtualKey) -> FidoKeyHid {
    let path = key.hidraw().to_str().unwrap().to_owned();
    let mut configuration = LibCfg::init();
    configuration.enable_keep_alive_msg = false;
    FidoKeyHidFactory::create_by_params(&[HidParam::Path(path)], &configuration).unwrap()
}

fn listed(key: &VirtualKey) -> Option<String> {
    let path = key.hidraw().to_str().unwrap().to_owned();
    let devices = ctap_hid_fido2::get_fidokey_devices();
    let ours = |param: &HidParam| matches!(param, HidParam::Path(other) if *other == path);
    devices.into_iter().find(|device| ours(&device.param)).map(|device| device.product_string)
}

fn make(
    client: &FidoKeyHid,
    pin: Option<&str>,
    algorithm: CredentialSupportedKeyType,
) -> Result<Made, String> {
    let args = MakeCredentialArgsBuilder::new(RP, CHALLENGE).key_type(algorithm);
    let args = match pin {
        Some(pin) => args.pin(pin),
        None => args.without_pin_and_uv(),
    };
    client.make_credential_with_args(&args.build()).map_err(|error| error.to_string())
}

fn ed25519(client: &FidoKeyHid) -> Made {
    make(client, None, CredentialSupportedKeyType::Ed25519).unwrap()
}

fn assert(client: &FidoKeyHid, made: &Made, pin: Option<&str>) -> Result<Assertion, String> {
    let args = GetAssertionArgsBuilder::new(RP, CHALLENGE).credential_id(&made.credential_descriptor.id);
    let args = match pin {
        Some(pin) => args.pin(pin),
        None => args.without_pin_and_uv(),
    };
    let assertions = client.get_assertion_with_args(&args.build()).map_err(|error| error.to_string())?;
    Ok(assertions.into_iter().next().unwrap())
}

fn verifies(made: &Made, assertion: &Assertion) -> bool {
    verifier::verify_assertion(RP, &made.credential_publickey, CHALLENGE, assertion)
}

#[track_caller]
fn failed<T>(result: Result<T, String>, code: &str) {
    let error = result.err().expect("it fails");
    assert!(error.contains(code), "{error} instead of {code}");
}

#[test]
fn it_is_listed_and_says_what_it_is() {
    if no_uhid("it_is_listed_and_says_what_it_is") {
        return;
    }
    let key =
        VirtualKey::builder("ana listed key").pin("1234").algorithms(&[Algorithm::EdDsa]).plug().unwrap();
    assert_eq!(listed(&key).as_deref(), Some("ana listed key"));
    let info = open(&key).get_info().unwrap();
    assert_eq!(info.versions, ["FIDO_2_0", "FIDO_2_1"]);
    assert_eq!(info.pin_uv_auth_protocols, [2, 1]);
    assert!(info.options.contains(&("clientPin".to_owned(), true)));
    assert!(info.algorithms.contains(&("alg".to_owned(), "-8".to_owned())));
    open(&key).wink().unwrap();
    let commands: Vec<Command> = key.seen().iter().map(|request| request.command).collect();
    assert_eq!(commands, [Command::Init, Command::GetInfo, Command::Init, Command::Wink]);
    let _unplugged = key.unplug();
    // By name: the node's number may be another key's by now.
    let devices = ctap_hid_fido2::get_fidokey_devices();
    assert!(devices.iter().all(|device| device.product_string != "ana listed key"));
}

#[test]
fn it_makes_credentials_and_signs() {
    if no_uhid("it_makes_credentials_and_signs") {
        return;
    }
    for algorithm in [CredentialSupportedKeyType::Ecdsa256, CredentialSupportedKeyType::Ed25519] {
        let key = VirtualKey::builder("ana signing key").counter_from(7).plug().unwrap();
        let client = open(&key);
        let made = make(&client, None, algorithm).unwrap();
        assert_eq!((made.fmt.as_str(), made.sign_count), ("packed", 8));
        let assertion = assert(&client, &made, None).unwrap();
        assert!(verifies(&made, &assertion));
        assert_eq!((assertion.sign_count, key.counter()), (9, 9));
        assert!(assertion.flags.user_present_result && !assertion.flags.user_verified_result);
        key.set_counter(2);
        assert_eq!(assert(&client, &made, None).unwrap().sign_count, 3);
        // A preflight does not blink.
        key.person(Person::Denies);
        let preflight = GetAssertionArgsBuilder::new(RP, CHALLENGE).without_pin_and_uv().without_up();
        let preflight = preflight.credential_id(&made.credential_descriptor.id).build();
        let preflight = client.get_assertion_with_args(&preflight).unwrap();
        assert!(!preflight[0].flags.user_present_result);
        failed(assert(&client, &made, None), "0x27");
    }
}

#[test]
fn it_makes_attestation_none() {
    if no_uhid("it_makes_attestation_none") {
        return;
    }
    let key = VirtualKey::builder("ana modest key").attestation(Attestation::None).plug().unwrap();
    assert_eq!(ed25519(&open(&key)).fmt, "none");
}

#[test]
fn an_excluded_credential_is_refused() {
    if no_uhid("an_excluded_credential_is_refused") {
        return;
    }
    let key = VirtualKey::builder("ana excluding key").plug().unwrap();
    let client = open(&key);
    let made = ed25519(&client);
    let args = MakeCredentialArgsBuilder::new(RP, CHALLENGE).without_pin_and_uv();
    let args = args.exclude_authenticator(&made.credential_descriptor.id).build();
    failed(client.make_credential_with_args(&args).map_err(|error| error.to_string()), "0x19");
    assert_eq!(key.seen().last().unwrap().exclude_list, 1);
}

#[test]
fn a_pin_verifies_by_each_protocol() {
    if no_uhid("a_pin_verifies_by_each_protocol") {
        return;
    }
    for protocol in [1, 2] {
        let key = VirtualKey::builder("ana PIN key").plug().unwrap();
        let client = open(&key).with_pin_protocol_version(protocol);
        failed(make(&client, Some("1234"), CredentialSupportedKeyType::Ed25519), "0x35");
        client.set_new_pin("1234").unwrap();
        let made = make(&client, Some("1234"), CredentialSupportedKeyType::Ed25519).unwrap();
        assert!(made.flags.user_verified_result);
        let assertion = assert(&client, &made, Some("1234")).unwrap();
        assert!(verifies(&made, &assertion) && assertion.flags.user_verified_result);
        assert_eq!(key.seen().last().unwrap().pin_protocol, Some(i64::from(protocol)));
        client.change_pin("1234", "567890").unwrap();
        failed(assert(&client, &made, Some("1234")), "0x31");
        assert_eq!((client.get_pin_retries().unwrap(), key.pin_retries()), (7, 7));
        assert!(assert(&client, &made, Some("567890")).is_ok());
        assert_eq!(key.pin_retries(), 8);
        key.misbehaves(Fault::WrongPinToken);
        failed(assert(&client, &made, Some("567890")), "0x33");
    }
}

#[test]
fn wrong_pins_block_it_until_it_is_plugged_in_anew() {
    if no_uhid("wrong_pins_block_it_until_it_is_plugged_in_anew") {
        return;
    }
    let key = VirtualKey::builder("ana blocked key").pin("1234").plug().unwrap();
    let client = open(&key).with_pin_protocol_version(2);
    let made = ed25519(&client);
    for code in ["0x31", "0x31", "0x34", "0x34"] {
        failed(assert(&client, &made, Some("0000")), code);
    }
    assert_eq!(key.pin_retries(), 5);
    let key = key.unplug().plug().unwrap();
    let client = open(&key).with_pin_protocol_version(2);
    // Credentials, PIN and counter are still there.
    let assertion = assert(&client, &made, Some("1234")).unwrap();
    assert!(verifies(&made, &assertion));
    assert_eq!((assertion.sign_count, key.pin_retries()), (2, 8));
}

/// Asks for an assertion in another thread, until the key blinks.
fn blinking(key: &VirtualKey) -> (Arc<FidoKeyHid>, thread::JoinHandle<Result<Assertion, String>>) {
    let client = Arc::new(open(key));
    key.person(Person::Touches);
    let made = ed25519(&client);
    key.person(Person::ByHand);
    assert!(!key.is_blinking());
    let asking = Arc::clone(&client);
    let result = thread::spawn(move || assert(&asking, &made, None));
    key.until_blinking();
    (client, result)
}

#[test]
fn a_hand_touches_and_refuses() {
    if no_uhid("a_hand_touches_and_refuses") {
        return;
    }
    let key = VirtualKey::builder("ana touched key").plug().unwrap();
    let (_, result) = blinking(&key);
    key.touch();
    key.until_dark();
    assert!(result.join().unwrap().is_ok());
    let (_, result) = blinking(&key);
    key.deny();
    failed(result.join().unwrap(), "0x27");
    let (_, result) = blinking(&key);
    key.person(Person::Never(Some(Duration::from_millis(1))));
    failed(result.join().unwrap(), "0x2F");
}

#[test]
fn a_cancel_from_another_thread_ends_the_request() {
    if no_uhid("a_cancel_from_another_thread_ends_the_request") {
        return;
    }
    let key = VirtualKey::builder("ana cancelled key").plug().unwrap();
    let (client, result) = blinking(&key);
    client.cancel_selection().unwrap();
    failed(result.join().unwrap(), "0x2D");
    assert!(!key.is_blinking());
    let seen = key.seen();
    let [.., asked, cancel] = seen.as_slice() else { panic!("{seen:?}") };
    assert_eq!((asked.command, cancel.command), (Command::GetAssertion, Command::Cancel));
    assert!(asked.cancelled);
    assert_eq!(asked.status, Some(Status::KEEPALIVE_CANCEL));
    // And it goes on.
    key.person(Person::Touches);
    assert!(client.selection().is_ok());
}

#[test]
fn unplugged_in_the_middle_the_client_reads_an_error() {
    if no_uhid("unplugged_in_the_middle_the_client_reads_an_error") {
        return;
    }
    let key = VirtualKey::builder("ana pulled key").plug().unwrap();
    let (_client, result) = blinking(&key);
    let unplugged = key.unplug();
    failed(result.join().unwrap(), "read err");
    assert_eq!(unplugged.seen().last().unwrap().command, Command::GetAssertion);
    let key = unplugged.plug().unwrap();
    assert!(!key.is_blinking());
    let (_client, result) = blinking(&key);
    key.touch();
    assert!(result.join().unwrap().is_ok());
}

#[test]
fn two_keys_do_not_know_each_other() {
    if no_uhid("two_keys_do_not_know_each_other") {
        return;
    }
    let one = VirtualKey::builder("ana key one").plug().unwrap();
    let other = VirtualKey::builder("ana key two").plug().unwrap();
    assert_ne!(one.hidraw(), other.hidraw());
    assert_eq!(listed(&one).as_deref(), Some("ana key one"));
    assert_eq!(listed(&other).as_deref(), Some("ana key two"));
    let (_client, result) = blinking(&one);
    // The other one works while the first one waits.
    let client = open(&other);
    let made = ed25519(&client);
    assert!(verifies(&made, &assert(&client, &made, None).unwrap()));
    assert!(one.is_blinking() && !other.is_blinking());
    drop(client);
    drop(other.unplug());
    one.touch();
    let assertion = result.join().unwrap().unwrap();
    assert!(!verifies(&made, &assertion));
    failed(assert(&open(&one), &made, None), "0x2E");
}

#[test]
fn wrong_answers_reach_the_client() {
    if no_uhid("wrong_answers_reach_the_client") {
        return;
    }
    let key = VirtualKey::builder("ana wrong key").plug().unwrap();
    let client = open(&key);
    let made = ed25519(&client);
    for fault in [Fault::WrongRp, Fault::BadSignature] {
        key.misbehaves(fault.on(Command::GetAssertion));
        assert!(!verifies(&made, &assert(&client, &made, None).unwrap()), "{fault:?}");
    }
    key.misbehaves(Fault::NotPresent);
    assert!(!assert(&client, &made, None).unwrap().flags.user_present_result);
    key.misbehaves(Fault::WrongCredentialId);
    assert_ne!(assert(&client, &made, None).unwrap().credential_id, made.credential_descriptor.id);
    for (fault, error) in [
        (Fault::StatusByte(0x30), "0x30"),
        (Fault::ErrorFrame(0x7f), "0x7F"),
        (Fault::TruncatedCbor, "ciborium"),
        (Fault::DeepNesting, "ciborium"),
    ] {
        key.misbehaves(fault.on(Command::GetAssertion));
        failed(assert(&client, &made, None), error);
    }
    key.misbehaves(None);
    assert!(verifies(&made, &assert(&client, &made, None).unwrap()));
}
