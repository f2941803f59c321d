//! Where a map is full, user space is told which one, what was there before stays, and nothing becomes freer.

use super::super::{Armed, Kernel, KernelError, KillReason, Report};
use super::expected::{block, started};
use super::stage::{Stage, id, key, was_killed};

fn assert_full<T: std::fmt::Debug>(result: Result<T, KernelError>, wanted: &str) {
    match result {
        Err(KernelError::Map { map, .. }) => assert_eq!(map, wanted),
        other => panic!("{wanted}: {other:?}"),
    }
}

#[test]
fn what_finds_its_map_full_is_refused_and_the_rest_holds() {
    let sizes =
        ["PROTECTED", "HOLDS", "EXPECTED", "BLOCKS", "PRIVILEGED", "HARMLESS_GROUPS", "PLACES", "WATCHED"];
    let stage = Stage::new();
    let mut guard = stage.guard(Kernel::load_with(&sizes.map(|map| (map, 1))).unwrap());
    let ((program, file), (_, other)) =
        (stage.program("true", "/bin/true"), stage.program("other", "/bin/true"));
    let path = program.to_str().unwrap();
    let maps = guard.maps.clone();

    maps.protect(file).unwrap();
    assert_full(maps.protect(other), "PROTECTED");
    maps.protect(file).expect("it is there already");
    assert!(was_killed(stage.run(&stage.session, &[path])), "protected still");
    guard.assert_killed(KillReason::NotHeld);

    maps.arm(id(&stage.hold), Armed::executable(file)).unwrap();
    assert_full(maps.arm(id(&stage.session), Armed::executable(file)), "HOLDS");
    assert!(was_killed(stage.run(&stage.session, &[path])), "not armed");
    guard.assert_killed(KillReason::NotHeld);
    assert!(stage.run(&stage.hold, &[path]).success(), "armed still");
    assert!(matches!(guard.next(), Report::ExecHeld { .. }));
    maps.disarm(id(&stage.hold)).unwrap();

    let (first, second) = (stage.start(&stage.session, &[path]), stage.start(&stage.session, &[path]));
    let (one, two) = (first.tgid(), second.tgid());
    let call = block(&[path]);
    maps.expect(one, file, started(one), &call).unwrap();
    assert_full(maps.expect(two, file, started(two), &call), "EXPECTED");
    assert_full(maps.expect(one, file, started(one), &block(&[path, "more"])), "BLOCKS");
    maps.watch(one).unwrap();
    assert_full(maps.watch(two), "WATCHED");
    maps.privileged(one).unwrap();
    assert_full(maps.privileged(two), "PRIVILEGED");
    assert!(was_killed(second.go()), "not let through");
    guard.assert_killed(KillReason::NotHeld);
    assert!(first.go().success(), "let through still");
    assert!(matches!(guard.next(), Report::Exited { tgid, status: 0, .. } if tgid == one));

    let folder = key(&stage.programs);
    maps.place(folder, b"listed").unwrap();
    assert_full(maps.place(folder, b"another"), "PLACES");
    let (listed, _) = stage.program("listed", "/bin/true");
    assert!(was_killed(stage.run(&stage.session, &[listed.to_str().unwrap()])));
    guard.assert_killed(KillReason::Unmarked);
    maps.harmless_group(42).unwrap();
    assert_full(maps.harmless_group(43), "HARMLESS_GROUPS");
    // To be refused is no loss: who asked has been told.
    assert!(maps.health().unwrap().is_clean());
}

#[test]
fn an_exec_of_a_hold_that_cannot_be_counted_is_killed() {
    let stage = Stage::new();
    let mut guard = stage.guard(Kernel::load_with(&[("SEEN", 1)]).unwrap());
    let (program, file) = stage.program("true", "/bin/true");
    let path = program.to_str().unwrap();
    for hold in [&stage.hold, &stage.session] {
        guard.maps.arm(id(hold), Armed::executable(file)).unwrap();
    }
    assert!(stage.run(&stage.hold, &[path]).success());
    assert!(matches!(guard.next(), Report::ExecHeld { .. }));
    assert!(was_killed(stage.run(&stage.session, &[path])), "the other hold's exec fills the map");
    guard.assert_killed(KillReason::HoldUsed);
    guard.maps.disarm(id(&stage.hold)).unwrap();
    assert!(stage.run(&stage.session, &[path]).success(), "there is room again");
}

#[test]
fn an_end_that_cannot_be_reported_is_counted() {
    let stage = Stage::new();
    let guard = stage.guard(Kernel::load_with(&[("REPORTS", 4096)]).unwrap());
    let (program, file) = stage.program("true", "/bin/true");
    guard.maps.protect(file).unwrap();
    // 73 reports of 8 + 48 bytes fill a page.
    for _ in 0..73 {
        assert!(was_killed(stage.run(&stage.session, &[program.to_str().unwrap()])));
    }
    assert!(guard.maps.health().unwrap().is_clean(), "room for exactly these");
    let actor = stage.start(&stage.session, &["/bin/true"]);
    guard.maps.watch(actor.tgid()).unwrap();
    assert!(actor.go().success());
    assert_eq!(guard.maps.health().unwrap().lost, 1);
}
