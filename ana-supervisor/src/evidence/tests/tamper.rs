//! Every change, removal, repetition and exchange is found.

use std::cell::RefCell;
use std::fs;

use proptest::prelude::*;
use serde_json::json;

use super::super::human::WebAuthn;
use super::super::verify::Verification;
use super::super::{Entry, Event, VerifyError};
use super::{Bench, allowed_by_rule, ended, started};

/// A session with one decision and its outcome.
fn log() -> Bench {
    let bench = Bench::new();
    let store = bench.store();
    let id = super::operation(1, "s").id;
    let outcome = Entry::new(Event::Outcome).session("s").detail(json!({"operation_id": id, "exit": 0}));
    for entry in [started("s"), allowed_by_rule(1, "s"), outcome, ended("s")] {
        store.append(entry).expect("appended");
    }
    bench.verify().expect("valid before it is changed");
    bench
}

fn is_found(bench: &Bench, changed: &[u8]) -> bool {
    fs::write(bench.segment_path(1), changed).expect("written");
    matches!(bench.verify(), Err(VerifyError::Bad(_)))
}

#[test]
fn every_changed_byte_is_found() {
    let bench = log();
    let whole = bench.segment(1);
    let mut tried = 0;
    for at in 0..whole.len() {
        let old = whole[at];
        for new in [old ^ 1, old ^ 0x20, b'A', b'\n', 0xff] {
            if new != old {
                let mut changed = whole.clone();
                changed[at] = new;
                assert!(is_found(&bench, &changed), "byte {at}: {old:#04x} → {new:#04x} was not found");
                tried += 1;
            }
        }
    }
    assert!(tried > 4 * whole.len(), "{tried} changes of {} bytes", whole.len());
}

#[test]
fn every_removed_or_inserted_byte_is_found() {
    let bench = log();
    let whole = bench.segment(1);
    for at in 0..whole.len() {
        let removed = [&whole[..at], &whole[at + 1..]].concat();
        assert!(is_found(&bench, &removed), "byte {at} removed");
        assert!(is_found(&bench, &whole[..at]) || at == 0, "cut at byte {at}");
        for new in [b'\n', b'A', b'.'] {
            let inserted = [&whole[..at], &[new], &whole[at..]].concat();
            assert!(is_found(&bench, &inserted), "{new:#04x} inserted at byte {at}");
        }
    }
}

#[test]
fn every_removed_repeated_or_swapped_line_is_found() {
    let bench = log();
    let whole = bench.segment(1);
    let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    for one in 0..lines.len() {
        let mut removed = lines.clone();
        removed.remove(one);
        assert!(is_found(&bench, &removed.concat()), "line {one} removed");
        for other in 0..=lines.len() {
            let mut repeated = lines.clone();
            repeated.insert(other, lines[one]);
            assert!(is_found(&bench, &repeated.concat()), "line {one} repeated at {other}");
        }
        for other in 0..one {
            let mut swapped = lines.clone();
            swapped.swap(one, other);
            assert!(is_found(&bench, &swapped.concat()), "lines {one} and {other} swapped");
        }
    }
}

#[test]
fn a_line_from_a_fork_of_the_log_is_found() {
    let bench = log();
    let whole = bench.segment(1);
    let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    // The log as it was after two records goes on differently, signed by the same key.
    fs::write(bench.segment_path(1), lines[..2].concat()).expect("written");
    let id = super::operation(1, "s").id;
    let other = Entry::new(Event::Outcome).session("s").detail(json!({"operation_id": id, "exit": 1}));
    bench.store().append(other).expect("appended");
    let fork = bench.segment(1);
    let third = fork.split_inclusive(|byte| *byte == b'\n').nth(2).expect("a third line");
    fs::write(bench.segment_path(1), [lines[0], lines[1], third, lines[3]].concat()).expect("written");
    let Err(VerifyError::Bad(bad)) = bench.verify() else { panic!("not found") };
    assert_eq!((bad.line, bad.reason.starts_with("the record does not follow")), (4, true), "{bad}");
}

