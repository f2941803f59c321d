//! Many records at once: one sync for all of them, a bounded queue, and what a flood becomes.

use std::fs;
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::time::{Duration, Instant};

use super::super::store::Disk;
use super::super::writer::{Budget, LaterError, Writer};
use super::super::{Event, EvidenceError, Store};
use super::append::Tmpfs;
use super::{Bench, allowed_by_rule, ended, needs_root, operation, started};
use crate::approval::{Decided, Judged};
use crate::operation::Verify;
use crate::policy::{Action, Verdict};

fn judged(id: u32, action: Action) -> Judged {
    let verdict = Verdict {
        action,
        rule: "git".into(),
        because: "allow[0]".into(),
        timeout: Duration::from_secs(120),
        verify: Verify::Presence,
        exclusive: false,
        needs_argv: true,
    };
    Judged { operation: Arc::new(operation(id, "s")), verdict, alike: None }
}

pub(super) fn allowed(id: u32) -> Decided {
    Decided::by_rule(judged(id, Action::Allow)).expect("a rule decides")
}

pub(super) fn start(store: &Arc<Store>, budget: Budget) -> (Writer, mpsc::Receiver<EvidenceError>) {
    let (told, broken) = mpsc::channel();
    let writer = Writer::start(Arc::clone(store), budget, move |error| told.send(error).expect("the test"));
    (writer.expect("a thread"), broken)
}

/// A store whose syncs are counted, the first of which waits until `ready` says so.
fn counting(bench: &Bench, ready: impl Fn() + Send + Sync + 'static) -> (Store, Arc<AtomicUsize>) {
    let mut store = bench.store();
    let syncs = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&syncs);
    let sync = move |file: &fs::File| {
        if count.fetch_add(1, Ordering::SeqCst) == 0 {
            ready();
        }
        file.sync_data()
    };
    store.disk = Disk { sync: Box::new(sync), ..Disk::default() };
    (store, syncs)
}

#[test]
fn records_that_come_during_a_sync_share_the_next_one() {
    const OTHERS: u32 = 64;
    let bench = Bench::new();
    let (told, begun) = mpsc::channel();
    let go_on = Arc::new(Barrier::new(2));
    let wait = Arc::clone(&go_on);
    let (store, syncs) = counting(&bench, move || {
        told.send(()).expect("the test");
        wait.wait();
    });
    std::thread::scope(|scope| {
        scope.spawn(|| store.append(started("s")).expect("appended"));
        begun.recv().expect("the first sync");
        for id in 0..OTHERS {
            let store = &store;
            scope.spawn(move || store.append(allowed_by_rule(id, "s")).expect("appended"));
        }
        while store.waiting() < OTHERS as usize {
            std::thread::yield_now();
        }
        go_on.wait();
    });
    assert_eq!(syncs.load(Ordering::SeqCst), 2);
    store.append(ended("s")).expect("appended");
    assert_eq!(bench.verify().expect("valid").allowed, u64::from(OTHERS));
}

#[test]
fn a_batch_that_fails_is_told_to_each_and_leaves_no_trace() {
    let bench = Bench::new();
    let mut store = bench.store();
    store.append(started("s")).expect("appended");
    let before = bench.segment(1);
    store.disk = Disk { sync: Box::new(|_| Err(std::io::Error::from_raw_os_error(5))), ..Disk::default() };
    let results = store.append_all((0..5).map(|id| allowed_by_rule(id, "s")).collect());
    assert_eq!(results.len(), 5);
    assert!(results.iter().all(Result::is_err), "{results:?}");
    assert_eq!(bench.segment(1), before);
    store.disk = Disk::default();
    store.append(ended("s")).expect("appended");
    assert_eq!(bench.verify().expect("valid").records, 2);
}

