//! Many processes, and numbers of processes that come again: neither the host nor another session waits for them, and no
//! permission is inherited.

use std::{
    ffi::OsString,
    process::Command,
    time::{Duration, Instant},
};

use ana_tests::{Ground, answers::Answer, attempt::attempts, ground::cgroups_of, wait};

fn judged(ground: &Ground) {
    ground.policy(&(ground.head() + &ground.rule(JUDGED)));
}

const JUDGED: &str = "deny = [[\"attack\"]]\nallow = [[\"status\", \"**\"]]\notherwise = \"approve\"";

/// How long the host waits for the protected program while something goes on in a session.
fn host_runs(ground: &Ground) -> Duration {
    let begin = Instant::now();
    let run = Command::new(ground.deploy()).env("ANA_TEST_MARKS", "/dev/null").output().expect("it runs");
    assert!(run.status.success(), "{run:?}");
    begin.elapsed()
}

#[test]
fn a_fork_storm_ends_with_its_session() {
    let ground = Ground::new("storm");
    judged(&ground);
    let arguments: [OsString; 2] = [ground.deploy().into(), "3000".into()];
    let session = ground.start(&ground.attack("storm", &arguments));
    wait::until_within(Duration::from_secs(90), "the storm is up", || {
        session.stdout().contains("storm 3000").then_some(())
    });
    wait::until("execs in the storm are denied", || {
        ground.decisions().iter().any(|record| record.denies()).then_some(())
    });
    println!("{} decisions", ground.decisions().len());
    let host = (0..5).map(|_| host_runs(&ground)).max().expect("five");
    let id = ground.records_of("session-start")[0].payload["session"].as_str().expect("an id").to_owned();
    let begin = Instant::now();
    let killed = ground.ana(&["sessions", "kill", &id]).output().expect("ana");
    assert!(killed.status.success(), "{killed:?}");
    wait::until_within(Duration::from_secs(30), "the session is gone", || {
        cgroups_of(&id).is_empty().then_some(())
    });
    println!("host {host:?}, end {:?}", begin.elapsed());
    assert!(host < Duration::from_secs(10), "the host waited {host:?}");
    session.finish_within(Duration::from_secs(30)).assert_code(125);
    ground.assert_never_ran();
    ground.verify();
}

#[test]
fn a_pid_that_comes_again_inherits_nothing() {
    let ground = Ground::new("pid-reuse");
    if !ground.with_namespaces("a_pid_that_comes_again_inherits_nothing", &ground.rule(JUDGED)) {
        return;
    }
    let arguments: [OsString; 2] = [ground.deploy().into(), "8".into()];
    let session = ground.start(&ground.attack("pid-reuse", &arguments));
    let told = session.finish_within(Duration::from_secs(240)).stdout();
    if attempts(&told).get("pid_max").is_none_or(|word| word != "ok") {
        return ana_tests::skip::skipped("pid_reuse", "a pid namespace has no pid_max of its own here");
    }
    let reused = told.split("rounds 8 reused ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
    let reused: usize = reused.unwrap_or_else(|| panic!("{told}"));
    assert!(reused >= 4 && told.contains(" ran 0\n"), "{told}");
    ground.assert_never_ran();
    let denied = ground.decisions().iter().filter(|record| record.denies()).count();
    assert_eq!(denied, reused, "each was judged anew");
    ground.verify();
}

#[test]
fn a_forged_world_without_ana() {
    let ground = Ground::bare("pivot");
    let finished = ground.run_without_ana(&ground.attack("pivot", &[ground.deploy()]));
    ana_tests::attempt::assert_all(&finished.stdout(), &["disguised"], "ok");
    assert_eq!(ground.markers().len(), 1);
}

/// Paths are what the agent makes of them; the file's identity is not, and that the world is another one is shown.
#[test]
fn a_forged_world_is_shown_as_one() {
    let ground = Ground::new("pivot");
    if !ground.with_namespaces("a_forged_world_is_shown_as_one", &ground.rule("")) {
        return;
    }
    let (finished, questions) =
        ground.run_answered(&ground.attack("pivot", &[ground.deploy()]), Answer::Deny);
    ana_tests::attempt::assert_all(&finished.stdout(), &["disguised"], "signal 9");
    assert_eq!(questions.len(), 1, "{questions:#?}");
    let exec = &questions[0].operation["exec"];
    let inode = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(ground.deploy()).expect("there"));
    assert_eq!(exec["program"]["inode"], inode.to_string());
    let foreign = exec["foreign_namespaces"].to_string();
    assert!(foreign.contains("mnt") && foreign.contains("user"), "{foreign}");
    ground.assert_never_ran();
    ground.verify();
}

/// In a session without namespaces there is no such world.
#[test]
fn a_forged_world_is_refused_by_the_seal() {
    let ground = Ground::new("pivot");
    let finished = ground.run(&ground.attack("pivot", &[ground.deploy()]));
    ana_tests::attempt::assert_all(&finished.stdout(), &["disguised"], "no world");
    ground.assert_nothing_pending();
    ground.assert_never_ran();
}