#[test]
fn the_other_form_of_a_signature_is_found() {
    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as B64};
    let bench = log();
    let text = String::from_utf8(bench.segment(1)).expect("text");
    let (rest, last) = text.trim_end().rsplit_once('.').expect("three parts");
    let signature =
        p256::ecdsa::Signature::from_slice(&B64.decode(last).expect("base64url")).expect("a signature");
    let (r, s) = signature.split_scalars();
    let other = p256::ecdsa::Signature::from_scalars(*r, -*s).expect("the other form");
    assert!(is_found(&bench, format!("{rest}.{}\n", B64.encode(other.to_bytes())).as_bytes()));
}

#[test]
fn the_first_bad_record_is_named() {
    let bench = log();
    let mut changed = bench.segment(1);
    let second = changed.iter().position(|byte| *byte == b'\n').expect("a newline") + 400;
    changed[second] ^= 1;
    fs::write(bench.segment_path(1), changed).expect("written");
    let Err(VerifyError::Bad(bad)) = bench.verify() else { panic!("not found") };
    assert_eq!((bad.file.as_str(), bad.line), ("000001.jsonl", 2));
    assert_eq!(bad.reason, "the signature does not verify");
}

#[test]
fn a_missing_end_is_found_unless_the_session_is_running() {
    let bench = Bench::new();
    bench.store().append(started("s")).expect("appended");
    let Err(VerifyError::Bad(bad)) = bench.verify() else { panic!("not found") };
    assert!(bad.reason.starts_with("missing session-end: session s"), "{bad}");
    assert_eq!(bench.verify_with(&|session| session == "s").expect("valid").live_sessions, 1);
}

#[test]
fn an_empty_log_is_valid_and_has_no_head() {
    let bench = Bench::new();
    drop(bench.store());
    let report = bench.verify().expect("valid");
    assert_eq!((report.records, report.head), (0, None));
}

/// A supervisor may end a session that another one has ended as abandoned; nobody can end what never was.
#[test]
fn an_end_may_come_twice_but_not_alone() {
    let bench = Bench::new();
    let store = bench.store();
    for entry in [started("s"), ended("s"), ended("s")] {
        store.append(entry).expect("appended");
    }
    bench.verify().expect("valid");
    store.append(ended("t")).expect("appended");
    let Err(VerifyError::Bad(bad)) = bench.verify() else { panic!("not found") };
    assert_eq!((bad.line, bad.reason.as_str()), (4, "session t ends without a start"));
}

#[test]
fn segments_that_are_missing_or_do_not_belong_are_found() {
    let bench = Bench::new();
    let mut store = bench.store();
    store.segment_bytes_max = 100;
    for _ in 0..4 {
        store.append(Entry::new(Event::Tamper)).expect("appended");
    }
    assert_eq!(bench.verify().expect("valid").segments, 4);
    let names = ["000001.jsonl", "000002.jsonl", "000003.jsonl"].map(|name| bench.evidence().join(name));
    let saved = bench.folder.path().join("saved");
    for name in &names {
        fs::rename(name, &saved).expect("moved");
        assert!(matches!(bench.verify(), Err(VerifyError::Bad(_))), "{} is missing", name.display());
        fs::write(name, b"").expect("emptied");
        let Err(VerifyError::Bad(bad)) = bench.verify() else { panic!("{} is empty", name.display()) };
        assert_eq!((bad.line, bad.reason.as_str()), (0, "this segment is empty"), "{}", name.display());
        fs::rename(&saved, name).expect("moved back");
    }
    for stranger in ["000005.jsonl", "000001.jsonl.bak", "7.jsonl", "000000.jsonl"] {
        let path = bench.evidence().join(stranger);
        fs::write(&path, b"x\n").expect("written");
        assert!(matches!(bench.verify(), Err(VerifyError::Bad(_))), "{stranger}");
        fs::remove_file(path).expect("removed");
    }
    bench.verify().expect("valid again");
    // A writer that is stopped right after it made a segment leaves this behind.
    fs::write(bench.segment_path(5), b"").expect("written");
    assert_eq!(bench.verify().expect("valid").segments, 5);
}

