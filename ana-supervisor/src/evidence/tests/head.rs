//! What the heads say of a log that is no longer whole.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::super::human::WebAuthn;
use super::super::sign::Signer;
use super::super::verify::Verification;
use super::super::{Head, Report, Told, Trust, VerifyError, head};
use super::{Bench, allowed_by_rule, ended, started};

impl Bench {
    fn heads(&self) -> (Vec<Told>, usize) {
        head::read(&self.folder.path().join(head::FILE), &self.trust()).expect("readable")
    }

    fn verify_against(&self, heads: &[Told]) -> Result<Report, VerifyError> {
        let trust = self.trust();
        let (proof, live, progress) = (&WebAuthn, &|_: &str| false, &|_, _| {});
        Verification { trust: &trust, proof, live, heads, progress }.folder(self.state.evidence_dir())
    }
}

fn lines(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.split_inclusive(|byte| *byte == b'\n').collect()
}

/// Two whole sessions of three records each.
fn two_sessions() -> Bench {
    let bench = Bench::new();
    let store = bench.store();
    for (number, session) in ["a", "b"].into_iter().enumerate() {
        store.append(started(session)).expect("appended");
        let id = u32::try_from(number).expect("small");
        store.append(allowed_by_rule(id, session)).expect("appended");
        store.append(ended(session)).expect("appended");
    }
    bench
}

#[test]
fn a_tail_that_was_cut_between_sessions_is_counted() {
    let bench = two_sessions();
    let (heads, strange) = bench.heads();
    assert_eq!((heads.len(), strange), (2, 0));
    assert_eq!(heads.iter().map(|told| told.head.seq).collect::<Vec<_>>(), [3, 6]);
    assert_eq!(bench.verify_against(&heads).expect("valid").heads, 2);
    let whole = bench.segment(1);
    for left in 3..6 {
        fs::write(bench.segment_path(1), lines(&whole)[..left].concat()).expect("written");
        let error = bench.verify_against(&heads).expect_err("cut").to_string();
        let many = if left == 5 { "1 record is".to_owned() } else { format!("{} records are", 6 - left) };
        assert!(error.starts_with(&format!("000001.jsonl:{left}: {many} missing")), "{error}");
    }
    fs::write(bench.segment_path(1), lines(&whole)[..3].concat()).expect("written");
    assert!(bench.verify().is_ok(), "without a head it is a whole log");
}

#[test]
fn a_log_that_was_cut_and_went_on_is_found() {
    let bench = two_sessions();
    let whole = bench.segment(1);
    fs::write(bench.segment_path(1), lines(&whole)[..3].concat()).expect("written");
    let store = bench.store();
    for entry in [started("c"), allowed_by_rule(9, "c"), ended("c"), started("d"), ended("d")] {
        store.append(entry).expect("appended");
    }
    let error = bench.verify_against(&bench.heads().0).expect_err("cut").to_string();
    assert!(error.starts_with("000001.jsonl:6: ") && error.contains("the log was cut before it"), "{error}");
}

#[test]
fn a_log_that_was_moved_away_is_another_one() {
    let bench = two_sessions();
    fs::remove_file(bench.segment_path(1)).expect("removed");
    let store = bench.store();
    store.append(started("c")).expect("appended");
    store.append(ended("c")).expect("appended");
    let report = bench.verify_against(&bench.heads().0).expect("valid");
    assert_eq!((report.heads, report.other_heads), (1, 2));
}

#[test]
fn only_a_trusted_key_tells_heads() {
    let bench = two_sessions();
    let stranger = two_sessions();
    let file = bench.folder.path().join(head::FILE);
    assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o7777, 0o600);
    let mut text = fs::read_to_string(&file).expect("readable");
    text += &fs::read_to_string(stranger.folder.path().join(head::FILE)).expect("readable");
    // A record is no head.
    text += std::str::from_utf8(lines(&bench.segment(1))[0]).expect("text");
    fs::write(&file, text).expect("written");
    let (heads, strange) = bench.heads();
    assert_eq!((heads.len(), strange), (2, 3));
}

/// A head is believed for its signature and for its header: neither makes up for the other.
#[test]
fn a_head_has_its_own_type_version_and_signature() {
    const TYPE: &str = "ana-evidence-head+jwt";
    let key = p256::ecdsa::SigningKey::from_slice(&[7; 32]).expect("a key");
    let signer = Signer::new(&key).expect("a signer");
    let mut trust = Trust::default();
    trust.add_key(signer.public().clone());
    let head = |v, seq| Head { v, seq, hash: "h".into(), log: "l".into(), iat: 0, host: "host".into() };
    let signed = |typ, head| signer.sign_as(typ, &serde_json::to_vec(&head).expect("JSON")).expect("signed");
    let (one, two) = (signed(TYPE, head(1, 1)), signed(TYPE, head(1, 2)));
    assert_eq!(Head::parse(&one, &trust), Some(head(1, 1)));
    assert_eq!(Head::parse(&signed("ana-evidence+jwt", head(1, 1)), &trust), None);
    assert_eq!(Head::parse(&signed(TYPE, head(2, 1)), &trust), None);
    let (said, _) = one.rsplit_once('.').expect("a JWS");
    let (_, signature) = two.rsplit_once('.').expect("a JWS");
    assert_eq!(Head::parse(&format!("{said}.{signature}"), &trust), None);
}
