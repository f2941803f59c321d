//! A person's approval: recorded from a real decision, proven from the record alone.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as B64};
use coset::{CborSerializable, CoseKeyBuilder, iana};
use p256::ecdsa::signature::Signer as _;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::super::human::{HumanProof, WebAuthn};
use super::super::store::Disk;
use super::super::{
    AssertionRecord, Entry, Event, EvidenceError, RecordedVerdict, Trust, TrustError, VerifyError,
};
use super::{Bench, ended, operation, started};
use crate::approval::authenticator::Authenticator;
use crate::approval::passkeys::{Kind, Passkey, Passkeys};
use crate::approval::software::SoftwarePasskey;
use crate::approval::{Decided, Desk, Judged};
use crate::gate::Ticket;
use crate::operation::Verify;
use crate::policy::{Action, Verdict};

fn judged(id: u32, action: Action) -> Judged {
    let verdict = Verdict {
        action,
        rule: "git".into(),
        because: "because".into(),
        timeout: Duration::from_secs(120),
        verify: Verify::Presence,
        needs_argv: true,
        exclusive: false,
    };
    Judged { operation: Arc::new(operation(id, "s")), verdict, alike: None }
}

/// Enrolls a software passkey and lets it approve an operation.
fn approved(bench: &Bench, id: u32) -> Decided {
    let mut list = Passkeys::new("host").expect("a list");
    let (file, made) = SoftwarePasskey::generate(&list.rp_id, "bob", None).expect("a passkey");
    list.passkeys.push(Passkey {
        name: "test".into(),
        kind: Kind::Software,
        credential_id: made.credential_id,
        public_key: made.public_key,
        aaguid: made.aaguid,
        transports: Vec::new(),
        be: made.be,
        bs: made.bs,
        sign_count: made.sign_count,
        created: "2026-11-21T22:55:59.000Z".into(),
        last_used: None,
        approver: "bob".into(),
        key_file: None,
    });
    bench.state.replace_passkeys(&serde_json::to_vec(&list).expect("JSON")).expect("written");
    let mut key =
        SoftwarePasskey::from_key_file(file, Box::new(|| Err(std::io::Error::other("no passphrase"))));
    let desk = Desk::new(1, list, true);
    let mut answer = desk.ask(judged(id, Action::Approve), 0, u64::MAX).expect("asked");
    let id = operation(id, "s").id;
    let options = desk.show(&id, 1).expect("shown");
    let assertion = key.assert(&options).expect("signed");
    desk.sign(&id, &assertion, 2).expect("approved");
    answer.try_recv().expect("decided")
}

/// A session in which a person approved one operation.
fn log() -> Bench {
    let bench = Bench::new();
    let store = bench.store();
    store.append(started("s")).expect("appended");
    let recorded = store.record(approved(&bench, 1)).expect("recorded");
    assert!(recorded.decided().approved());
    store.append(recorded.outcome(json!({ "exit": 0 }))).expect("appended");
    store.append(ended("s")).expect("appended");
    bench
}

#[test]
fn an_approval_by_an_enrolled_passkey_is_proven() {
    let bench = log();
    let report = bench.verify().expect("valid");
    assert_eq!((report.approved, report.human_proven, report.software_approved), (1, 1, 1));
    let decision = &bench.payloads()[1];
    assert_eq!(decision.detail.as_ref().expect("a detail")["decided_by"], "person");
    assert_eq!(decision.assertion.as_ref().expect("an assertion").approver, "bob");
    assert_eq!(bench.payloads()[2].rule.as_deref(), Some("git"), "of the outcome");
    // Whoever verifies the assertion with another library starts from this hash.
    let challenge = decision.operation.as_ref().expect("an operation").challenge().expect("a challenge");
    assert_eq!(decision.operation_hash, Some(B64.encode(challenge)));
}