/// The first record of a segment cannot be written, the second can: it follows what is there, in the same segment.
#[test]
fn what_follows_a_failed_write_follows_what_is_on_the_disk() {
    let bench = Bench::new();
    let mut store = bench.store();
    store.append(started("s")).expect("appended");
    store.segment_bytes_max = 100;
    let calls = AtomicUsize::new(0);
    let write = move |mut file: &fs::File, bytes: &[u8]| match calls.fetch_add(1, Ordering::SeqCst) {
        0 => Err(std::io::ErrorKind::StorageFull.into()),
        _ => file.write(bytes),
    };
    store.disk = Disk { write: Box::new(write), ..Disk::default() };
    let results = store.append_all(vec![allowed_by_rule(1, "s"), allowed_by_rule(2, "s")]);
    let seqs: Vec<_> = results.iter().map(|result| result.as_ref().ok().map(|receipt| receipt.seq)).collect();
    assert_eq!(seqs, [None, Some(2)]);
    store.append(ended("s")).expect("appended");
    let report = bench.verify().expect("valid");
    assert_eq!((report.records, report.allowed, report.segments), (3, 1, 3));
}

#[test]
fn a_batch_goes_over_segments_and_one_bad_record_hinders_no_other() {
    let bench = Bench::new();
    let mut store = bench.store();
    store.segment_bytes_max = 4000;
    store.append(started("s")).expect("appended");
    let mut entries: Vec<_> = (0..20).map(|id| allowed_by_rule(id, "s")).collect();
    entries[7].rule = Some("another".into());
    let results = store.append_all(entries);
    let good: Vec<u64> = results.iter().flatten().map(|receipt| receipt.seq).collect();
    assert_eq!(good, (2..=20).collect::<Vec<u64>>());
    assert!(matches!(results[7], Err(EvidenceError::Entry(_))), "{:?}", results[7]);
    store.append(ended("s")).expect("appended");
    let report = bench.verify().expect("valid");
    assert_eq!((report.records, report.allowed), (21, 19));
    assert!(report.segments > 4, "{} segments", report.segments);
}

#[test]
fn what_a_rule_allows_is_written_later_and_flushed() {
    const COUNT: u32 = 400;
    let bench = Bench::new();
    let (told, begun) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let (store, syncs) = counting(&bench, move || {
        told.send(()).expect("the test");
        released.lock().expect("one sync").recv().expect("the test");
    });
    let store = Arc::new(store);
    let (writer, broken) = start(&store, Budget::default());
    std::thread::scope(|scope| {
        scope.spawn(|| store.append(started("s")).expect("appended"));
        begun.recv().expect("the first sync");
        // The disk stands still; nobody who is allowed by a rule waits for it.
        for id in 0..COUNT {
            writer.later(allowed(id), None).expect("taken");
        }
        release.send(()).expect("the sync");
    });
    writer.flush().expect("on the disk");
    assert!(broken.try_recv().is_err());
    assert!(syncs.load(Ordering::SeqCst) < 20, "{syncs:?} syncs for {COUNT} records");
    store.append(ended("s")).expect("appended");
    let report = bench.verify().expect("valid");
    assert_eq!((report.allowed, report.folded), (u64::from(COUNT), 0));
}

#[test]
fn only_what_a_rule_allows_may_be_written_later() {
    let bench = Bench::new();
    let (writer, _broken) = start(&Arc::new(bench.store()), Budget::default());
    let denied = Decided::by_rule(judged(1, Action::Deny)).expect("a rule decides");
    let refused = Decided::refused(judged(2, Action::Approve), "bob", "no");
    for decided in [denied, refused] {
        let error = writer.later(decided, None).expect_err("not for later");
        assert!(matches!(error, LaterError::NotByRule), "{error}");
    }
    writer.flush().expect("nothing to write");
    assert!(bench.payloads().is_empty());
}

#[test]
fn a_flood_is_folded_into_counts() {
    let bench = Bench::new();
    let store = Arc::new(bench.store());
    store.append(started("s")).expect("appended");
    let budget = Budget { a_minute: 5, ..Budget::default() };
    let (writer, _broken) = start(&store, budget);
    for id in 0..200 {
        writer.later(allowed(id), None).expect("taken");
    }
    writer.flush().expect("on the disk");
    store.append(ended("s")).expect("appended");
    let report = bench.verify().expect("valid");
    // A slow machine may refill the budget by one or two meanwhile.
    assert!(report.allowed < 10, "{report:?}");
    assert_eq!(report.allowed + report.folded, 200, "each is recorded or counted");
    let folded = bench.payloads().into_iter().find(|payload| payload.folded().is_some()).expect("a fold");
    let detail = folded.detail.as_ref().expect("a detail");
    assert!(detail["folded_since"].is_string() && detail["decided_by"] == "rule", "{detail}");
}

