//! A protected script is held however its text comes to an interpreter, and what changes meanwhile is shown.

use std::{ffi::OsString, path::PathBuf};

use ana_tests::{
    Ground, Session,
    answers::Answer,
    attempt::{assert_all, assert_none_granted},
    machine::{assignment, machine},
    wait,
};

const WAYS: [&str; 7] = ["exec", "sh", "source", "redirect", "stdin", "cat", "copy"];

/// A script of root's that leaves a mark through `benign`.
fn script(ground: &Ground) -> PathBuf {
    ground.write("bin/deploy.sh", 0o755, &text(ground, "ran"))
}

fn text(ground: &Ground, word: &str) -> String {
    format!("#!/bin/sh\n{} script-{word} \"$@\"\n", ground.benign().display())
}

fn protect(ground: &Ground, script: &PathBuf) {
    let rule = format!("[[exec]]\nname = \"script\"\nfile = [{script:?}]\notherwise = \"approve\"\n");
    ground.policy(&(ground.head() + &rule));
}

fn attack(ground: &Ground, script: PathBuf, ways: &[&str]) -> Vec<OsString> {
    let mut arguments = vec![script.into_os_string()];
    arguments.extend(ways.iter().map(OsString::from));
    ground.attack("script", &arguments)
}

fn runs(ground: &Ground, word: &str) -> usize {
    let word = format!("script-{word}");
    ground.all_markers().iter().filter(|marker| marker.args().first() == Some(&word)).count()
}

#[test]
fn script_without_ana() {
    let ground = Ground::bare("script");
    let finished = ground.run_without_ana(&attack(&ground, script(&ground), &WAYS));
    assert_all(&finished.stdout(), &WAYS, "ok");
    assert_eq!(runs(&ground, "ran"), WAYS.len());
}

#[test]
fn a_script_that_an_interpreter_opens_is_asked() {
    let ground = Ground::new("script");
    let script = script(&ground);
    protect(&ground, &script);
    // The attacker opens "stdin" itself and is no interpreter: refused. A shell's own opens are asked.
    for way in ["exec", "sh", "source", "redirect"] {
        let before = runs(&ground, "ran");
        let (finished, questions) =
            ground.run_answered(&attack(&ground, script.clone(), &[way]), Answer::Approve);
        assert_all(&finished.stdout(), &[way], "ok");
        assert_eq!(questions.len(), 1, "{way}: {questions:#?}");
        let shown = questions[0].operation["exec"]["script"].to_string();
        assert!(shown.contains("deploy.sh"), "{way} does not show the script: {:#?}", questions[0]);
        assert_eq!(runs(&ground, "ran"), before + 1, "{way}");
    }
    ground.verify();
}

#[test]
fn a_script_that_anything_else_opens_is_refused() {
    let ground = Ground::new("script-open");
    let script = script(&ground);
    protect(&ground, &script);
    let ways = ["stdin", "cat", "copy"];
    let finished = ground.run(&attack(&ground, script, &ways));
    assert_none_granted(&finished.stdout(), &ways);
    assert_all(&finished.stdout(), &["open-stdin", "copy-file"], "EPERM");
    assert_eq!(runs(&ground, "ran"), 0);
}

#[test]
fn a_denied_script_does_not_run() {
    let ground = Ground::new("script-deny");
    let script = script(&ground);
    protect(&ground, &script);
    let (finished, questions) = ground.run_answered(&attack(&ground, script, &["sh"]), Answer::Deny);
    assert_eq!(questions.len(), 1, "{questions:#?}");
    assert_none_granted(&finished.stdout(), &["sh"]);
    assert_eq!(runs(&ground, "ran"), 0);
}

/// A script of the session user's own, and the text that shall take its place.
fn changeable(ground: &Ground) -> Vec<OsString> {
    let script = ground.write_home("deploy.sh", 0o755, &text(ground, "ran"));
    let evil = ground.write_home("evil.sh", 0o755, &text(ground, "evil"));
    ground.attack("rewrite", &[script, evil])
}

fn order(session: &mut Session, order: &str) {
    session.say(order);
    session.until_stdout(&format!("done {order}"));
}

