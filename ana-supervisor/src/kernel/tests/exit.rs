//! The end of watched processes.

use std::os::unix::process::ExitStatusExt;

use super::super::{Kernel, Report};
use super::stage::{Guard, Stage};

/// Runs `command` watched; its report must say what wait(2) says.
fn assert_reported(stage: &Stage, guard: &mut Guard, command: &[&str], expected: i32) {
    let actor = stage.start(&stage.session, command);
    let tgid = actor.tgid();
    guard.maps.watch(tgid).unwrap();
    let status = actor.go();
    let core_dumped = 0x80;
    assert_eq!(status.into_raw() & !core_dumped, expected, "{command:?}");
    match guard.next() {
        Report::Exited { tgid: t, status: s, .. } => {
            assert_eq!((t, s), (tgid, status.into_raw()), "{command:?}")
        }
        other => panic!("{other:?}"),
    }
    guard.assert_silent();
}

#[test]
fn the_status_is_the_one_that_wait_gives() {
    let stage = Stage::new();
    let mut guard = stage.guard(Kernel::load().unwrap());
    assert_reported(&stage, &mut guard, &["/bin/sh", "-c", "exit 7"], 7 << 8);
    assert_reported(&stage, &mut guard, &["/bin/sh", "-c", "kill -TERM $$"], libc::SIGTERM);
    assert_reported(&stage, &mut guard, &["/bin/sh", "-c", "ulimit -c 0; kill -ABRT $$"], libc::SIGABRT);
    // A child's end is not its parent's.
    assert_reported(&stage, &mut guard, &["/bin/sh", "-c", "/bin/true; (exit 4); exit 2"], 2 << 8);
}

#[test]
fn the_leader_may_end_before_its_process() {
    let stage = Stage::new();
    let mut guard = stage.guard(Kernel::load().unwrap());
    let leader_exits = "import ctypes, os, threading, time
def last():
    while open('/proc/self/stat').read().split()[2] != 'Z': time.sleep(0.001)
    os._exit(5)
threading.Thread(target=last).start()
ctypes.CDLL(None).syscall(60, 3)";
    assert_reported(&stage, &mut guard, &["/usr/bin/python3", "-c", leader_exits], 5 << 8);
}

#[test]
fn another_thread_may_exec() {
    let stage = Stage::new();
    let mut guard = stage.guard(Kernel::load().unwrap());
    let thread_execs = "import os, threading
threading.Thread(target=lambda: os.execv('/bin/sh', ['sh', '-c', 'exit 6'])).start()
threading.Event().wait()";
    assert_reported(&stage, &mut guard, &["/usr/bin/python3", "-c", thread_execs], 6 << 8);
}

#[test]
fn only_what_is_watched_is_reported() {
    let stage = Stage::new();
    let mut guard = stage.guard(Kernel::load().unwrap());
    let actor = stage.start(&stage.session, &["/bin/true"]);
    guard.maps.watch(actor.tgid()).unwrap();
    guard.maps.unwatch(actor.tgid()).unwrap();
    assert!(actor.go().success());
    assert!(stage.run(&stage.session, &["/bin/true"]).success());
    guard.assert_silent();
}
