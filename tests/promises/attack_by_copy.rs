//! The bytes of a protected program cannot be read inside a session, so no copy of it can be made and run there.

use std::{ffi::OsString, fs};

use ana_tests::{
    Ground,
    attempt::{assert_all, assert_none_granted},
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

fn bring_along(ground: &Ground) {
    let copy = ground.home().join("brought-along");
    fs::copy(ground.deploy(), &copy).expect("root may copy");
    ground.give(&copy);
}
