//! The protected program comes into a process in other ways than as the file that is executed: as the interpreter that an
//! ELF image names, through binfmt_misc. What stops it is the guard: another file than the armed one was executed.

use std::{ffi::OsString, time::Duration};

use ana_tests::{
    Ground,
    answers::Answer,
    attempt::{assert_all, assert_none_granted, attempts},
    machine::{admin, machine, path_str},
};

/// `deploy` is a program that needs no loader of its own.
fn bare_program(ground: &Ground) {
    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("programs/bare.c");
    let options = ["-static", "-nostdlib", "-fno-pie", "-no-pie", "-fno-stack-protector", "-O1", "-o"];
    let mut arguments = options.to_vec();
    let deploy = ground.deploy();
    arguments.extend([path_str(&deploy), path_str(&source)]);
    admin("gcc", &arguments);
}

fn judged(ground: &Ground) {
    ground.policy(
        &(ground.head()
            + &ground.rule("deny = [[\"attack\"]]\nallow = [[\"status\"]]\notherwise = \"approve\"")),
    );
}

fn interpreter(ground: &Ground, word: &str, rounds: u32) -> Vec<OsString> {
    ground.attack("interpreter", &[ground.deploy().into(), OsString::from(word), rounds.to_string().into()])
}

#[track_caller]
fn guard_killed(ground: &Ground, at_least: usize) {
    let killed = ground.records_of("tamper");
    let killed: Vec<_> =
        killed.iter().filter_map(|record| record.payload["detail"]["killed"].as_str()).collect();
    assert!(killed.len() >= at_least, "the guard killed {killed:?}");
}

#[test]
fn as_an_elf_interpreter_without_ana() {
    let ground = Ground::bare("interp");
    bare_program(&ground);
    let finished = ground.run_without_ana(&interpreter(&ground, "attack", 0));
    assert_all(&finished.stdout(), &["interpreter"], "ok");
    let markers = ground.markers();
    assert_eq!(markers.len(), 1, "{markers:#?}");
    assert_eq!(markers[0].args(), ["attack"]);
    assert!(markers[0].exe.ends_with("outer"), "{markers:#?}");
}

/// Whatever the arguments, allowed ones included: the file that was executed is not the one that was held.
#[test]
fn as_an_elf_interpreter() {
    let ground = Ground::bare("interp");
    bare_program(&ground);
    judged(&ground);
    ground.enroll();
    ground.run(&[ground.deploy().as_os_str(), "status".as_ref()]).assert_code(0);
    assert_eq!(ground.markers().len(), 1, "the program works");
    ground.clear_markers();
    for word in ["attack", "status"] {
        let finished = ground.run(&interpreter(&ground, word, 0));
        assert_all(&finished.stdout(), &["interpreter"], "signal 9");
    }
    ground.assert_never_ran();
    guard_killed(&ground, 2);
    ground.verify();
}

/// The arguments are harmless when the gate could look, and were not when the kernel read them.
#[test]
fn as_an_elf_interpreter_with_changing_arguments() {
    let ground = Ground::bare("interp-race");
    bare_program(&ground);
    judged(&ground);
    ground.enroll();
    let finished = ground.start(&interpreter(&ground, "attack", 60)).finish_within(Duration::from_secs(120));
    assert!(finished.stdout().contains("rounds 60 ran 0 killed 60"), "{}", finished.stdout());
    ground.assert_never_ran();
    guard_killed(&ground, 1);
    ground.verify();
}

fn binfmt(ground: &Ground) -> Vec<OsString> {
    ground.attack("binfmt", &[ground.deploy(), machine().program("attack-reader")])
}

/// Since Linux 6.7 a user namespace has formats of its own.
fn no_formats(told: &str, test: &str) -> bool {
    let missing = attempts(told).get("formats").is_none_or(|word| word != "ok");
    if missing {
        ana_tests::skip::skipped(test, "no binfmt_misc in a user namespace");
    }
    missing
}

#[test]
fn binfmt_without_ana() {
    let ground = Ground::bare("binfmt");
    let finished = ground.run_without_ana(&binfmt(&ground));
    if no_formats(&finished.stdout(), "binfmt_without_ana") {
        return;
    }
    assert_all(&finished.stdout(), &["as-interpreter", "fixed"], "ok");
    assert_eq!(ground.markers().len(), 1, "{}", finished.stdout());
}

#[test]
fn binfmt_is_refused_by_the_seal() {
    let ground = Ground::new("binfmt");
    let finished = ground.run(&binfmt(&ground));
    assert_all(&finished.stdout(), &["as-interpreter", "interpreted", "fixed"], "no namespace");
    ground.assert_never_ran();
}

/// With namespaces: as an interpreter it is asked like any exec; a foreign interpreter is killed by the guard before its
/// first instruction; opening it for a format is no exec, and refused.
#[test]
fn binfmt_with_namespaces() {
    let ground = Ground::new("binfmt");
    if !ground.with_namespaces("binfmt_with_namespaces", &ground.rule("otherwise = \"approve\"")) {
        return;
    }
    let (finished, questions) = ground.run_answered(&binfmt(&ground), Answer::Approve);
    if no_formats(&finished.stdout(), "binfmt_with_namespaces") {
        return;
    }
    assert_all(&finished.stdout(), &["as-interpreter"], "ok");
    assert_all(&finished.stdout(), &["interpreted"], "signal 9");
    assert_none_granted(&finished.stdout(), &["fixed"]);
    assert_eq!(questions.len(), 1, "{questions:#?}");
    assert_eq!(ground.markers().len(), 1, "{}", finished.stdout());
    ground.assert_every_run_was_decided();
    guard_killed(&ground, 1);
    ground.verify();
}
