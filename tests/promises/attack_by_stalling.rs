//! What the agent can have stall (a file system that does not answer) keeps the agent waiting, and nobody else.

use std::{
    ffi::OsString,
    process::Command,
    time::{Duration, Instant},
};

use ana_tests::{Ground, Session, fuse::Stalling, wait};

fn judged(ground: &Ground) {
    ground.policy(
        &(ground.head()
            + &ground.rule("deny = [[\"attack\"]]\nallow = [[\"status\"]]\notherwise = \"approve\"")),
    );
}

fn stall(ground: &Ground, how: &str, stalling: &Stalling) -> Session {
    let arguments: [OsString; 3] = [how.into(), ground.deploy().into(), stalling.folder.clone().into()];
    let session = ground.start(&ground.attack("stall", &arguments));
    session.until_stdout("begun");
    wait::until("somebody waits for the file system", || (stalling.waiting() > 0).then_some(()));
    session
}

/// The host's own exec of the protected program, and another session's, go on.
#[track_caller]
fn others_go_on(ground: &Ground) {
    let begin = Instant::now();
    let run = Command::new(ground.deploy()).env("ANA_TEST_MARKS", "/dev/null").output().expect("it runs");
    assert!(run.status.success(), "{run:?}");
    assert!(begin.elapsed() < Duration::from_secs(5), "the host waited {:?}", begin.elapsed());
    let status = [ground.deploy().into_os_string(), "status".into()];
    ground.run(&status).assert_code(0);
    assert!(begin.elapsed() < Duration::from_secs(9), "another session waited {:?}", begin.elapsed());
    assert_eq!(ground.markers().len(), 1);
}

#[track_caller]
fn ends_unrun(ground: &Ground, session: Session) {
    session.finish_within(Duration::from_secs(40));
    assert_eq!(ground.markers().len(), 1, "only the other session's");
    ground.assert_every_run_was_decided();
    ground.verify();
}

/// The exec does not come to its file: nothing was asked, nobody else waits.
#[test]
fn a_path_that_stalls() {
    let ground = Ground::new("stall-path");
    judged(&ground);
    let stalling = Stalling::mount(&ground);
    let session = stall(&ground, "path", &stalling);
    others_go_on(&ground);
    stalling.release();
    ends_unrun(&ground, session);
}

/// The exec was let through, and does not come to its first instruction: after ten seconds it is killed, whenever the file
/// system answers.
#[test]
fn an_argument_that_stalls() {
    for how in ["argv", "envp"] {
        let ground = Ground::new("stall-argv");
        judged(&ground);
        let stalling = Stalling::mount(&ground);
        let session = stall(&ground, how, &stalling);
        others_go_on(&ground);
        wait::until("the exec is given up", || {
            let refused = |record: &ana_tests::records::Record| {
                record.payload["detail"]["refused"]
                    .as_str()
                    .is_some_and(|why| why.contains("first instruction"))
            };
            ground.records_of("tamper").iter().any(refused).then_some(())
        });
        stalling.release();
        ends_unrun(&ground, session);
    }
}

/// A refusal cannot be told: it is refused all the same, and nobody else waits. (The process itself dies when the file
/// system answers: the kernel waits for it when it closes the file.)
#[test]
fn a_stderr_that_stalls() {
    let ground = Ground::new("stall-stderr");
    judged(&ground);
    let stalling = Stalling::mount(&ground);
    let session = stall(&ground, "stderr", &stalling);
    assert!(ground.decisions().iter().any(|record| record.denies()), "refused before it is told");
    others_go_on(&ground);
    stalling.release();
    let told =
        wait::until("the attack is over", || Some(session.stdout()).filter(|told| told.contains("ended")));
    assert!(told.contains("SIGKILL"), "{told}");
    ends_unrun(&ground, session);
}