/// A record does not say whether the passkey could be backed up: the authenticator data does, and any may be right.
#[test]
fn an_authenticator_may_or_may_not_back_its_passkey_up() {
    let key = p256::ecdsa::SigningKey::from_slice(&[7; 32]).expect("a key");
    let point = key.verifying_key().to_encoded_point(false);
    let (x, y) = (point.x().expect("x").to_vec(), point.y().expect("y").to_vec());
    let cose = CoseKeyBuilder::new_ec2_pub_key(iana::EllipticCurve::P_256, x, y)
        .algorithm(iana::Algorithm::ES256)
        .build();
    let operation = operation(1, "s");
    let challenge = B64.encode(operation.challenge().expect("a challenge"));
    let client_data = format!(r#"{{"type":"webauthn.get","challenge":"{challenge}","origin":"ana:host"}}"#);
    let check = |flags: u8| {
        let data = [Sha256::digest("ana:host").as_slice(), &[flags, 0, 0, 0, 0]].concat();
        let signed = [data.as_slice(), Sha256::digest(&client_data).as_slice()].concat();
        let signature: p256::ecdsa::Signature = key.sign(&signed);
        let record = AssertionRecord {
            credential_id: B64.encode([1; 32]),
            approver: "bob".into(),
            public_key: B64.encode(cose.clone().to_vec().expect("CBOR")),
            authenticator_data: B64.encode(data),
            client_data_json: B64.encode(&client_data),
            signature: B64.encode(signature.to_der()),
        };
        WebAuthn.check(&operation, &record)
    };
    // UP, BE and BS of WebAuthn, 6.1.
    for flags in [0x01, 0x09, 0x19] {
        assert_eq!(check(flags), Ok(()), "{flags:#04x}");
    }
    assert!(check(0x11).expect_err("backed up but not eligible").contains("BS without BE"));
    assert!(check(0x00).expect_err("nobody was there").contains("UP is not set"));
}

#[test]
fn the_records_own_key_proves_nothing() {
    let bench = log();
    fs::remove_file(bench.folder.path().join("passkeys.json")).expect("removed");
    let report = bench.verify().expect("valid");
    assert_eq!((report.approved, report.human_proven), (1, 0));
}

#[test]
fn a_pinned_list_replaces_the_enrolled_one() {
    let bench = log();
    let list = bench.folder.path().join("passkeys.json");
    let pinned = bench.folder.path().join("pinned.json");
    fs::copy(&list, &pinned).expect("copied");
    fs::remove_file(&list).expect("removed");
    let verify = |pinned: &std::path::Path| {
        let passkeys = Some((bench.state.base_dir(), "passkeys.json"));
        let trust = Trust::load(Some(bench.state.keys_dir()), passkeys, Some(pinned)).expect("the trust");
        super::super::verify(bench.state.evidence_dir(), &trust, &|_| false).expect("valid").human_proven
    };
    assert_eq!(verify(&pinned), 1);
    fs::copy(&pinned, &list).expect("enrolled again");
    fs::write(&pinned, r#"{"passkeys": []}"#).expect("written");
    assert_eq!(verify(&pinned), 0, "an empty list trusts nobody, whoever is enrolled");
    let kid = bench.store().kid().to_owned();
    let jwk = bench.folder.path().join(format!("keys/{kid}.jwk"));
    assert_eq!(verify(&jwk), 1, "a pinned record key leaves the enrolled passkeys");
}

/// Whoever holds the record key can make a passkey of his own with the enrolled one's id, or claim another's key.
#[test]
fn half_a_passkey_proves_nothing() {
    let bench = log();
    let enrolled = bench.payloads()[1].assertion.clone().expect("an assertion");
    let (id, key) = (enrolled.credential_id.as_str(), enrolled.public_key.as_str());
    for (id, key, proven) in [(id, key, 1), (id, "AAAA", 0), ("AAAA", key, 0)] {
        let mut trust = Trust::load(Some(bench.state.keys_dir()), None, None).expect("the keys");
        trust.add_passkey(id, key);
        let report = super::super::verify(bench.state.evidence_dir(), &trust, &|_| false).expect("valid");
        assert_eq!((report.approved, report.human_proven), (1, proven));
    }
}

#[test]
fn a_pinned_file_has_an_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("pinned.json");
    let load = |bytes: usize| {
        fs::write(&path, vec![b' '; bytes]).expect("written");
        Trust::load(None, None, Some(&path)).expect_err("no keys")
    };
    assert!(matches!(load(1 << 20), TrustError::Passkeys { .. }));
    assert!(matches!(load((1 << 20) + 1), TrustError::TooLarge { .. }));
}

#[test]
fn only_a_pem_is_a_signing_key() {
    let bench = Bench::new();
    let kid = bench.store().kid().to_owned();
    // What a crash can leave, and what an administrator can.
    for name in [".another.pem", "notes"] {
        fs::write(bench.state.signing_dir().path().join(name), "no key").expect("written");
    }
    assert_eq!(bench.store().kid(), kid);
}

#[test]
fn an_approval_of_another_operation_is_found() {
    let bench = Bench::new();
    let store = bench.store();
    store.append(started("s")).expect("appended");
    let recorded = store.record(approved(&bench, 1)).expect("recorded");
    assert_eq!(recorded.receipt().seq, 2);
    // The holder of the signing key moves a person's approval to another operation.
    let assertion = bench.payloads()[1].assertion.clone();
    let forged = Entry {
        operation: Some(operation(2, "s")),
        verdict: Some(RecordedVerdict::Allow),
        rule: Some("git".into()),
        assertion,
        ..Entry::new(Event::Decision).session("s").policy("p").detail(json!({ "decided_by": "person" }))
    };
    store.append(forged).expect("appended");
    store.append(ended("s")).expect("appended");
    let Err(VerifyError::Bad(bad)) = bench.verify() else { panic!("not found") };
    assert_eq!(bad.line, 3);
    assert!(bad.reason.contains("the person's approval does not verify"), "{bad}");
}

#[test]
fn an_operation_decided_twice_or_outside_its_session_is_found() {
    for (twice, reason) in [(true, "is decided twice"), (false, "outside its session")] {
        let bench = Bench::new();
        let store = bench.store();
        if twice {
            store.append(started("s")).expect("appended");
            drop(
                store.record(Decided::by_rule(judged(1, Action::Allow)).expect("allowed")).expect("recorded"),
            );
        }
        drop(store.record(Decided::by_rule(judged(1, Action::Deny)).expect("denied")).expect("recorded"));
        let Err(VerifyError::Bad(bad)) = bench.verify() else { panic!("not found") };
        assert!(bad.reason.contains(reason), "{bad}");
    }
}

#[test]
fn every_reason_has_its_record() {
    let bench = Bench::new();
    let store = bench.store();
    store.append(started("s")).expect("appended");
    let desk = Desk::new(1, Passkeys::new("host").expect("a list"), true);
    let wait = |id: u32, until: &dyn Fn(&str)| {
        let mut answer = desk.ask(judged(id, Action::Approve), 0, 1_000).expect("asked");
        until(&operation(id, "s").id);
        answer.try_recv().expect("decided")
    };
    let backed_off = || {
        let desk = Desk::new(1, Passkeys::new("host").expect("a list"), true);
        for asked in [10, 20] {
            let _answer = desk.ask(judged(asked, Action::Approve), asked.into(), 1_000).expect("asked");
            desk.deny(&operation(asked, "s").id, "bob", "", u64::from(asked) + 1).expect("denied");
        }
        desk.ask(judged(7, Action::Approve), 30, 1_000).expect_err("not asked")
    };
    let decided = [
        Decided::by_rule(judged(1, Action::Allow)).expect("allowed"),
        Decided::by_rule(judged(2, Action::Deny)).expect("denied"),
        wait(3, &|id| desk.deny(id, "bob", "not now", 1).expect("denied")),
        wait(4, &|id| assert!(desk.withdraw(id, 1))),
        wait(5, &|_| desk.expire(2_000)),
        Decided::refused(judged(6, Action::Approve), "ana", "the queue is broken"),
        backed_off(),
    ];
    for decided in decided {
        drop(store.record(decided).expect("recorded"));
    }
    let said: Vec<_> = bench.payloads()[1..]
        .iter()
        .map(|payload| {
            (payload.verdict.expect("a verdict").name(), payload.decided_by().expect("who").name())
        })
        .collect();
    let expected = [
        ("allow", "rule"),
        ("deny", "rule"),
        ("deny", "person"),
        ("deny", "system"),
        ("deny", "timeout"),
        ("deny", "system"),
        ("deny", "system"),
    ];
    assert_eq!(said, expected);
    let last = bench.payloads().pop().expect("a record").detail.expect("a detail");
    assert_eq!((&last["denials"], &last["seconds"]), (&json!(2), &json!(10)));
    bench.verify_with(&|_| true).expect("valid");
}

#[test]
fn the_trust_must_be_understood_entirely() {
    let bench = Bench::new();
    let path = bench.folder.path().join("trust");
    let x = B64.encode([1; 32]);
    for text in [
        "",
        "{}",
        "[]",
        r#"{"keys": [{"kty": "RSA"}]}"#,
        &format!(r#"{{"kty": "oct", "crv": "P-256", "x": "{x}"}}"#),
        &format!(r#"{{"kty": "EC", "crv": "P-256", "x": "{x}", "y": "{x}"}}"#),
        &format!(r#"{{"kty": "OKP", "crv": "Ed25519", "x": "{}"}}"#, B64.encode([0; 32])),
        r#"{"passkeys": [{"credential_id": 1}]}"#,
    ] {
        fs::write(&path, text).expect("written");
        assert!(Trust::load(None, None, Some(&path)).is_err(), "{text}");
    }
}

/// The way to a ticket ends where the disk does: an approval that is signed but not written lets nothing go on.
#[test]
fn what_is_not_on_the_disk_gives_no_ticket() {
    let bench = Bench::new();
    let mut store = bench.store();
    store.append(started("s")).expect("appended");
    store.disk = Disk { sync: Box::new(|_| Err(std::io::Error::from_raw_os_error(5))), ..Disk::default() };
    let decided = approved(&bench, 1);
    assert!(decided.approved());
    // The decision is used up: there is nothing left that a ticket could be made of.
    assert!(matches!(store.record(decided), Err(EvidenceError::Write { .. })));
    store.disk = Disk::default();
    let recorded = store.record(approved(&bench, 2)).expect("recorded");
    let ticket = Ticket::from_recorded(recorded).expect("approved");
    assert_eq!(ticket.recorded().receipt().seq, 2, "the one before left nothing");
    let refused = Decided::refused(judged(3, Action::Approve), "ana", "no");
    let recorded = store.record(refused).expect("recorded");
    assert!(Ticket::from_recorded(recorded).is_err(), "a refusal became a ticket");
}
