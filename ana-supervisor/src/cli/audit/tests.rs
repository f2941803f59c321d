use std::cell::RefCell;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;

use clap::Parser;
use serde_json::Value;

use super::verify::{Meter, PROGRESS_BYTES_MIN};
use super::{Audit, Out};
use crate::evidence::human::WebAuthn;
use crate::evidence::tests::{Bench, allowed_by_rule, ended, operation, started};
use crate::evidence::verify::Verification;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    audit: Audit,
}

#[derive(Clone, Default)]
struct Screen(Rc<RefCell<Vec<u8>>>);

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn run(state: &Path, words: &str) -> Result<(bool, String), String> {
    let line =
        Line::try_parse_from(std::iter::once("audit").chain(words.split(' '))).map_err(|e| e.to_string())?;
    let screen = Screen::default();
    let code = line.audit.command.run(Some(state), &mut Out::to(Box::new(screen.clone())));
    let code = code.map_err(|error| format!("{error:#}"))?;
    let text = String::from_utf8(screen.0.borrow().clone()).expect("text");
    Ok((code == ExitCode::SUCCESS, text))
}

fn json(state: &Path, words: &str) -> Value {
    serde_json::from_str(&run(state, words).expect("it runs").1).expect("JSON")
}

fn log() -> Bench {
    let bench = Bench::new();
    let store = bench.store();
    for entry in [started("S1"), allowed_by_rule(1, "S1"), started("S2"), allowed_by_rule(2, "S2")] {
        store.append(entry).expect("appended");
    }
    for session in ["S1", "S2"] {
        store.append(ended(session)).expect("appended");
    }
    bench
}

#[test]
fn list_shows_and_filters() {
    let bench = log();
    let path = bench.folder.path();
    let (_, table) = run(path, "list").expect("it runs");
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 7, "{table}");
    assert!(lines[0].starts_with(" TIME") && lines[2].contains("allow (rule)"), "{table}");
    assert!(lines[6].contains("session-end"), "newest last: {table}");
    assert!(!table.contains('\x1b'), "the agent's bytes are escaped: {table}");
    let count = |words: &str| json(path, words).as_array().expect("an array").len();
    assert_eq!(count("list --json"), 6);
    assert_eq!(count("list --json --session s1"), 3);
    assert_eq!(count("list --json --verdict allow"), 2);
    assert_eq!(count("list --json --verdict deny"), 0);
    assert_eq!(count("list --json --rule git --session S2"), 1);
    assert_eq!(count("list --json --since 1h"), 6);
    assert_eq!(count("list --json --until 1h"), 0);
    assert_eq!(count("list --json --since 2026-01-01T00:00:00Z --until 2126-01-01"), 6);
    assert_eq!(count("list --json --event decision"), 2);
    assert_eq!(count("list --json --event session-end --session S2"), 1);
    assert_eq!(count("list --json --approver bob"), 0);
    assert_eq!(json(path, "list --json --limit 1")[0]["seq"], 6);
    assert!(run(path, "list --event nonsense").is_err());
    assert!(run(path, "list --since yesterday").is_err());
    let row = &json(path, "list --json --verdict allow")[0];
    assert_eq!((&row["event"], &row["decided_by"]), (&"decision".into(), &"rule".into()));
    assert_eq!(row["operation"], operation(1, "S1").id);
}

#[test]
fn show_takes_a_unique_prefix() {
    let bench = log();
    let path = bench.folder.path();
    let id = operation(2, "S2").id;
    let story = json(path, &format!("show {} --json", id.to_lowercase()));
    assert_eq!(story["decision"]["operation"]["session"], "S2");
    let (_, text) = run(path, &format!("show {id}")).expect("it runs");
    assert!(text.contains("decision: allow by rule, record 4 of "), "{text}");
    let error = run(path, "show 01J").expect_err("two operations");
    assert!(error.starts_with("2 operations begin with"), "{error}");
    let error = run(path, "show 02").expect_err("none");
    assert!(error.contains("no record of an operation"), "{error}");
}

