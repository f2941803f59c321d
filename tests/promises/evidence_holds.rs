//! The evidence is checked by others, tells every change, and takes records of several sessions at once.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::{Value, json};

use ana_tests::{
    Ground,
    machine::{admin, path_str, target_dir, virtual_python},
    records::segments,
    wait,
};

/// A ground with one approved and one denied run.
fn decided() -> Ground {
    let ground = Ground::new("evidence");
    let script = format!("{0} yes; {0} no", ground.deploy().display());
    let mut session = ground.start(&["sh", "-c", &script]);
    let first = ground.question_of(&mut session);
    ground.approve(&first.id);
    let second =
        wait::until("the second question", || ground.pending(1).into_iter().find(|q| q.id != first.id));
    ground.deny(&second.id, "no");
    session.finish().assert_code(137);
    ground
}

/// The evidence in a copy of the state folder that a test may spoil.
struct Spoiled {
    state: PathBuf,
    file: PathBuf,
    whole: Vec<u8>,
}

impl Spoiled {
    fn of(ground: &Ground) -> Self {
        let state = ground.root().join("spoiled");
        admin("cp", &["-a", path_str(&ground.state()), path_str(&state)]);
        let file = segments(&state).pop().expect("there is evidence");
        let whole = fs::read(&file).expect("root reads");
        Self { state, file, whole }
    }

    fn verify(&self, bytes: &[u8]) -> Output {
        fs::write(&self.file, bytes).expect("root writes");
        let ana = ana_tests::machine::machine().ana("ana");
        Command::new(ana)
            .args(["audit", "verify", "--json", "--state"])
            .arg(&self.state)
            .output()
            .expect("ana")
    }

    #[track_caller]
    fn is_found(&self, what: &str, bytes: &[u8], line: Option<usize>) {
        let output = self.verify(bytes);
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(1), "{what} was not found: {said}");
        let name = self.file.file_name().expect("a file").to_str().expect("UTF-8");
        assert!(said.contains(name), "{what}: the file is not named: {said}");
        if let Some(line) = line {
            assert!(said.contains(&line.to_string()), "{what}: line {line} is not named: {said}");
        }
    }
}

#[test]
fn every_change_is_found() {
    let ground = decided();
    ground.verify();
    let spoiled = Spoiled::of(&ground);
    let whole = spoiled.whole.clone();
    assert!(spoiled.verify(&whole).status.success(), "a mere copy is good");

    // A byte here and there; the exhaustive test is the unit test's.
    for step in 0..60 {
        let at = whole.len() * step / 60;
        let mut bytes = whole.clone();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let line = 1 + whole[..at].iter().filter(|byte| **byte == b'\n').count();
        let line = (whole[at] != b'\n').then_some(line);
        spoiled.is_found(&format!("byte {at}"), &bytes, line);
    }

    let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    let last = lines.len() - 1;
    assert!(last > 3, "there are lines to play with");
    for index in 0..last {
        let without: Vec<u8> = [&lines[..index], &lines[index + 1..]].concat().concat();
        spoiled.is_found(&format!("line {} removed", index + 1), &without, None);
        let twice: Vec<u8> = [&lines[..=index], &lines[index..]].concat().concat();
        spoiled.is_found(&format!("line {} repeated", index + 1), &twice, None);
        let mut swapped = lines.clone();
        swapped.swap(index, index + 1);
        spoiled.is_found(&format!("line {} swapped", index + 1), &swapped.concat(), None);
    }
    let cut: Vec<u8> = whole[..whole.len() - 20].to_vec();
    spoiled.is_found("a torn last line", &cut, None);
    ground.verify();
}

#[test]
fn audit_lists_and_shows() {
    let ground = decided();
    let list = ground.ana(&["audit", "list", "--json"]).output().expect("ana");
    assert!(list.status.success(), "{list:?}");
    let listed: Value = serde_json::from_slice(&list.stdout).expect("JSON");
    assert_eq!(listed.as_array().map(Vec::len), Some(ground.records().len()), "{listed}");
    let id = ground.decisions()[0].id().to_owned();
    let show = ground.ana(&["audit", "show", &id, "--json"]).output().expect("ana");
    assert!(show.status.success(), "{show:?}");
    assert!(String::from_utf8_lossy(&show.stdout).contains(&id));
    let denied = ground.ana(&["audit", "list", "--json", "--verdict", "deny"]).output().expect("ana");
    let denied: Value = serde_json::from_slice(&denied.stdout).expect("JSON");
    assert_eq!(denied.as_array().map(Vec::len), Some(1), "{denied}");
}

