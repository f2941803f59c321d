//! Who may approve is what the list says now, in sessions that run as well.

use std::process::Output;

use ana_tests::{
    Ground,
    machine::{machine, path_str},
    terminal::Terminal,
};

fn passkey(ground: &Ground, arguments: &[&str]) -> Output {
    ground.ana(&[&["passkey"], arguments].concat()).output().expect("ana can be started")
}

/// A passkey that is removed approves nothing any more, also what was asked before; one that is enrolled does.
#[test]
fn in_a_session_that_runs() {
    let ground = Ground::new("list-runs");
    let session = ground.start(&[ground.deploy().as_os_str(), "now".as_ref()]);
    let question = ground.question();
    assert!(passkey(&ground, &["remove", "bob", "--force"]).status.success());
    let refused = ground.try_approve(&question.id);
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && why.contains("no passkey is enrolled"), "{why}");
    ground.assert_never_ran();
    // The same key, put on the list again.
    ground.enroll();
    ground.approve(&question.id);
    session.finish().assert_code(0).assert_stdout("marker: ran now");
    ground.verify();
}

/// Whoever enrolls sees the list as it was when he began: what has changed since is not overwritten.
#[test]
fn while_somebody_is_enrolled() {
    let ground = Ground::new("list-changed");
    let terminal = Terminal::of_root(&ground);
    let (with, carol) = (ground.key(), ground.root().join("carol.key"));
    terminal.line(&format!(
        "{} --state {} passkey enroll --name carol --passphrase --software {} --with {}",
        machine().ana("ana").display(),
        path_str(&ground.state()),
        carol.display(),
        with.display()
    ));
    terminal.until_shows("New passphrase");
    assert!(passkey(&ground, &["rename", "bob", "robert"]).status.success());
    terminal.line("open-sesame");
    terminal.until_shows("Once more");
    terminal.line("open-sesame");
    terminal.until_shows("the list has changed meanwhile");
    let listed = passkey(&ground, &["list", "--json"]);
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    assert_eq!(listed[0]["name"], "robert");
    ground.verify();
}
