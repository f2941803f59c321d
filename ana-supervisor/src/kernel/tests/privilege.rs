//! What gains privilege outside of a hold, and what has just been put where a protected file is expected, is killed.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
};

use super::super::{Kernel, KillReason};
use super::stage::{Stage, key, was_killed};

/// nobody's.
const UID: &str = "--reuid=65534";

fn as_nobody<'a>(command: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec!["/usr/bin/setpriv", UID, "--regid=65534", "--clear-groups"];
    all.extend(command);
    all
}

#[test]
fn an_exec_that_gains_privilege_runs_only_in_a_hold() {
    let stage = Stage::new();
    let mut guard = stage.guard(Kernel::load().unwrap());
    fs::set_permissions(&stage.programs, fs::Permissions::from_mode(0o755)).unwrap();
    let mode = |path: &std::path::Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let (setuid, _) = stage.program("setuid", "/usr/bin/id");
    mode(&setuid, 0o4755);
    let (setgid, _) = stage.program("setgid", "/usr/bin/id");
    chown(&setgid, None, Some(42)).unwrap();
    mode(&setgid, 0o2755);
    let (capable, _) = stage.program("capable", "/usr/bin/id");
    let set = std::process::Command::new("setcap").arg("cap_net_raw=ep").arg(&capable).status().unwrap();
    assert!(set.success());
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let (setuid, setgid, capable) = (text(&setuid), text(&setgid), text(&capable));

    for program in [&setuid, &setgid, &capable] {
        assert!(was_killed(stage.run(&stage.session, &as_nobody(&[program]))), "{program}");
        guard.assert_killed(KillReason::Privilege);
        // Nothing is gained by root, or where nothing can be gained.
        assert!(stage.run(&stage.session, &[program]).success());
        assert!(
            stage.run(&stage.session, &as_nobody(&["/usr/bin/setpriv", "--no-new-privs", program])).success()
        );
    }
    guard.maps.harmless_group(42).unwrap();
    assert!(stage.run(&stage.session, &as_nobody(&[&setgid])).success());
    assert!(was_killed(stage.run(&stage.session, &as_nobody(&[&setuid]))));
    guard.assert_killed(KillReason::Privilege);
    // Privilege in a user namespace of one's own reaches nothing.
    assert!(
        stage
            .run(&stage.session, &as_nobody(&["/usr/bin/unshare", "--user", "--map-root-user", "/bin/true"]))
            .success()
    );
    guard.assert_silent();
}

#[test]
fn what_an_approved_process_does_is_no_gain_any_more() {
    let stage = Stage::new();
    let mut guard = stage.guard(Kernel::load().unwrap());
    fs::set_permissions(&stage.programs, fs::Permissions::from_mode(0o755)).unwrap();
    let (setuid, _) = stage.program("setuid", "/usr/bin/id");
    fs::set_permissions(&setuid, fs::Permissions::from_mode(0o4755)).unwrap();
    let setuid = setuid.to_str().unwrap();
    let twice = as_nobody(&["/bin/sh", "-c", "\"$0\" && exec \"$0\"", setuid]);
    let actor = stage.start(&stage.session, &twice);
    guard.maps.privileged(actor.tgid()).unwrap();
    let tgid = actor.tgid();
    assert!(actor.go().success(), "its child, and itself");
    // Forgotten with the process.
    assert!(!guard.maps.is_privileged(tgid));
    assert!(was_killed(stage.run(&stage.session, &as_nobody(&[setuid]))));
    guard.assert_killed(KillReason::Privilege);
}

#[test]
fn a_file_that_was_just_put_into_a_listed_place_does_not_run() {
    let stage = Stage::new();
    let mut guard = stage.guard(Kernel::load().unwrap());
    let (program, file) = stage.program("deploy", "/bin/true");
    let folder = key(&stage.programs);
    guard.maps.place(folder, b"deploy").unwrap();
    let path = program.to_str().unwrap();
    assert!(was_killed(stage.run(&stage.session, &[path])));
    guard.assert_killed(KillReason::Unmarked);
    let link = stage.programs.join("link");
    std::os::unix::fs::symlink(&program, &link).unwrap();
    assert!(was_killed(stage.run(&stage.session, &[link.to_str().unwrap()])), "the place is the file's own");
    guard.assert_killed(KillReason::Unmarked);
    let (elsewhere, _) = stage.program("deploy2", "/bin/true");
    assert!(stage.run(&stage.session, &[elsewhere.to_str().unwrap()]).success());
    let above = stage.session.parent().unwrap();
    assert!(stage.run(above, &[path]).success(), "outside of the session");
    // Protected, it is judged as such.
    guard.maps.protect(file).unwrap();
    assert!(was_killed(stage.run(&stage.session, &[path])));
    guard.assert_killed(KillReason::NotHeld);
}
