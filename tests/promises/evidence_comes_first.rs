//! The decision is on disk before the program runs; if it cannot be written, the program does not run.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use ana_tests::{
    Ground, Session,
    machine::{admin, path_str},
    skip::skipped,
    wait,
};

/// Freezes the file system below a folder as long as it lives: what writes there waits.
struct Frozen(PathBuf);

impl Frozen {
    fn new(folder: &Path) -> Self {
        admin("fsfreeze", &["--freeze", path_str(folder)]);
        Self(folder.to_owned())
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let thawed = Command::new("fsfreeze").arg("--unfreeze").arg(&self.0).status();
        assert!(thawed.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

/// The disk of the evidence stands still: the approval is given, and the program waits for the disk.
#[test]
fn the_program_waits_for_the_disk() {
    let ground = Ground::bare("frozen-disk");
    if !Path::new("/dev/loop-control").exists() {
        skipped("the_program_waits_for_the_disk", "no loop devices");
        return;
    }
    let image = ground.root().join("disk");
    fs::File::create(&image).and_then(|file| file.set_len(32 << 20)).expect("a sparse file");
    admin("mkfs.ext4", &["-q", path_str(&image)]);
    let evidence = ground.state().join("evidence");
    ground.mount(&["-o", "loop", path_str(&image)], &evidence);
    fs::set_permissions(&evidence, fs::Permissions::from_mode(0o700)).expect("mode");
    fs::remove_dir(evidence.join("lost+found")).expect("an empty folder");
    ground.policy(&ground.asking());
    ground.enroll();

    let mut session = ground.start(&[ground.deploy()]);
    let question = ground.question_of(&mut session);
    let frozen = Frozen::new(&evidence);
    let mut approving =
        ground.ana(&["approve", &question.id, "--software"]).arg(ground.key()).spawn().expect("ana");
    wait::never_during(Duration::from_millis(1500), "it ran before its record was on disk", || {
        (!ground.markers().is_empty()).then(|| format!("{:#?}", ground.markers()))
    });
    drop(frozen);
    assert!(approving.wait().expect("a child").success());
    session.finish().assert_code(0);
    assert_eq!(ground.markers().len(), 1);
    ground.assert_every_run_was_decided();
    ground.verify();
}

/// Whenever a run is seen that a person approved, its decision is already there.
#[test]
fn the_record_is_there_when_the_program_runs() {
    let ground = Ground::new("first");
    let script = format!("for i in $(seq 15); do {} $i; done", ground.deploy().display());
    let mut session = ground.start(&["sh", "-c", &script]);
    let mut seen = 0;
    while !session.ended() {
        if let Some(question) = ground.pending(0).pop() {
            // It may have been killed since.
            drop(ground.try_approve(&question.id));
        }
        let markers = ground.markers();
        if markers.len() > seen {
            seen = markers.len();
            // Read after the marks: what ran by then must be decided by now.
            let approved: Vec<_> =
                ground.decisions().iter().filter(|d| d.approves()).map(|d| d.argv()).collect();
            for marker in markers {
                assert!(approved.contains(&marker.argv), "ran before its record: {marker:?}");
            }
        }
    }
    session.finish().assert_code(0);
    assert_eq!(ground.markers().len(), 15);
    ground.assert_every_run_was_decided();
    ground.verify();
}

/// Fills a file system to its last byte.
fn fill(folder: &Path) -> PathBuf {
    let path = folder.join("filler");
    let mut file = fs::File::create(&path).expect("a file");
    for size in [65536, 4096, 1] {
        while std::io::Write::write_all(&mut file, &vec![0; size]).is_ok() {}
    }
    path
}

#[test]
fn a_full_disk_denies() {
    let ground = Ground::bare("full-disk");
    let evidence = ground.state().join("evidence");
    ground.mount(&["-t", "tmpfs", "-o", "size=1m,mode=700", "evidence"], &evidence);
    ground.policy(&ground.asking());
    ground.enroll();
    let script = format!("{0} full; echo status=$?; read line; {0} again", ground.deploy().display());
    let mut session = ground.launch(&["sh", "-c", &script]).start_listening();
    let question = ground.question_of(&mut session);
    let filler = fill(&evidence);
    let answer = ground.try_approve(&question.id);
    let said = String::from_utf8_lossy(&answer.stderr).into_owned();
    session.until_stdout("status=137");
    ground.assert_never_ran();
    assert!(session.stderr().contains("ana: denied"), "the agent is not told: {}", session.stderr());
    // The room is back: the next decision can be written, and the log is whole.
    fs::remove_file(filler).expect("root may");
    session.say("go on");
    let question = ground.question_of(&mut session);
    ground.approve(&question.id);
    session.finish().assert_code(0);
    let markers = ground.markers();
    assert!(markers.len() == 1 && markers[0].args() == ["again"], "{markers:#?} after {said}");
    ground.assert_every_run_was_decided();
    ground.verify();
}

/// No evidence can be written at all: nothing starts.
#[test]
fn a_session_without_evidence_does_not_start() {
    let ground = Ground::bare("no-evidence");
    let evidence = ground.state().join("evidence");
    ground.mount(&["-t", "tmpfs", "-o", "size=64k,mode=700", "evidence"], &evidence);
    ground.policy(&ground.asking());
    fill(&evidence);
    let finished = ground.run(&["sh", "-c", "echo the agent runs"]).assert_code(125);
    assert!(!finished.stdout().contains("the agent runs"));
    assert!(finished.stderr().contains("evidence"), "{}", finished.stderr());
}

/// Ten held programs, and an agent that waits for a line.
fn ten_held(ground: &Ground) -> Session {
    let script =
        format!("for i in 1 2 3 4 5 6 7 8 9 10; do {} $i & done; read line", ground.deploy().display());
    let session = ground.launch(&["sh", "-c", &script]).start_listening();
    wait::until("ten questions", || (ground.pending(1).len() == 10).then_some(()));
    session
}

/// Each of the ten was refused, and that was written down before the session's end was.
#[track_caller]
fn all_are_accounted_for(ground: &Ground) {
    ground.assert_never_ran();
    let records = ground.records();
    let end = records.iter().position(|record| record.event() == "session-end").expect("the session's end");
    let mut told: Vec<u32> = records[..end]
        .iter()
        .filter(|record| record.denies())
        .map(|record| record.args()[0].parse().expect("a number"))
        .collect();
    told.sort_unstable();
    assert_eq!(told, (1..=10).collect::<Vec<u32>>(), "{records:#?}");
    assert_eq!(ground.decisions().len(), 10);
    ground.verify();
}

#[test]
fn what_is_held_at_the_agents_end_is_recorded_first() {
    let ground = Ground::new("end-held");
    let mut session = ten_held(&ground);
    session.say("go");
    session.finish().assert_code(0);
    all_are_accounted_for(&ground);
}

#[test]
fn what_is_held_at_the_supervisors_end_is_recorded_first() {
    let ground = Ground::new("term-held");
    let session = ten_held(&ground);
    let supervisor = nix::unistd::Pid::from_raw(session.supervisor());
    nix::sys::signal::kill(supervisor, nix::sys::signal::Signal::SIGTERM).expect("root may");
    assert_ne!(session.finish().code(), 0);
    all_are_accounted_for(&ground);
}
