//! What a start has to read of a long log.

use std::fs;
use std::io::Write as _;
use std::time::Instant;

use super::super::store::open::FILE;
use super::super::{EvidenceError, Store};
use super::{Bench, allowed_by_rule, ended, started};

/// Of the sessions that are open, `alive` runs.
fn end_dead(store: &Store) -> Result<Vec<String>, EvidenceError> {
    store.end_abandoned(&|session| session == "alive", "a test")
}

/// A log of many short segments, with an open session.
fn long_log(bench: &Bench) -> Store {
    let mut store = bench.store();
    store.segment_bytes_max = 3000;
    store.append(started("alive")).expect("appended");
    for id in 0..20 {
        store.append(allowed_by_rule(id, "alive")).expect("appended");
    }
    store
}

#[test]
fn a_start_reads_only_what_came_after_the_last_one() {
    let bench = Bench::new();
    let store = long_log(&bench);
    assert!(end_dead(&store).expect("read").is_empty());
    // What is damaged there would be an error if it were read.
    let (old, whole) = (bench.segment_path(2), bench.segment(2));
    fs::write(&old, "no record\n").expect("damaged");
    drop(store);
    let mut store = bench.store();
    store.segment_bytes_max = 3000;
    for session in ["dead", "over", "dead too"] {
        store.append(started(session)).expect("appended");
        store.append(allowed_by_rule(1, session)).expect("appended");
    }
    store.append(ended("over")).expect("appended");
    assert_eq!(end_dead(&store).expect("not read"), ["dead", "dead too"]);
    assert!(end_dead(&store).expect("not read").is_empty());
    fs::remove_file(bench.folder.path().join(FILE)).expect("removed");
    let error = end_dead(&store).expect_err("read");
    assert!(matches!(error, EvidenceError::Damaged { .. }), "{error}");
    fs::write(&old, whole).expect("repaired");
    assert!(end_dead(&store).expect("read").is_empty());
    let report = bench.verify_with(&|session| session == "alive").expect("valid");
    assert_eq!((report.sessions, report.live_sessions), (4, 1));
}

#[test]
fn what_does_not_fit_the_log_is_not_believed() {
    let bench = Bench::new();
    let store = long_log(&bench);
    store.append(started("dead")).expect("appended");
    let file = bench.folder.path().join(FILE);
    store.end_abandoned(&|_| true, "a test").expect("read");
    let kept: serde_json::Value = serde_json::from_slice(&fs::read(&file).expect("kept")).expect("JSON");
    assert_eq!(kept["sessions"], serde_json::json!(["alive", "dead"]));
    // Each would hide the dead session, if it were believed.
    let other = |member: &str, value: serde_json::Value| {
        let mut other = kept.clone();
        other["sessions"] = serde_json::json!([]);
        other[member] = value;
        serde_json::to_vec(&other).expect("JSON")
    };
    let (bytes, segment) =
        (kept["bytes"].as_u64().expect("a number"), kept["segment"].as_u64().expect("one"));
    for wrong in [
        other("line", "A".repeat(43).into()),
        other("bytes", (bytes - 1).into()),
        other("bytes", (bytes + 1).into()),
        other("bytes", (1_u64 << 40).into()),
        other("bytes", 0.into()),
        other("segment", (segment - 1).into()),
        other("segment", 77.into()),
        other("segment", 0.into()),
        b"{".to_vec(),
        Vec::new(),
    ] {
        fs::write(&file, &wrong).expect("written");
        store.end_abandoned(&|_| true, "a test").expect("read");
        let found: serde_json::Value = serde_json::from_slice(&fs::read(&file).expect("kept")).expect("JSON");
        assert_eq!(found, kept, "{}", String::from_utf8_lossy(&wrong));
    }
    assert_eq!(end_dead(&store).expect("ended"), ["dead"]);
}

/// `cargo test -p ana-supervisor --lib evidence::tests::open::hundred_thousand -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn hundred_thousand_records() {
    let bench = Bench::new();
    let store = bench.store();
    store.append(started("alive")).expect("appended");
    let start = bench.segment(1).len();
    for id in 0..100 {
        store.append(allowed_by_rule(id, "alive")).expect("appended");
    }
    drop(store);
    // To read them is what is measured; they need not be true.
    let decisions = bench.segment(1)[start..].repeat(999);
    fs::OpenOptions::new()
        .append(true)
        .open(bench.segment_path(1))
        .expect("opened")
        .write_all(&decisions)
        .expect("written");
    let store = bench.store();
    for what in ["the whole log", "nothing new", "one record more"] {
        let begin = Instant::now();
        assert!(end_dead(&store).expect("read").is_empty());
        println!("{what}: {:?}", begin.elapsed());
        if what == "nothing new" {
            store.append(started("alive")).expect("appended");
        }
    }
}
