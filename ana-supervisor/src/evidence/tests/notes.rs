//! What a rule let go on is not forgotten when nobody is left to write it down.

use std::fs;
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::notes::{Note, Noted, Notes, left};
use super::super::store::Disk;
use super::super::writer::Budget;
use super::super::{Event, Store};
use super::writer::{allowed, start};
use super::{Bench, ended, started};
use crate::operation::Bytes;
use crate::state::State;

fn state(bench: &Bench) -> State {
    State::open(Some(bench.folder.path())).expect("the bench's own")
}

fn note(notes: &Notes, word: &str) -> Note {
    let argv = ["deploy", word].map(|word| Bytes(word.as_bytes().to_vec()));
    let program = Bytes(b"/usr/bin/deploy".to_vec());
    let at = "2026-11-22T10:00:00.000Z";
    notes.write(&Noted { program: &program, argv: &argv, rule: "deploy", pid: 7, at }).expect("noted")
}

/// The last word and the count of each.
fn words(noted: &[Value]) -> Vec<(String, u64)> {
    let word = |note: &Value| note["argv"][1]["text"].as_str().expect("a word").to_owned();
    noted.iter().map(|note| (word(note), note["count"].as_u64().expect("a count"))).collect()
}

/// What the losses of the log tell of.
fn told(bench: &Bench) -> Vec<(String, u64)> {
    let payloads = bench.payloads();
    let losses = payloads.iter().filter(|payload| payload.event == Event::Loss);
    let lists = losses.map(|payload| payload.detail.as_ref().expect("a detail")["let_through"].clone());
    lists.flat_map(|list| words(list.as_array().expect("a list"))).collect()
}

#[test]
fn what_is_settled_is_gone_and_its_place_is_used_again() {
    let bench = Bench::new();
    let (state, store) = (state(&bench), bench.store());
    let notes = store.notes("s").expect("made");
    let [one, two, _three] = ["one", "two", "three"].map(|word| note(&notes, word));
    one.settle();
    two.count(41).expect("written");
    let run = state.run_dir();
    let found = left(run, "s").expect("read");
    assert_eq!(words(&found), [("two".into(), 41), ("three".into(), 1)]);
    assert_eq!((&found[0]["rule"], &found[0]["pid"]), (&json!("deploy"), &json!(7)));
    // Shorter than what was there.
    drop(note(&notes, "x"));
    assert_eq!(words(&left(run, "s").expect("read"))[0], ("x".into(), 1));
    assert!(left(run, "another").expect("none").is_empty());
    store.notes("s").expect_err("they are one session's");
}

#[test]
fn a_note_that_was_not_finished_is_none() {
    let bench = Bench::new();
    let (state, store) = (state(&bench), bench.store());
    let notes = store.notes("s").expect("made");
    drop(note(&notes, "one"));
    let path = state.run_dir().path().join("s.notes");
    let whole = fs::read(&path).expect("there");
    for length in 0..whole.len() - 1 {
        fs::write(&path, &whole[..length]).expect("written");
        assert!(left(state.run_dir(), "s").expect("read").is_empty(), "{length} bytes");
    }
    fs::write(&path, &whole[..whole.len() - 1]).expect("written");
    assert_eq!(left(state.run_dir(), "s").expect("read").len(), 1, "all but the line's end");
}

#[test]
fn too_long_and_too_many_are_refused() {
    let bench = Bench::new();
    let store = bench.store();
    let notes = store.notes("s").expect("made");
    let write = |argv: &[Bytes]| {
        let program = Bytes(Vec::new());
        notes.write(&Noted { program: &program, argv, rule: "r", pid: 1, at: "" })
    };
    let error = write(&[Bytes(vec![b'x'; 64 << 10])]).expect_err("too long");
    assert_eq!(error.kind(), std::io::ErrorKind::FileTooLarge);
    let mut all: Vec<Note> = std::iter::from_fn(|| write(&[]).ok()).collect();
    assert_eq!(all.len(), 4096);
    all.pop().expect("one of them").settle();
    write(&[]).expect("its place is free");
}

#[test]
fn whoever_ends_a_dead_session_records_what_it_noted() {
    let bench = Bench::new();
    let (state, store) = (state(&bench), bench.store());
    store.append(started("dead")).expect("appended");
    drop(note(&store.notes("dead").expect("made"), "one"));
    assert_eq!(store.end_abandoned(&|_| false, "a test").expect("ended"), ["dead"]);
    assert_eq!(told(&bench), [("one".into(), 1)]);
    let events: Vec<_> = bench.payloads().iter().map(|payload| payload.event).collect();
    assert_eq!(events, [Event::SessionStart, Event::Loss, Event::SessionEnd]);
    assert!(!state.run_dir().names().expect("read").contains(&"dead.notes".to_owned()));
    assert_eq!(bench.verify().expect("valid").losses, 1);
}

#[test]
fn a_session_that_ends_in_order_leaves_no_notes() {
    let bench = Bench::new();
    let store = bench.store();
    store.append(started("s")).expect("appended");
    let notes = store.notes("s").expect("made");
    note(&notes, "one").settle();
    store.settle_notes("s").expect("nothing to tell");
    store.append(ended("s")).expect("appended");
    assert!(told(&bench).is_empty());
    let notes = store.notes("s").expect("removed, so it can be made");
    drop(note(&notes, "two"));
    store.settle_notes("s").expect("recorded");
    assert_eq!(told(&bench), [("two".into(), 1)]);
}

/// The moments in which a supervisor may be killed: before the record is on the disk, and while it is folded.
#[test]
fn the_writer_settles_what_is_on_the_disk_and_nothing_before() {
    let bench = Bench::new();
    let state = state(&bench);
    let mut store: Store = bench.store();
    store.append(started("s")).expect("appended");
    let notes = store.notes("s").expect("made");
    let (begun, at_disk) = std::sync::mpsc::channel();
    let (go_on, told) = std::sync::mpsc::channel::<()>();
    let told = std::sync::Mutex::new(told);
    let sync = move |file: &fs::File| {
        begun.send(()).expect("the test");
        told.lock().expect("one writer").recv().expect("the test");
        file.sync_data()
    };
    store.disk = Disk { sync: Box::new(sync), ..Disk::default() };
    let store = Arc::new(store);
    let budget = Budget { a_minute: 1, fold: std::time::Duration::from_secs(3600), queue: 64 };
    let (writer, _broken) = start(&store, budget);
    let noted = || words(&left(state.run_dir(), "s").expect("read"));
    let write = |id: u32, word: &str| {
        writer.later(allowed(id), Some(note(&notes, word))).expect("taken");
    };
    write(1, "single");
    at_disk.recv().expect("it is being written");
    assert_eq!(noted(), [("single".into(), 1)], "not on the disk yet");
    write(2, "folded");
    for id in 3..6 {
        write(id, "alike");
    }
    go_on.send(()).expect("the writer");
    let folded = || noted() == [("folded".to_owned(), 4)];
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !folded() {
        assert!(std::time::Instant::now() < end, "{:?}", noted());
        std::thread::yield_now();
    }
    std::thread::scope(|scope| {
        let flushed = scope.spawn(|| writer.flush().expect("on the disk"));
        at_disk.recv().expect("the fold is being written");
        assert!(folded(), "{:?}", noted());
        go_on.send(()).expect("the writer");
        flushed.join().expect("flushed");
    });
    assert!(noted().is_empty(), "{:?}", noted());
}
