//! What may happen while a record is written.

use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;

use super::super::store::Disk;
use super::super::{Entry, Event, EvidenceError, RecordedVerdict};
use super::{Bench, allowed_by_rule, ended, needs_root, started};

fn note(text: &str) -> Entry {
    Entry::new(Event::Tamper).detail(json!({ "note": text }))
}

#[test]
fn records_follow_one_another_over_segments_and_processes() {
    let bench = Bench::new();
    let mut store = bench.store();
    store.segment_bytes_max = 3000;
    assert_eq!(store.append(started("s")).expect("appended").seq, 1);
    for seq in 2..20 {
        assert_eq!(store.append(allowed_by_rule(seq, "s")).expect("appended").seq, u64::from(seq));
    }
    let kid = store.kid().to_owned();
    drop(store);
    assert_eq!(bench.store().append(ended("s")).expect("appended").seq, 20);
    let report = bench.verify().expect("valid");
    assert_eq!((report.records, report.decisions), (20, 18));
    assert_eq!(report.keys, [kid].into());
    assert!(report.segments > 5, "{} segments", report.segments);
}

#[test]
fn an_interrupted_write_goes_on() {
    let bench = Bench::new();
    let mut store = bench.store();
    let calls = AtomicUsize::new(0);
    let write = move |mut file: &fs::File, bytes: &[u8]| match calls.fetch_add(1, Ordering::SeqCst) {
        0 | 2 => Err(std::io::ErrorKind::Interrupted.into()),
        // And a short one between.
        1 => file.write(&bytes[..10]),
        _ => file.write(bytes),
    };
    store.disk = Disk { write: Box::new(write), ..Disk::default() };
    store.append(note("whole")).expect("appended");
    assert_eq!(bench.verify().expect("valid").records, 1);
}

#[test]
fn every_kind_of_record_is_counted() {
    let bench = Bench::new();
    let store = bench.store();
    let denied = Entry { verdict: Some(RecordedVerdict::Deny), ..allowed_by_rule(3, "s") };
    let entries = [
        [started("s"), started("t"), allowed_by_rule(1, "s"), allowed_by_rule(2, "s"), denied],
        [note("a"), note("b"), Entry::new(Event::Loss), Entry::new(Event::Loss), ended("s")],
    ];
    for entry in entries.into_iter().flatten() {
        store.append(entry).expect("appended");
    }
    let report = bench.verify_with(&|session| session == "t").expect("valid");
    assert_eq!((report.records, report.sessions, report.live_sessions), (10, 2, 1));
    assert_eq!((report.decisions, report.allowed, report.denied, report.folded), (3, 2, 1, 0));
    assert_eq!((report.tampers, report.losses), (2, 2));
    let development = bench.payloads().iter().filter(|payload| payload.development).count();
    assert_eq!(report.development, development as u64);
}

#[test]
fn a_record_is_synced_before_success_is_claimed() {
    let bench = Bench::new();
    let mut store = bench.store();
    let log = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (writes, syncs) = (Arc::clone(&log), Arc::clone(&log));
    store.disk = Disk {
        write: Box::new(move |mut file, bytes| {
            writes.lock().expect("the log").push("write");
            file.write(bytes)
        }),
        sync: Box::new(move |file| {
            syncs.lock().expect("the log").push("sync");
            file.sync_data()
        }),
    };
    store.append(note("a")).expect("appended");
    assert_eq!(*log.lock().expect("the log"), ["write", "sync"]);
}

#[test]
fn what_fails_is_not_claimed_and_leaves_no_trace() {
    let failing: [fn() -> Disk; 3] = [
        || Disk { write: Box::new(|_, _| Err(io::ErrorKind::StorageFull.into())), ..Disk::default() },
        || Disk {
            write: Box::new(|mut file, bytes| match bytes.len() {
                0..100 => Err(io::ErrorKind::StorageFull.into()),
                _ => file.write(&bytes[..100.min(bytes.len())]),
            }),
            ..Disk::default()
        },
        || Disk { sync: Box::new(|_| Err(io::Error::from_raw_os_error(5))), ..Disk::default() },
    ];
    for disk in failing {
        let bench = Bench::new();
        let mut store = bench.store();
        store.append(note("before")).expect("appended");
        let before = bench.segment(1);
        store.disk = disk();
        for _ in 0..3 {
            let error = store.append(note("lost")).expect_err("nothing may be claimed");
            assert!(matches!(error, EvidenceError::Write { .. }), "{error}");
            assert_eq!(bench.segment(1), before);
        }
        store.disk = Disk::default();
        assert_eq!(store.append(note("after")).expect("appended").seq, 2);
        assert_eq!(bench.verify().expect("valid").records, 2);
    }
}

