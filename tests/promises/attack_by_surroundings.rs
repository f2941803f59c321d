//! What a held or allowed program finds around itself is what was shown: the agent that shares something with it, or that
//! answers its system calls, changes nothing of that.

use std::{ffi::OsString, fs, process::Stdio};

use ana_tests::{Ground, Session, attempt::assert_all};

/// A folder that is shown, a folder that is meant, and the attack on them.
fn shared_fs(ground: &Ground) -> Vec<OsString> {
    for name in ["shown", "meant"] {
        ground.write_home(&format!("{name}/here"), 0o644, name);
    }
    ground.attack("shared-fs", &[ground.deploy(), ground.home().join("shown"), ground.home().join("meant")])
}

#[test]
fn a_shared_directory_without_ana() {
    let ground = Ground::bare("shared-fs");
    let mut command = ground.without_ana(&shared_fs(&ground));
    let mut session = Session::of(command.stdin(Stdio::piped()));
    session.until_stdout("marker: ran");
    session.say("go");
    let finished = session.finish();
    assert_all(&finished.stdout(), &["clone", "chdir", "run"], "ok");
    assert!(finished.stdout().contains(&line_of(&ground, "meant")), "{}", finished.stdout());
}

/// What `pwd` says in a folder of the home.
fn line_of(ground: &Ground, folder: &str) -> String {
    format!("\n{}\n", ground.home().join(folder).display())
}

/// The directory is part of the operation: nothing can share it with a program that is held. Only threads share it, and
/// they end with the exec.
#[test]
fn a_shared_directory_is_refused() {
    let ground = Ground::new("shared-fs");
    let finished = ground.run(&shared_fs(&ground)).assert_code(0);
    assert_all(&finished.stdout(), &["clone"], "EPERM");
    ground.assert_nothing_pending();
    ground.assert_never_ran();
}

fn notify(ground: &Ground) -> Vec<OsString> {
    ground.attack("notify", &[ground.deploy(), ground.marks(), ground.home().join("elsewhere")])
}

#[test]
fn answering_its_system_calls_without_ana() {
    let ground = Ground::bare("notify");
    let finished = ground.run_without_ana(&notify(&ground));
    assert_all(&finished.stdout(), &["listener", "run"], "ok");
    assert!(ground.markers().is_empty(), "the mark went where the program wanted it");
    assert!(fs::read_to_string(ground.home().join("elsewhere")).is_ok_and(|text| text.contains("argv")));
}

/// `deploy status` is allowed; a filter of the agent's that answers its system calls makes another program of it.
#[test]
fn answering_its_system_calls_is_refused() {
    let ground = Ground::new("notify");
    ground.policy(&(ground.head() + &ground.rule("allow = [[\"status\"]]\notherwise = \"approve\"")));
    let finished = ground.run(&notify(&ground));
    assert_all(&finished.stdout(), &["listener"], "EPERM");
    ground.assert_never_ran();
    assert!(!ground.home().join("elsewhere").exists(), "it opened what it was handed");
}