#[test]
fn progress_goes_on_over_all_segments_to_the_end() {
    let bench = Bench::new();
    let mut store = bench.store();
    store.segment_bytes_max = 100;
    let (mut ends, mut total) = (Vec::new(), 0);
    for number in 1..=3 {
        store.append(Entry::new(Event::Tamper)).expect("appended");
        total += bench.segment(number).len() as u64;
        ends.push(total);
    }
    let told = RefCell::new(Vec::new());
    let (trust, proof, live) = (bench.trust(), &WebAuthn, &|_: &str| false);
    let progress = &|done, all| told.borrow_mut().push((done, all));
    Verification { trust: &trust, proof, live, heads: &[], progress }
        .folder(bench.state.evidence_dir())
        .expect("valid");
    assert_eq!(told.into_inner(), ends.into_iter().map(|done| (done, total)).collect::<Vec<_>>());
}

#[test]
fn a_library_that_is_not_ours_reads_a_record() {
    let bench = log();
    let kid = bench.store().kid().to_owned();
    let jwk = fs::read(bench.folder.path().join(format!("keys/{kid}.jwk"))).expect("the public key");
    let jwk: jsonwebtoken::jwk::Jwk = serde_json::from_slice(&jwk).expect("a JWK");
    let thumbprint = jwk.thumbprint(jsonwebtoken::jwk::ThumbprintHash::SHA256).expect("a thumbprint");
    assert_eq!(thumbprint, kid);
    let key = jsonwebtoken::DecodingKey::from_jwk(&jwk).expect("a key");
    let mut rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256);
    rules.required_spec_claims.clear();
    (rules.validate_exp, rules.validate_aud) = (false, false);
    for line in String::from_utf8(bench.segment(1)).expect("text").lines() {
        let record = jsonwebtoken::decode::<serde_json::Value>(line, &key, &rules).expect("it verifies");
        assert_eq!(record.header.typ.as_deref(), Some("ana-evidence+jwt"));
        assert_eq!(record.header.kid.as_deref(), Some(kid.as_str()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_sequence_of_records_verifies(kinds in prop::collection::vec((0..6_u8, 0..3_u8, ".{0,40}"), 0..24), max in 200..6000_u64) {
        let bench = Bench::new();
        let mut store = bench.store();
        store.segment_bytes_max = max;
        let mut running = [false; 3];
        let mut generation = 0;
        let mut names = [String::new(), String::new(), String::new()];
        let mut appended = 0;
        for (index, (kind, session, text)) in (1..).zip(kinds) {
            let at = usize::from(session);
            let entry = match (kind, running[at]) {
                (0, _) => Entry::new(Event::PolicyLoad).policy(&text).detail(json!({ "text": text })),
                (1, _) => Entry::new(Event::Tamper).detail(json!(text)),
                (2, true) => { running[at] = false; ended(&names[at]) }
                (_, true) => allowed_by_rule(index, &names[at]),
                (_, false) => {
                    generation += 1;
                    names[at] = format!("s{generation}");
                    running[at] = true;
                    started(&names[at])
                }
            };
            store.append(entry).expect("appended");
            appended += 1;
            if kind == 5 {
                store = bench.store();
                store.segment_bytes_max = max;
            }
        }
        let live: Vec<&String> = names.iter().zip(running).filter(|(_, on)| *on).map(|(name, _)| name).collect();
        let report = bench.verify_with(&|session| live.iter().any(|name| *name == session)).expect("valid");
        prop_assert_eq!(report.records, appended);
        prop_assert_eq!(bench.verify().is_err(), !live.is_empty());
    }
}