#[test]
fn a_torn_tail_of_every_length_is_repaired() {
    let bench = Bench::new();
    let store = bench.store();
    store.append(note("one")).expect("appended");
    let whole = bench.segment(1).len();
    store.append(note("two")).expect("appended");
    drop(store);
    let both = bench.segment(1);
    for cut in whole + 1..both.len() {
        fs::write(bench.segment_path(1), &both[..cut]).expect("written");
        assert!(bench.verify().is_err(), "a torn tail of {} bytes was not seen", cut - whole);
        let receipt = bench.store().append(note("three")).expect("repaired");
        assert_eq!(receipt.seq, 3, "the loss is a record too");
        if cut % 16 == 0 || cut + 1 == both.len() {
            let report = bench.verify().expect("valid");
            assert_eq!((report.records, report.losses), (3, 1));
            assert_eq!(bench.payloads()[1].detail.as_ref().expect("a detail")["bytes"], cut - whole);
        }
    }
}

#[test]
fn a_log_that_became_shorter_is_refused_for_good() {
    let bench = Bench::new();
    let store = bench.store();
    store.append(note("one")).expect("appended");
    let one = bench.segment(1);
    store.append(note("two")).expect("appended");
    fs::write(bench.segment_path(1), &one).expect("written");
    for _ in 0..2 {
        let error = store.append(note("three")).expect_err("records are gone");
        assert!(matches!(error, EvidenceError::Damaged { .. }), "{error}");
    }
    fs::remove_file(bench.segment_path(1)).expect("removed");
    assert!(store.append(note("three")).is_err());
}

#[test]
fn garbage_at_the_end_is_refused_and_named() {
    let bench = Bench::new();
    bench.store().append(note("one")).expect("appended");
    OpenOptions::new()
        .append(true)
        .open(bench.segment_path(1))
        .expect("opened")
        .write_all(b"x\n")
        .expect("written");
    let error = super::super::Store::open(&bench.state).err().expect("damaged").to_string();
    assert!(error.contains("000001.jsonl is damaged"), "{error}");
}

#[test]
fn threads_and_processes_append_at_once() {
    let bench = Bench::new();
    let store = Arc::new(bench.store());
    let children: Vec<Child> = (0..2).map(|_| writer(&bench, "64", "")).collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..32).for_each(|_| drop(store.append(note("thread")).expect("appended"))));
        }
    });
    for mut child in children {
        assert!(child.wait().expect("waited").success());
    }
    assert_eq!(bench.verify().expect("valid").records, 2 * 64 + 4 * 32);
}

#[test]
fn a_killed_writer_never_leaves_a_log_that_cannot_go_on() {
    let bench = Bench::new();
    for round in 0..25_u64 {
        let mut child = writer(&bench, "1000000", &"x".repeat(600_000));
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut claimed = claim(&mut lines).expect("the first claim");
        // The delay is the point: another moment of the writer's work in each round.
        std::thread::sleep(Duration::from_micros(round * 977 % 7919));
        child.kill().expect("killed");
        child.wait().expect("waited");
        while let Some(seq) = claim(&mut lines) {
            claimed = seq;
        }
        let next = bench.store().append(note("next")).expect("the log goes on").seq;
        assert!(next > claimed, "record {claimed} was claimed, the next one is {next}");
    }
    bench.verify().expect("valid");
}

fn claim(lines: &mut impl Iterator<Item = io::Result<String>>) -> Option<u64> {
    lines.find_map(|line| line.ok()?.split_once("claimed ")?.1.parse().ok())
}

