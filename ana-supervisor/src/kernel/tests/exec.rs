//! The exec guard: a protected file runs in a hold that is armed for it, once, and nowhere else in the session.

use std::fs;

use super::super::{Armed, Kernel, KillReason, Report, STANDARD_DEVICES};
use super::stage::{Stage, id, was_killed};

#[test]
fn outside_of_any_hold_a_protected_file_is_killed() {
    for level in [2, 0] {
        let stage = Stage::new();
        let mut guard = stage.guard_with(Kernel::load().unwrap(), level, &STANDARD_DEVICES);
        let (program, file) = stage.program("true", "/bin/true");
        let path = program.to_str().unwrap();
        assert!(stage.run(&stage.session, &[path]).success(), "not protected yet");
        guard.maps.protect(file).unwrap();

        let actor = stage.start(&stage.session, &[path]);
        let tgid = actor.tgid();
        assert!(was_killed(actor.go()));
        match guard.next() {
            Report::Killed {
                tgid: t,
                file: f,
                cgroup,
                reason: KillReason::NotHeld,
                still_alive: false,
                boot_ns,
            } => {
                assert_eq!((t, f, cgroup), (tgid, file, id(&stage.session)));
                assert!(boot_ns > 0);
            }
            other => panic!("{other:?}"),
        }
        let link = stage.programs.join("other-name");
        fs::hard_link(&program, &link).unwrap();
        assert!(
            was_killed(stage.run(&stage.hold, &[link.to_str().unwrap()])),
            "by another name, deeper in the session"
        );
        guard.assert_killed(KillReason::NotHeld);
        let (script, _) = stage.script("script", &format!("#!{path}\n"));
        assert!(
            was_killed(stage.run(&stage.session, &[script.to_str().unwrap()])),
            "as a script's interpreter"
        );
        guard.assert_killed(KillReason::NotHeld);

        guard.maps.unprotect(file).unwrap();
        assert!(stage.run(&stage.session, &[path]).success(), "protected no more");
        guard.assert_silent();
        assert!(guard.maps.health().unwrap().is_clean());
    }
}

#[test]
fn no_instruction_of_a_killed_image_runs_not_even_as_init() {
    let stage = Stage::new();
    let mut guard = stage.guard(Kernel::load().unwrap());
    let (program, file) = stage.program("touch", "/usr/bin/touch");
    guard.maps.protect(file).unwrap();
    let marker = stage.programs.join("ran");
    let (path, marker_path) = (program.to_str().unwrap(), marker.to_str().unwrap());
    assert!(was_killed(stage.run(&stage.session, &[path, marker_path])));
    guard.assert_killed(KillReason::NotHeld);
    // Pid 1 of a pid namespace ignores what it has no handler for, but not this.
    assert!(
        !stage.run(&stage.session, &["/usr/bin/unshare", "--pid", "--fork", path, marker_path]).success()
    );
    guard.assert_killed(KillReason::NotHeld);
    assert!(!marker.exists());
    assert!(guard.maps.health().unwrap().is_clean());
}

#[test]
fn other_processes_and_other_programs_are_untouched() {
    let stage = Stage::new();
    let mut guard = stage.guard(Kernel::load().unwrap());
    let (program, file) = stage.program("true", "/bin/true");
    guard.maps.protect(file).unwrap();
    let above = stage.session.parent().unwrap();
    assert!(stage.run(above, &[program.to_str().unwrap()]).success(), "the parent cgroup is not the session");
    assert!(stage.run(&stage.session, &["/bin/true"]).success(), "another inode with the same bytes");
    guard.assert_silent();
}