#[test]
fn rewrite_without_ana() {
    for how in ["write", "append", "rename"] {
        let ground = Ground::bare("rewrite");
        let mut command = ground.without_ana(&changeable(&ground));
        let mut session = Session::of(command.stdin(std::process::Stdio::piped()));
        order(&mut session, how);
        order(&mut session, "start");
        order(&mut session, "wait");
        let finished = session.finish();
        assert_all(&finished.stdout(), &[how, "start", "run"], "ok");
        assert_eq!(runs(&ground, "evil"), 1, "{how}");
    }
}

/// Writing to a script is an open of it: refused, held or not.
#[test]
fn a_held_script_cannot_be_written() {
    let ground = Ground::new("rewrite");
    let command = changeable(&ground);
    protect(&ground, &ground.home().join("deploy.sh"));
    let mut session = ground.launch(&command).start_listening();
    session.say("start");
    let question = ground.question_of(&mut session);
    order(&mut session, "write");
    order(&mut session, "append");
    ground.approve(&question.id);
    order(&mut session, "wait");
    let finished = session.finish();
    assert_all(&finished.stdout(), &["write", "append"], "EPERM");
    assert_all(&finished.stdout(), &["run"], "ok");
    assert_eq!((runs(&ground, "ran"), runs(&ground, "evil")), (1, 0));
}

/// Another file can be put in its place (only the LSM tier could refuse that), which is why the question says that
/// the script is not fixed. What runs then must not be unasked: either the approved text runs, or nothing does.
#[test]
fn a_replaced_script_is_shown_as_not_fixed() {
    let ground = Ground::new("replace");
    let command = changeable(&ground);
    protect(&ground, &ground.home().join("deploy.sh"));
    let mut session = ground.launch(&command).start_listening();
    session.say("start");
    let question = ground.question_of(&mut session);
    assert_eq!(question.operation["exec"]["script"]["file"]["not_fixed"], true, "{question:#?}");
    order(&mut session, "rename");
    let answer = ground.try_approve(&question.id);
    order(&mut session, "wait");
    let finished = session.finish();
    assert!(
        runs(&ground, "evil") == 0 || answer.status.success(),
        "the replaced script ran although the approval failed: {}",
        finished.stdout()
    );
    ground.verify();
}

/// A script of root's is fixed, and said to be.
#[test]
fn a_script_of_roots_is_fixed() {
    let ground = Ground::new("fixed");
    let script = script(&ground);
    protect(&ground, &script);
    let mut session = ground.start(&[&script]);
    let question = ground.question_of(&mut session);
    assert_eq!(question.operation["exec"]["script"]["file"]["not_fixed"], false, "{question:#?}");
    ground.approve(&question.id);
    session.finish().assert_code(0);
    wait::until("the script ran", || (runs(&ground, "ran") == 1).then_some(()));
}

/// A script of root's that becomes another program, and the command that has that one read the script.
fn becoming(ground: &Ground) -> (PathBuf, Vec<OsString>) {
    let reader = machine().program("attack-reader");
    let script = ground.write("bin/becoming.sh", 0o755, &format!("#!/bin/sh\nexec {}\n", reader.display()));
    let command =
        vec!["/usr/bin/env".into(), assignment("ANA_TEST_READ", &script), script.clone().into_os_string()];
    (script, command)
}

#[test]
fn becoming_without_ana() {
    let ground = Ground::bare("becoming");
    let finished = ground.run_without_ana(&becoming(&ground).1).assert_code(42);
    assert_all(&finished.stdout(), &["read-as-another"], "ok");
}

/// What the interpreter may read, the program that takes its place may not.
#[test]
fn a_scripts_process_that_becomes_another_program_cannot_read_it() {
    for (rule, questions) in [("allow = [[\"**\"]]\notherwise = \"deny\"", 0), ("otherwise = \"approve\"", 1)]
    {
        let ground = Ground::new("becoming");
        let (script, command) = becoming(&ground);
        let rule = format!("[[exec]]\nname = \"script\"\nfile = [{script:?}]\n{rule}\n");
        ground.policy(&(ground.head() + &rule));
        let (finished, asked) = ground.run_answered(&command, Answer::Approve);
        assert_eq!(asked.len(), questions, "{asked:#?}");
        let finished = finished.assert_code(5);
        assert_all(&finished.stdout(), &["read-as-another"], "EPERM");
        ground.verify();
    }
}