/// This test binary once more, appending `count` records.
fn writer(bench: &Bench, count: &str, text: &str) -> Child {
    Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "evidence::tests::append::writer_process", "--ignored", "--nocapture"])
        .env("ANA_TEST_WRITER", bench.folder.path())
        .env("ANA_TEST_COUNT", count)
        .env("ANA_TEST_TEXT_LEN", text.len().to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("started")
}

#[test]
#[ignore = "the other process of the tests above"]
fn writer_process() {
    let Some(folder) = std::env::var_os("ANA_TEST_WRITER") else {
        return;
    };
    let number =
        |name| std::env::var(name).ok().and_then(|text| text.parse::<usize>().ok()).expect("a number");
    let state = crate::state::State::open(Some(folder.as_ref())).expect("the state opens");
    let store = super::super::Store::open(&state).expect("the store opens");
    let text = "x".repeat(number("ANA_TEST_TEXT_LEN"));
    for _ in 0..number("ANA_TEST_COUNT") {
        let seq = store.append(note(&text)).expect("appended").seq;
        println!("claimed {seq}");
    }
}

/// A small file system of its own.
pub(super) struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    pub(super) fn mount() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (kind, options) = (Some("tmpfs"), Some("size=256k,mode=755"));
        mount(Some("ana-test"), folder.path(), kind, MsFlags::empty(), options).expect("mounted");
        Self(folder)
    }

    pub(super) fn bench(&self) -> Bench {
        Bench::at(tempfile::tempdir_in(self.0.path()).expect("a folder"))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        umount2(self.0.path(), MntFlags::MNT_DETACH).expect("unmounted");
    }
}

#[test]
fn a_full_disk_is_an_error_and_the_log_goes_on_afterwards() {
    if !needs_root() {
        return;
    }
    let tmpfs = Tmpfs::mount();
    let bench = tmpfs.bench();
    let store = bench.store();
    store.append(note("before")).expect("appended");
    let filler = bench.folder.path().join("filler");
    // Until nothing fits any more.
    let mut file = fs::File::create(&filler).expect("created");
    while file.write(&[0; 4096]).is_ok_and(|written| written > 0) {}
    let mut appended = 0;
    let error = loop {
        match store.append(note(&"x".repeat(1500))) {
            Ok(_) => appended += 1,
            Err(error) => break error,
        }
        assert!(appended < 10, "the disk is not full");
    };
    assert!(format!("{error:?}").contains("StorageFull"), "{error:?}");
    let len = bench.segment(1).len();
    store.append(note(&"x".repeat(1500))).expect_err("still full");
    assert_eq!(bench.segment(1).len(), len, "nothing of it is left");
    fs::remove_file(&filler).expect("removed");
    drop(file);
    assert_eq!(store.append(note("after")).expect("appended").seq, 2 + appended);
    assert_eq!(bench.verify().expect("valid").records, 2 + appended);
}

#[test]
fn a_read_only_folder_is_an_error() {
    if !needs_root() {
        return;
    }
    let tmpfs = Tmpfs::mount();
    let bench = tmpfs.bench();
    let store = bench.store();
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(None::<&str>, tmpfs.0.path(), None::<&str>, flags, None::<&str>).expect("remounted");
    store.append(note("no")).expect_err("read-only");
    super::super::Store::open(&bench.state).err().expect("read-only");
}

#[test]
fn nobody_else_can_take_the_lock_or_read_a_record() {
    if !needs_root() {
        return;
    }
    let bench = Bench::new();
    bench.store().append(note("one")).expect("appended");
    let base = bench.folder.path();
    let mode = |name: &str| fs::metadata(base.join(name)).expect("it is there").permissions().mode() & 0o7777;
    assert_eq!(["evidence", "keys", "keys/signing", "run"].map(mode), [0o700, 0o755, 0o700, 0o755]);
    assert_eq!(["evidence/lock", "evidence/000001.jsonl"].map(mode), [0o600, 0o600]);
    let kid = bench.store().kid().to_owned();
    assert_eq!(
        [format!("keys/{kid}.jwk"), format!("keys/signing/{kid}.pem")].map(|n| mode(&n)),
        [0o644, 0o600]
    );
    // Even if someone opens the folders, the lock itself stays closed.
    for folder in ["", "evidence"] {
        fs::set_permissions(base.join(folder), fs::Permissions::from_mode(0o755)).expect("opened");
    }
    let lock = base.join("evidence/lock");
    let taken = Command::new("flock").arg("-n").arg(&lock).arg("true").uid(65534).gid(65534).output();
    let taken = taken.expect("util-linux is there");
    assert!(!taken.status.success() && String::from_utf8_lossy(&taken.stderr).contains("ermission denied"));
    let taken = Command::new("flock").arg("-n").arg(&lock).arg("true").output().expect("util-linux is there");
    assert!(taken.status.success(), "root can");
}

