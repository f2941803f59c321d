//! The same assertions through webauthn-rs-core, a verifier that shares no code with ours.
//!
//! It has to take what we take, and refuse what we refuse; where it is more lenient, the test says so.

use coset::{CborSerializable, CoseKey, Label};
use serde_json::{Value, json};
use webauthn_rs_core::{
    WebauthnCore,
    proto::{AuthenticationState, PublicKeyCredential},
};

use super::{
    Assertion,
    assertion::{AssertionError, Expected, verify},
    client_data,
    passkeys::Passkey,
    samples::*,
};
use crate::operation::Verify;

const CHALLENGE: [u8; 32] = [7; 32];

/// What webauthn-rs-core says about it.
fn theirs(assertion: &Assertion, passkey: &Passkey, uv: bool) -> bool {
    theirs_for(assertion, passkey, uv, CHALLENGE, RP_ID)
}

fn theirs_for(assertion: &Assertion, passkey: &Passkey, uv: bool, challenge: [u8; 32], rp_id: &str) -> bool {
    let core = WebauthnCore::new_unsafe_experts_only(
        "ana",
        rp_id,
        vec![rp_id.parse().unwrap()],
        std::time::Duration::from_secs(60),
        None,
        None,
    );
    let state: AuthenticationState = serde_json::from_value(json!({
        "credentials": [credential(passkey)],
        "policy": if uv { "required" } else { "discouraged" },
        "challenge": b64(challenge),
        "appid": null,
        "allow_backup_eligible_upgrade": false,
    }))
    .unwrap();
    let response = json!({
        "id": assertion.credential_id,
        "rawId": assertion.credential_id,
        "type": "public-key",
        "response": {
            "authenticatorData": assertion.authenticator_data,
            "clientDataJSON": assertion.client_data_json,
            "signature": assertion.signature,
            "userHandle": null,
        },
    });
    let Ok(response) = serde_json::from_value::<PublicKeyCredential>(response) else { return false };
    core.authenticate_credential(&response, &state).is_ok()
}

fn credential(passkey: &Passkey) -> Value {
    let key = CoseKey::from_slice(&unb64(&passkey.public_key)).unwrap();
    let coordinate = |label: i64| {
        let (_, value) = key.params.iter().find(|(found, _)| *found == Label::Int(label)).unwrap();
        b64(value.as_bytes().unwrap())
    };
    json!({
        "cred_id": passkey.credential_id,
        "cred": {"type_": "ES256", "key": {"EC_EC2": {
            "curve": "SECP256R1", "x": coordinate(-2), "y": coordinate(-3),
        }}},
        "counter": passkey.sign_count,
        "transports": null,
        "user_verified": false,
        "backup_eligible": passkey.be,
        "backup_state": passkey.bs,
        "registration_policy": "discouraged",
        "extensions": {},
        "attestation": {"data": "None", "metadata": "None"},
        "attestation_format": "none",
    })
}

fn ours(assertion: &Assertion, passkey: &Passkey, uv: bool) -> Result<(), AssertionError> {
    let expected = Expected {
        challenge: CHALLENGE,
        origin: RP_ID,
        rp_id: RP_ID,
        verify: if uv { Verify::Pin } else { Verify::Presence },
        offered: std::slice::from_ref(passkey),
    };
    verify(assertion, &expected).map(drop)
}

#[test]
fn both_take_what_the_software_passkey_signs() {
    for (passphrase, uv) in [(None, false), (Some("horse"), false), (Some("horse"), true)] {
        let (mut key, passkey) = software("alice", passphrase);
        let verify = if uv { Verify::Pin } else { Verify::Presence };
        let assertion = sign_with(&mut key, CHALLENGE, verify);
        ours(&assertion, &passkey, uv).unwrap();
        assert!(theirs(&assertion, &passkey, uv));
        // And for another challenge both say no.
        assert!(!theirs_for(&assertion, &passkey, uv, [8; 32], RP_ID));
        assert!(!theirs_for(&assertion, &passkey, uv, CHALLENGE, "ana:other"));
    }
}

#[test]
fn both_refuse_every_flipped_bit() {
    let (mut key, passkey) = software("alice", None);
    let good = sign_with(&mut key, CHALLENGE, Verify::Presence);
    type Field = fn(&mut Assertion) -> &mut String;
    let fields: [Field; 4] = [
        |assertion| &mut assertion.credential_id,
        |assertion| &mut assertion.authenticator_data,
        |assertion| &mut assertion.client_data_json,
        |assertion| &mut assertion.signature,
    ];
    for field in fields {
        let bytes = unb64(field(&mut good.clone()));
        // Every third bit: the other test has them all, and this one pays for two verifiers.
        for bit in (0..bytes.len() * 8).step_by(3) {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let mut assertion = good.clone();
            *field(&mut assertion) = b64(changed);
            assert!(ours(&assertion, &passkey, false).is_err(), "we took bit {bit}");
            assert!(!theirs(&assertion, &passkey, false), "webauthn-rs-core took bit {bit}");
        }
    }
}