#[test]
fn verify_counts_or_names_the_first_bad_record() {
    let bench = log();
    let path = bench.folder.path();
    let (ok, text) = run(path, "verify").expect("it runs");
    assert!(ok && text.starts_with("valid: 6 records in 1 segment\n"), "{text}");
    let report = json(path, "verify --json");
    assert_eq!((&report["ok"], &report["records"]), (&true.into(), &6.into()));
    let mut bytes = bench.segment(1);
    bytes[200] ^= 1;
    fs::write(bench.segment_path(1), bytes).expect("written");
    let (ok, text) = run(path, "verify --json").expect("it runs");
    let bad: Value = serde_json::from_str(&text).expect("JSON");
    assert!(!ok);
    assert_eq!((&bad["ok"], &bad["file"], &bad["line"]), (&false.into(), &"000001.jsonl".into(), &1.into()));
    assert!(bad["reason"].is_string());
}

#[test]
fn verify_believes_only_the_pinned_key() {
    let (bench, other) = (log(), log());
    let key = |bench: &Bench| bench.folder.path().join(format!("keys/{}.jwk", bench.store().kid()));
    let verify = |trust: &Path| {
        run(bench.folder.path(), &format!("verify --trust {}", trust.display())).expect("it runs").0
    };
    assert!(verify(&key(&bench)));
    assert!(!verify(&key(&other)));
}

#[test]
fn a_session_is_live_while_its_socket_answers() {
    let bench = Bench::new();
    bench.store().append(started("S1")).expect("appended");
    let path = bench.folder.path();
    assert!(!run(path, "verify").expect("it runs").0);
    let socket = std::os::unix::net::UnixListener::bind(path.join("run/S1.sock")).expect("bound");
    assert!(run(path, "verify").expect("it runs").0);
    drop(socket);
    assert!(!run(path, "verify").expect("it runs").0, "a socket that nobody answers");
}

#[test]
fn export_gives_every_payload_once() {
    let bench = log();
    let (_, text) = run(bench.folder.path(), "export").expect("it runs");
    let numbers: Vec<u64> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["seq"].as_u64().expect("a number"))
        .collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
}

#[test]
fn what_is_not_there_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let error = run(folder.path(), "verify").expect_err("nothing there");
    assert!(error.starts_with("there is no evidence at "), "{error}");
    assert!(!folder.path().join("evidence").exists(), "looking creates nothing");
}

#[test]
fn the_progress_is_shown_for_a_long_log_each_percent_once() {
    let shown = |total: u64, steps: &[u64]| {
        let screen = Screen::default();
        let meter = Meter::new(Some(Box::new(screen.clone())));
        steps.iter().for_each(|done| meter.show(*done, total));
        meter.clear();
        let bytes = screen.0.borrow().clone();
        String::from_utf8(bytes).expect("text")
    };
    let long = PROGRESS_BYTES_MIN;
    let half = "\rverifying: 0 %\rverifying: 50 %\rverifying: 100 %\r\x1b[K";
    assert_eq!(shown(long, &[1, 2, long / 2, long / 2 + 1, long]), half);
    assert_eq!(shown(long - 1, &[1, long - 1]), "", "over before anybody wonders");
    assert_eq!(shown(long, &[]), "");
}

#[test]
fn the_progress_ends_with_the_whole_log() {
    let bench = Bench::new();
    let store = bench.store();
    store.append(started("s")).expect("appended");
    store.append(ended("s")).expect("appended");
    let steps = RefCell::new(Vec::new());
    let verification = Verification {
        trust: &bench.trust(),
        proof: &WebAuthn,
        live: &|_| false,
        heads: &[],
        progress: &|done, total| steps.borrow_mut().push((done, total)),
    };
    verification.folder(bench.state.evidence_dir()).expect("valid");
    let total = bench.segment(1).len() as u64;
    let steps = steps.into_inner();
    assert!(steps.iter().all(|step| step.1 == total) && steps.is_sorted(), "{steps:?}");
    assert_eq!((steps.len(), steps.last()), (2, Some(&(total, total))));
}