#[test]
fn sessions_without_an_end_are_ended_once() {
    let bench = Bench::new();
    let store = bench.store();
    for session in ["dead", "alive", "over"] {
        store.append(started(session)).expect("appended");
    }
    store.append(ended("over")).expect("appended");
    assert_eq!(store.end_abandoned(&|session| session == "alive", "a test").expect("ended"), ["dead"]);
    assert!(store.end_abandoned(&|session| session == "alive", "a test").expect("ended").is_empty());
    let report = bench.verify_with(&|session| session == "alive").expect("valid");
    assert_eq!((report.sessions, report.live_sessions), (3, 1));
}

#[test]
fn the_journal_is_told_the_head_at_the_end_of_a_session() {
    let bench = Bench::new();
    let mut store = bench.store();
    store.journal = bench.folder.path().join("journal");
    store.append(started("s")).expect("without a journal");
    let journal = std::os::unix::net::UnixDatagram::bind(&store.journal).expect("bound");
    journal.set_nonblocking(true).expect("set");
    store.append(note("no head")).expect("appended");
    let receipt = store.append(ended("s")).expect("appended");
    let mut message = [0; 4096];
    let len = journal.recv(&mut message).expect("one message");
    let message = std::str::from_utf8(&message[..len]).expect("text");
    assert!(
        message.contains(&format!("\nANA_EVIDENCE_SEQ=3\nANA_EVIDENCE_HASH={}\n", receipt.hash)),
        "{message}"
    );
    assert!(journal.recv(&mut [0]).is_err(), "no second one");
    assert_eq!(bench.verify().expect("valid").head, Some(receipt.hash));
    // A head is signed, and still no record.
    let head = message.lines().find_map(|line| line.strip_prefix("ANA_EVIDENCE_HEAD=")).expect("the head");
    let mut file = OpenOptions::new().append(true).open(bench.segment_path(1)).expect("opened");
    writeln!(file, "{head}").expect("written");
    let error = bench.verify().expect_err("no record").to_string();
    assert!(error.contains("typ is not ana-evidence+jwt"), "{error}");
}

#[test]
fn an_exec_with_megabytes_of_arguments_is_recorded() {
    let bench = Bench::new();
    let store = bench.store();
    let mut entry = allowed_by_rule(1, "s");
    let Some(crate::operation::Operation { kind: crate::operation::Kind::Exec(exec), .. }) =
        &mut entry.operation
    else {
        panic!("an exec")
    };
    exec.argv = vec![crate::operation::Bytes(vec![0xff; 128 << 10]); 16];
    store.append(started("s")).expect("appended");
    store.append(entry).expect("appended");
    store.append(ended("s")).expect("appended");
    drop(store);
    bench.store().append(note("the end of such a log is found")).expect("appended");
    assert_eq!(bench.verify().expect("valid").records, 4);
}

/// `cargo test -p ana-supervisor --release evidence::tests::append::latency -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn latency() {
    let folder = std::env::var_os("ANA_BENCH_DIR").map_or_else(std::env::temp_dir, Into::into);
    let bench = Bench::at(tempfile::tempdir_in(folder).expect("a folder"));
    let store = bench.store();
    store.append(started("s")).expect("appended");
    static COUNT: AtomicUsize = AtomicUsize::new(1);
    let mut all: Vec<Duration> = (0..1000)
        .map(|_| {
            let id = u32::try_from(COUNT.fetch_add(1, Ordering::Relaxed)).expect("small");
            let entry = allowed_by_rule(id, "s");
            let start = Instant::now();
            store.append(entry).expect("appended");
            start.elapsed()
        })
        .collect();
    all.sort_unstable();
    println!("append: p50 {:?}, p99 {:?}, max {:?}", all[500], all[990], all[999]);
}