#[test]
fn an_armed_hold_lets_its_file_through_once() {
    let stage = Stage::new();
    let mut guard = stage.guard(Kernel::load().unwrap());
    let (program, file) = stage.program("true", "/bin/true");
    let (path, hold) = (program.to_str().unwrap(), id(&stage.hold));
    guard.maps.protect(file).unwrap();

    guard.maps.arm(hold, Armed::executable(file)).unwrap();
    assert!(guard.maps.arm(hold, Armed::executable(file)).is_err(), "armed already");
    let actor = stage.start(&stage.hold, &[path]);
    let tgid = actor.tgid();
    assert!(actor.go().success());
    match guard.next() {
        Report::ExecHeld { hold: h, tgid: t, file: f, .. } => assert_eq!((h, t, f), (hold, tgid, file)),
        other => panic!("{other:?}"),
    }
    guard.assert_silent();

    assert!(guard.maps.arm(hold, Armed::executable(file)).is_err(), "armed still");
    assert!(was_killed(stage.run(&stage.hold, &[path])), "one arming, one exec");
    guard.assert_killed(KillReason::HoldUsed);
    guard.maps.disarm(hold).unwrap();
    assert!(was_killed(stage.run(&stage.hold, &[path])), "disarmed");
    guard.assert_killed(KillReason::NotHeld);
    guard.maps.arm(hold, Armed::executable(file)).unwrap();
    assert!(stage.run(&stage.hold, &[path]).success(), "armed again");
    assert!(matches!(guard.next(), Report::ExecHeld { .. }));
}

#[test]
fn a_held_image_that_execs_again_is_killed_whatever_it_runs() {
    let stage = Stage::new();
    let mut guard = stage.guard(Kernel::load().unwrap());
    let (program, file) = stage.program("env", "/usr/bin/env");
    let marker = stage.programs.join("ran");
    guard.maps.arm(id(&stage.hold), Armed::executable(file)).unwrap();
    // Neither env nor touch is protected: what counts is the armed hold.
    let status =
        stage.run(&stage.hold, &[program.to_str().unwrap(), "/usr/bin/touch", marker.to_str().unwrap()]);
    assert!(was_killed(status));
    assert!(matches!(guard.next(), Report::ExecHeld { .. }));
    guard.assert_killed(KillReason::HoldUsed);
    assert!(!marker.exists());
}

#[test]
fn another_file_than_the_held_one_is_killed() {
    let stage = Stage::new();
    let mut guard = stage.guard(Kernel::load().unwrap());
    let (_, file) = stage.program("true", "/bin/true");
    guard.maps.arm(id(&stage.hold), Armed::executable(file)).unwrap();
    assert!(was_killed(stage.run(&stage.hold, &["/bin/true"])), "not even protected, but not what was held");
    guard.assert_killed(KillReason::OtherFile);
}

#[test]
fn a_held_script_is_reported_with_its_interpreter() {
    let stage = Stage::new();
    let mut guard = stage.guard(Kernel::load().unwrap());
    let (script, file) = stage.script("script", "#!/bin/sh\nexit 3\n");
    guard.maps.protect(file).unwrap();
    guard.maps.arm(id(&stage.hold), Armed::script(file)).unwrap();
    assert_eq!(stage.run(&stage.hold, &[script.to_str().unwrap()]).code(), Some(3));
    let shell = super::stage::key(std::path::Path::new("/bin/sh"));
    match guard.next() {
        Report::ExecHeld { file, .. } => assert_eq!(file, shell),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_exec_that_cannot_be_reported_is_killed() {
    let stage = Stage::new();
    let mut guard = stage.guard(Kernel::load_with(&[("REPORTS", 4096)]).unwrap());
    let (program, file) = stage.program("true", "/bin/true");
    let (path, hold) = (program.to_str().unwrap(), id(&stage.hold));
    guard.maps.protect(file).unwrap();
    // A ring of one page has room for 73 reports of 8 + 48 bytes.
    for _ in 0..74 {
        assert!(was_killed(stage.run(&stage.session, &[path])));
    }
    let lost = guard.maps.health().unwrap().lost;
    assert!(lost > 0, "the ring is full");
    guard.maps.arm(hold, Armed::executable(file)).unwrap();
    assert!(was_killed(stage.run(&stage.hold, &[path])), "armed, but nobody would hear of it");
    assert!(guard.maps.health().unwrap().lost > lost);
    for _ in 0..73 {
        assert_eq!(std::mem::discriminant(&guard.next()), std::mem::discriminant(&killed()));
    }
    guard.assert_silent();
}

fn killed() -> Report {
    let (file, reason) = (super::super::FileKey::default(), KillReason::NotHeld);
    Report::Killed { tgid: 0, file, cgroup: 0, reason, still_alive: false, boot_ns: 0 }
}