#[test]
fn a_fold_is_written_when_its_time_has_come() {
    let bench = Bench::new();
    let store = Arc::new(bench.store());
    store.append(started("s")).expect("appended");
    let budget = Budget { a_minute: 1, fold: Duration::from_millis(50), ..Budget::default() };
    let (writer, _broken) = start(&store, budget);
    for id in 0..10 {
        writer.later(allowed(id), None).expect("taken");
    }
    let end = Instant::now() + Duration::from_secs(20);
    let counted = || -> u64 {
        bench.payloads().iter().filter(|p| p.event == Event::Decision).map(|p| p.folded().unwrap_or(1)).sum()
    };
    while counted() < 10 {
        assert!(Instant::now() < end, "nobody flushed, and the fold was not written");
        std::thread::yield_now();
    }
}

#[test]
fn a_fold_waits_for_its_time_and_says_how_many_only_of_several() {
    for (count, folded) in [(2, None), (50, Some(49))] {
        let bench = Bench::new();
        let store = Arc::new(bench.store());
        store.append(started("s")).expect("appended");
        // Many short turns of the thread, and none of them writes the fold.
        let budget = Budget { a_minute: 1, fold: Duration::from_secs(3600), queue: 1 };
        let (writer, _broken) = start(&store, budget);
        for id in 0..count {
            writer.later(allowed(id), None).expect("taken");
        }
        writer.flush().expect("on the disk");
        let counts: Vec<_> = bench
            .payloads()
            .iter()
            .skip(1)
            .map(|p| p.detail.as_ref().and_then(|d| d["folded"].as_u64()))
            .collect();
        assert_eq!(counts, [None, folded]);
    }
}

#[test]
fn a_writer_that_fails_says_so_once_and_takes_nothing_more() {
    let bench = Bench::new();
    let mut store = bench.store();
    store.append(started("s")).expect("appended");
    store.disk =
        Disk { write: Box::new(|_, _| Err(std::io::ErrorKind::StorageFull.into())), ..Disk::default() };
    let (writer, broken) = start(&Arc::new(store), Budget::default());
    writer.later(allowed(1), None).expect("taken");
    let error = broken.recv().expect("told");
    assert!(matches!(error, EvidenceError::Write { .. }), "{error}");
    while writer.later(allowed(2), None).is_ok() {
        std::thread::yield_now();
    }
    assert!(matches!(writer.flush(), Err(EvidenceError::Stopped)));
}

#[test]
fn an_almost_full_disk_takes_ends_but_no_decisions() {
    if !needs_root() {
        return;
    }
    let tmpfs = Tmpfs::mount();
    let bench = tmpfs.bench();
    let store = Arc::new(bench.store());
    store.append(started("s")).expect("appended");
    let (writer, _broken) = start(&store, Budget::default());
    let filler = bench.folder.path().join("filler");
    let mut size = 0;
    while store.room().is_ok() {
        size += 4096;
        fs::write(&filler, vec![0; size]).expect("there is a reserve");
    }
    let error = store.append(allowed_by_rule(1, "s")).expect_err("denied");
    let EvidenceError::NoRoom { free, reserve, .. } = &error else { panic!("{error}") };
    assert!(free < reserve, "{error}");
    // Less is no better.
    fs::write(&filler, vec![0; size + 4096]).expect("there is still a reserve");
    store.room().expect_err("even less room");
    fs::write(&filler, vec![0; size]).expect("written");
    assert!(error.to_string().contains("make room"), "{error}");
    writer.later(allowed(2), None).expect("it has happened already");
    writer.flush().expect("written");
    store.append(ended("s")).expect("the end is written all the same");
    assert_eq!(bench.verify().expect("valid").records, 3);
    fs::remove_file(&filler).expect("removed");
    store.room().expect("there is room again");
}
