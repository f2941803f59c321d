//! The bytes of a protected program cannot be read inside a session, so no copy of it can be made and run there.

use std::{ffi::OsString, fs};

use ana_tests::{
    Ground,
    answers::Answer,
    attempt::{assert_all, assert_none_granted},
    machine::{assignment, machine},
};

const COPIES: [&str; 5] = ["exec-read", "exec-cp", "exec-range", "exec-reopen", "exec-map"];

fn attack(ground: &Ground, name: &str) -> Vec<OsString> {
    ground.attack(name, &[ground.deploy(), ground.home().join("brought-along")])
}

#[test]
fn copy_without_ana() {
    let ground = Ground::bare("copy");
    let finished = ground.run_without_ana(&attack(&ground, "copy"));
    assert_all(&finished.stdout(), &COPIES, "ok");
    assert_eq!(ground.markers().len(), COPIES.len());
}

#[test]
fn copy() {
    let ground = Ground::new("copy");
    let finished = ground.run(&attack(&ground, "copy"));
    assert_all(&finished.stdout(), &["read", "copy_file_range", "reopen", "open-for-map"], "EPERM");
    assert_none_granted(&finished.stdout(), &COPIES);
    assert!(finished.stderr().contains("ana: denied"), "the agent is not told why:\n{}", finished.stderr());
    ground.assert_never_ran();
    ground.verify();
}

#[test]
fn loader_without_ana() {
    let ground = Ground::bare("loader");
    let finished = ground.run_without_ana(&attack(&ground, "loader"));
    assert_all(&finished.stdout(), &["exec"], "ok");
    assert_eq!(ground.markers().len(), 1);
}

#[test]
fn loader() {
    let ground = Ground::new("loader");
    let finished = ground.run(&attack(&ground, "loader"));
    assert_none_granted(&finished.stdout(), &["exec"]);
    ground.assert_never_ran();
}

#[test]
fn memfd_without_ana() {
    let ground = Ground::bare("memfd");
    bring_along(&ground);
    let finished = ground.run_without_ana(&attack(&ground, "memfd"));
    assert_all(&finished.stdout(), &["exec-now", "exec-earlier"], "ok");
    assert_eq!(ground.markers().len(), 2);
}

/// What is open, and said so in the README: bytes that were copied before the session began are a program that the
/// agent brings along. Nobody asks about it.
#[test]
fn memfd() {
    let ground = Ground::new("memfd");
    bring_along(&ground);
    let finished = ground.run(&attack(&ground, "memfd"));
    assert_all(&finished.stdout(), &["read"], "EPERM");
    assert_none_granted(&finished.stdout(), &["exec-now"]);
    assert_all(&finished.stdout(), &["exec-earlier"], "ok");
    let markers = ground.markers();
    assert_eq!(markers.len(), 1, "{markers:#?}");
    assert_eq!(markers[0].args(), ["earlier"]);
}

/// What is open, and said so in the README: a held program's parent may read its memory in /proc, and what it reads is a
/// program that it brings along. (Reading it by process_vm_readv is refused.) The held one itself never runs.
#[test]
fn memory_copy() {
    let ground = Ground::new("memory-copy");
    let copy = ground.home().join("copied");
    let finished = ground.run(&ground.attack("memory-copy", &[ground.deploy(), copy.clone()]));
    assert!(finished.stdout().contains("held true"), "{}", finished.stdout());
    assert_all(&finished.stdout(), &["read-memory", "run-copy"], "ok");
    let markers = ground.markers();
    assert_eq!(markers.len(), 1, "{markers:#?}");
    assert_eq!((markers[0].exe.clone(), markers[0].args()), (copy, vec!["copied".to_owned()]));
    ground.verify();
}

/// `deploy` as it becomes another program in the same process, which reads the file that this process was allowed to run.
fn becomes_reader(ground: &Ground) -> Vec<OsString> {
    let reader = machine().program("attack-reader");
    let read = assignment("ANA_TEST_READ", ground.deploy());
    let exec = assignment("--exec", reader);
    vec!["/usr/bin/env".into(), read, ground.deploy().into(), "status".into(), exec]
}

#[test]
fn what_comes_after_reads_without_ana() {
    let ground = Ground::bare("after");
    let finished = ground.run_without_ana(&becomes_reader(&ground)).assert_code(42);
    assert_all(&finished.stdout(), &["read-as-another"], "ok");
}

/// That a process may run the program, by rule or by a person's word, is no leave to read it.
#[test]
fn what_comes_after_does_not_read() {
    for (rule, questions) in
        [("allow = [[\"status\", \"**\"]]\notherwise = \"deny\"", 0), ("otherwise = \"approve\"", 1)]
    {
        let ground = Ground::new("after");
        ground.policy(&(ground.head() + &ground.rule(rule)));
        let (finished, asked) = ground.run_answered(&becomes_reader(&ground), Answer::Approve);
        let finished = finished.assert_code(5);
        assert_eq!(asked.len(), questions, "{asked:#?}");
        assert_all(&finished.stdout(), &["read-as-another"], "EPERM");
        assert_eq!(ground.markers().len(), 1);
        ground.assert_every_run_was_decided();
        ground.verify();
    }
}

fn bring_along(ground: &Ground) {
    let copy = ground.home().join("brought-along");
    fs::copy(ground.deploy(), &copy).expect("root may copy");
    ground.give(&copy);
}