#[test]
fn both_judge_each_field_alike() {
    let token = Token::new("key");
    let mut counted = Token::new("key");
    counted.passkey.sign_count = 5;
    let mut synced = Token::new("key");
    (synced.passkey.be, synced.passkey.bs) = (true, true);
    let right = client_data::encode(&CHALLENGE, RP_ID);
    let data = |flags, count| authenticator_data(RP_ID, flags, count);
    let text = |kind: &str, origin: &str, more: &str| {
        format!(r#"{{"type":"{kind}","challenge":"{}","origin":"{origin}"{more}}}"#, b64(CHALLENGE))
            .into_bytes()
    };
    // Name, who signs, authenticator data, client data, is a PIN asked for, is it right.
    type Case<'a> = (&'a str, &'a Token, Vec<u8>, Vec<u8>, bool, bool);
    let cases: Vec<Case<'_>> = vec![
        ("right", &token, data(1, 0), right.clone(), false, true),
        ("with a PIN", &token, data(5, 0), right.clone(), true, true),
        ("PIN missing", &token, data(1, 0), right.clone(), true, false),
        ("not present", &token, data(0, 0), right.clone(), false, false),
        ("verified but not present", &token, data(4, 0), right.clone(), false, false),
        ("another rp id", &token, authenticator_data("ana:other", 1, 0), right.clone(), false, false),
        ("type", &token, data(1, 0), text("webauthn.create", RP_ID, ""), false, false),
        ("origin", &token, data(1, 0), text("webauthn.get", "ana:other", ""), false, false),
        (
            "https origin",
            &token,
            data(1, 0),
            text("webauthn.get", "https://build-1.example", ""),
            false,
            false,
        ),
        ("challenge", &token, data(1, 0), client_data::encode(&[8; 32], RP_ID), false, false),
        ("another member", &token, data(1, 0), text("webauthn.get", RP_ID, r#","new":[1]"#), false, true),
        (
            "same origin",
            &token,
            data(1, 0),
            text("webauthn.get", RP_ID, r#","crossOrigin":false"#),
            false,
            true,
        ),
        ("backup state alone", &token, data(0x11, 0), right.clone(), false, false),
        ("backup eligible now", &token, data(0x09, 0), right.clone(), false, false),
        ("synced", &synced, data(0x19, 0), right.clone(), false, true),
        ("synced no more", &synced, data(0x09, 0), right.clone(), false, true),
        ("not eligible any more", &synced, data(0x01, 0), right.clone(), false, false),
        ("counter grew", &counted, data(1, 6), right.clone(), false, true),
        ("counter stood", &counted, data(1, 5), right.clone(), false, false),
        ("counter shrank", &counted, data(1, 4), right.clone(), false, false),
        ("counter is gone", &counted, data(1, 0), right.clone(), false, false),
        ("too short", &token, data(1, 0)[..36].to_vec(), right.clone(), false, false),
    ];
    for (name, token, data, client_data, uv, good) in cases {
        let assertion = token.sign_parts(&data, &client_data);
        let result = ours(&assertion, &token.passkey, uv);
        assert_eq!(result.is_ok(), good, "{name}: we say {result:?}");
        assert_eq!(theirs(&assertion, &token.passkey, uv), good, "{name}: webauthn-rs-core disagrees");
    }
}

/// Where we are stricter: what the specification reserves or leaves to the relying party.
#[test]
fn we_refuse_more() {
    let token = Token::new("key");
    let right = client_data::encode(&CHALLENGE, RP_ID);
    let framed = format!(
        r#"{{"type":"webauthn.get","challenge":"{}","origin":"{RP_ID}","crossOrigin":true}}"#,
        b64(CHALLENGE)
    );
    for (name, data, client_data) in [
        ("reserved flag", authenticator_data(RP_ID, 0x03, 0), right.clone()),
        ("trailing byte", [authenticator_data(RP_ID, 0x01, 0), vec![0]].concat(), right),
        ("cross origin", authenticator_data(RP_ID, 0x01, 0), framed.into_bytes()),
    ] {
        let assertion = token.sign_parts(&data, &client_data);
        assert!(ours(&assertion, &token.passkey, false).is_err(), "{name}");
        assert!(theirs(&assertion, &token.passkey, false), "{name}: no difference any more, move it up");
    }
}

/// The sample record that the verifiers in other languages are tried on.
#[test]
fn the_sample_record_is_proven() {
    let record: Value =
        serde_json::from_str(include_str!("../../../tests/independent/approval.json")).unwrap();
    let canonical = serde_json_canonicalizer::to_vec(&record["operation"]).unwrap();
    let challenge: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(canonical).into();
    let part = |name: &str| record["assertion"][name].as_str().unwrap().to_owned();
    let assertion = Assertion {
        credential_id: part("credential_id"),
        authenticator_data: part("authenticator_data"),
        client_data_json: part("client_data_json"),
        signature: part("signature"),
    };
    let mut passkey = software("alice", None).1;
    passkey.credential_id = part("credential_id");
    passkey.public_key = part("public_key");
    let expected = Expected {
        challenge,
        origin: RP_ID,
        rp_id: RP_ID,
        verify: Verify::Presence,
        offered: std::slice::from_ref(&passkey),
    };
    verify(&assertion, &expected).unwrap();
    assert!(theirs_for(&assertion, &passkey, false, challenge, RP_ID));
}

#[test]
#[ignore = "not a check: prints a new sample record"]
fn print_a_sample_record() {
    let operation = operation("01KAK2W5T0SAMPLE0000000000");
    let (mut key, passkey) = software("alice", None);
    let assertion = sign_with(&mut key, operation.challenge().unwrap(), Verify::Presence);
    let record = json!({
        "operation": operation,
        "assertion": {
            "credential_id": assertion.credential_id,
            "approver": passkey.approver,
            "public_key": passkey.public_key,
            "authenticator_data": assertion.authenticator_data,
            "client_data_json": assertion.client_data_json,
            "signature": assertion.signature,
        },
    });
    print!("{record:#}");
}