#[test]
fn sessions_start_and_end_in_the_log() {
    let ground = Ground::new("start-end");
    ground.run(&["true"]).assert_code(0);
    let (start, end) = (ground.records_of("session-start"), ground.records_of("session-end"));
    assert_eq!((start.len(), end.len()), (1, 1));
    assert_eq!(start[0].payload["session"], end[0].payload["session"]);
    assert!(start[0].payload.to_string().contains("landlock"), "the seal is named: {}", start[0].payload);
    ground.verify();
}

#[test]
fn two_sessions_write_one_log() {
    let ground = Ground::new("two");
    ground.policy(&(ground.head() + &ground.rule("allow = [[\"**\"]]")));
    let script = |name: &str| format!("for i in $(seq 15); do {} {name}-$i; done", ground.deploy().display());
    let sessions = ["a", "b", "c"].map(|name| ground.start(&["sh", "-c", &script(name)]));
    for session in sessions {
        session.finish().assert_code(0);
    }
    assert_eq!(ground.markers().len(), 45);
    assert_eq!(ground.records_of("session-end").len(), 3);
    ground.assert_every_run_was_decided();
    ground.verify();
}

/// Whole records at the end are gone, the session's end with them, as root can do it: the head that was told at the end
/// says how many. So does one that was kept elsewhere, when the file of heads is gone, too.
#[test]
fn a_cut_tail_is_counted() {
    let ground = Ground::new("cut-tail");
    ground.run(&["true"]).assert_code(0);
    let before = ground.records().len();
    ground.run(&["true"]).assert_code(0);
    let report = ground.verify();
    assert!(report["heads"].as_u64() >= Some(2), "{report}");
    let missing = ground.records().len() - before;
    let spoiled = Spoiled::of(&ground);
    let whole = spoiled.whole.clone();
    let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    let cut = lines[..before].concat();
    let said = |output: &Output| -> Value { serde_json::from_slice(&output.stdout).expect("JSON") };
    let found = spoiled.verify(&cut);
    assert_eq!(found.status.code(), Some(1), "{found:?}");
    let reason = said(&found)["reason"].as_str().expect("a reason").to_owned();
    assert!(reason.starts_with(&format!("{missing} records are missing")), "{reason}");
    assert_eq!(said(&found)["line"], before, "the last line that is left is named");

    let heads = spoiled.state.join("heads.jsonl");
    let kept = fs::read_to_string(&heads).expect("there are heads").lines().last().expect("one").to_owned();
    fs::remove_file(&heads).expect("root may");
    assert!(spoiled.verify(&cut).status.success(), "nobody is left to say so: the honest limit");
    let ana = ana_tests::machine::machine().ana("ana");
    let mut verify = Command::new(ana);
    verify.args(["audit", "verify", "--json", "--head", &kept, "--state"]).arg(&spoiled.state);
    let found = verify.output().expect("ana");
    assert_eq!(found.status.code(), Some(1), "{found:?}");
    assert!(said(&found)["reason"].as_str().is_some_and(|reason| reason.contains("missing")), "{found:?}");
}

/// A library that is not ours checks the person's approval, from the record alone.
#[test]
fn another_library_verifies_the_approval() {
    let ground = decided();
    let decision = ground.decisions().into_iter().find(|d| d.approves()).expect("one was approved");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("independent/verify_webauthn.py");
    assert!(script.exists(), "{} is missing", script.display());
    let check = |name: &str, payload: &Value| {
        let record = ground.write(name, 0o600, &payload.to_string());
        Command::new(python()).arg(&script).arg(record).output().expect("python")
    };
    let good = check("record.json", &decision.payload);
    assert!(good.status.success(), "{good:#?}");

    // And it can fail: the same approval with another argument, and with another time.
    for (pointer, value) in [
        ("/operation/exec/argv/1", json!({"b64": "eWVh", "text": "yea"})),
        ("/operation/expires_at", json!("2099-01-01T00:00:00.000Z")),
    ] {
        let mut spoiled = decision.payload.clone();
        *spoiled.pointer_mut(pointer).expect("it is in every exec") = value;
        let bad = check("spoiled.json", &spoiled);
        assert_eq!(bad.status.code(), Some(1), "a changed {pointer} was accepted: {bad:#?}");
    }
}

/// A Python with PyPI's fido2, in the build folder.
fn python() -> PathBuf {
    virtual_python(&target_dir().join("venv"), &["fido2", "rfc8785"])
}
