//! The log under a writer's and a reader's feet: what others do to its files while they are open.

use std::fs;
use std::process::Command;

use serde_json::json;

use super::super::LINE_BYTES_MAX;
use super::super::chain;
use super::super::read::{Lines, Next};
use super::super::store::lock_shared;
use super::super::{Entry, Event, EvidenceError, Store};
use super::Bench;

fn note(text: &str) -> Entry {
    Entry::new(Event::Tamper).detail(json!({ "note": text }))
}

/// The next record is refused, and the segment named.
fn is_refused(store: &Store) {
    let error = store.append(note("more")).expect_err("the log is another");
    let EvidenceError::Damaged { path, what } = &error else { panic!("{error:?}") };
    assert_eq!(*what, "records that were written are gone");
    assert!(path.ends_with("evidence/000001.jsonl"), "{error}");
}

#[test]
fn nothing_is_appended_to_a_file_that_was_removed() {
    let bench = Bench::new();
    let store = bench.store();
    store.append(note("one")).expect("appended");
    // The same bytes under the same name, and still not the file that is open.
    let whole = bench.segment(1);
    fs::remove_file(bench.segment_path(1)).expect("removed");
    fs::write(bench.segment_path(1), &whole).expect("written");
    is_refused(&store);
    assert_eq!(bench.segment(1), whole);
}

#[test]
fn nothing_is_appended_to_a_log_that_has_become_shorter() {
    let bench = Bench::new();
    let store = bench.store();
    let mut shorter = Vec::new();
    for text in ["one", "two"] {
        store.append(note(text)).expect("appended");
        if shorter.is_empty() {
            shorter = bench.segment(1);
        }
    }
    fs::write(bench.segment_path(1), &shorter).expect("written");
    is_refused(&store);
    assert_eq!(bench.segment(1), shorter);
}

#[test]
fn nothing_is_appended_to_a_longer_log_with_fewer_records() {
    let (bench, other) = (Bench::new(), Bench::new());
    let store = bench.store();
    for text in ["one", "two"] {
        store.append(note(text)).expect("appended");
    }
    other.store().append(note(&"x".repeat(5000))).expect("appended");
    fs::write(bench.segment_path(1), other.segment(1)).expect("written");
    is_refused(&store);
    assert_eq!(bench.segment(1), other.segment(1));
}

#[test]
fn a_writer_follows_another_into_the_next_segment() {
    let bench = Bench::new();
    let (store, mut other) = (bench.store(), bench.store());
    other.segment_bytes_max = 100;
    store.append(note("one")).expect("appended");
    other.append(note("two")).expect("appended");
    assert_eq!(store.append(note("three")).expect("appended").seq, 3);
    let report = bench.verify().expect("valid");
    assert_eq!((report.records, report.segments), (3, 2));
}

/// A writer that is stopped right after it made a segment leaves an empty one.
#[test]
fn a_log_whose_last_segment_is_empty_goes_on() {
    let bench = Bench::new();
    for text in ["one", "two"] {
        bench.store().append(note(text)).expect("appended");
    }
    fs::write(bench.segment_path(2), b"").expect("written");
    assert_eq!(bench.store().append(note("three")).expect("appended").seq, 3);
    let report = bench.verify().expect("valid");
    assert_eq!((report.records, report.segments), (3, 2));
}

/// The end is looked for in the last 16 KiB first.
#[test]
fn a_long_end_is_found() {
    let bench = Bench::new();
    bench.store().append(note("one")).expect("appended");
    bench.store().append(note(&"x".repeat(40_000))).expect("appended");
    assert_eq!(bench.store().append(note("three")).expect("appended").seq, 3);
    let torn = [bench.segment(1), vec![b'x'; 40_000]].concat();
    fs::write(bench.segment_path(1), torn).expect("written");
    assert_eq!(bench.store().append(note("five")).expect("appended").seq, 5, "the fourth tells the loss");
    let report = bench.verify().expect("valid");
    assert_eq!((report.records, report.losses), (5, 1));
}

#[test]
fn a_segment_has_one_name() {
    for (name, number) in [
        ("000001.jsonl", Some(1)),
        ("999999.jsonl", Some(999_999)),
        ("000000.jsonl", None),
        ("1.jsonl", None),
        ("+00001.jsonl", None),
        ("000001.jsonl.bak", None),
    ] {
        assert_eq!(chain::segment_number(name), number, "{name}");
    }
}

#[test]
fn only_the_last_segment_may_end_in_half_a_record() {
    let bench = Bench::new();
    bench.store().append(note("one")).expect("appended");
    let torn = [bench.segment(1), b"half".to_vec()].concat();
    fs::write(bench.segment_path(1), torn).expect("written");
    fs::write(bench.segment_path(2), b"").expect("written");
    let error = Store::open(&bench.state).err().expect("damaged");
    assert!(
        matches!(&error, EvidenceError::Damaged { path, .. } if path == &bench.segment_path(1)),
        "{error}"
    );
}

#[test]
fn a_next_segment_that_cannot_be_opened_is_an_error() {
    let bench = Bench::new();
    let store = bench.store();
    store.append(note("one")).expect("appended");
    std::os::unix::fs::symlink("/dev/null", bench.segment_path(2)).expect("linked");
    store.append(note("two")).expect_err("a link was followed, or ignored");
    assert_eq!(bench.segment(1).iter().filter(|byte| **byte == b'\n').count(), 1);
}

#[test]
fn readers_share_the_lock_where_there_is_one() {
    let bench = Bench::new();
    drop(bench.store());
    let (folder, lock) = (bench.state.evidence_dir(), bench.evidence().join("lock"));
    let writer = || {
        let flock = Command::new("flock").arg("-n").arg(&lock).arg("true").status();
        flock.expect("util-linux is there").success()
    };
    let readers = [lock_shared(folder).expect("locked"), lock_shared(folder).expect("shared")];
    assert!(readers.iter().all(Option::is_some) && !writer());
    drop(readers);
    assert!(writer());
    fs::remove_file(&lock).expect("removed");
    assert!(lock_shared(folder).expect("a copy has none").is_none());
    std::os::unix::fs::symlink("/dev/null", &lock).expect("linked");
    assert!(lock_shared(folder).is_err(), "a link was followed, or ignored");
}

/// What a reader makes of so many bytes, and a newline where there is one.
fn line(len: usize, newline: bool) -> &'static str {
    let mut text = vec![b'x'; len];
    if newline {
        text.push(b'\n');
    }
    match Lines::new(text.as_slice()).next().expect("memory") {
        Next::Line(line) if line.len() == len => "line",
        Next::Line(_) => "another line",
        Next::Torn => "torn",
        Next::TooLong => "too long",
        Next::End => "end",
    }
}

#[test]
fn the_longest_line_is_read_and_no_longer_one() {
    assert_eq!(line(LINE_BYTES_MAX, true), "line");
    assert_eq!(line(LINE_BYTES_MAX, false), "torn");
    assert_eq!(line(LINE_BYTES_MAX + 1, true), "too long");
    assert_eq!((line(0, false), line(1, false)), ("end", "torn"));
}
