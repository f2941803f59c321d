//! The guard outlives whoever loaded it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Instant,
};

use super::super::{Kernel, STANDARD_DEVICES, pins};
use super::stage::{PATIENCE, Stage, attach, key, was_killed};

const STAGE: &str = "ANA_TEST_LOADER_STAGE";

#[test]
fn the_guard_survives_its_loader() {
    if let Some(stage) = std::env::var_os(STAGE) {
        load_and_die(Path::new(&stage));
    }
    let stage = Stage::new();
    let (program, _) = stage.program("true", "/bin/true");
    let path = program.to_str().unwrap();
    let text = [&stage.session, &stage.pins, &program].map(|path| path.display().to_string()).join("\n");
    let note = stage.programs.join("stage");
    fs::write(&note, text).unwrap();
    let me = std::env::current_exe().unwrap();
    let name = "kernel::tests::pins::the_guard_survives_its_loader";
    let loader = Command::new(me).args(["--exact", name, "--nocapture"]).env(STAGE, &note).status().unwrap();
    assert!(was_killed(loader), "{loader}");

    let directory = stage.pins.parent().unwrap();
    let session = stage.pins.file_name().unwrap().to_str().unwrap().to_owned();
    assert!(pins::leftovers(directory).unwrap().contains(&session));
    assert!(was_killed(stage.run(&stage.session, &[path])), "guarded by nobody's programs");
    assert!(!stage.run(&stage.session, &["/bin/sh", "-c", "exec 3</dev/kmsg"]).success());

    pins::unpin(&stage.pins).unwrap();
    assert!(!pins::leftovers(directory).unwrap().contains(&session));
    let until = Instant::now() + PATIENCE;
    while !stage.run(&stage.session, &[path]).success() {
        assert!(Instant::now() < until, "the links are gone, the guard is not");
        thread::yield_now();
    }
    pins::unpin(&stage.pins).unwrap();
}

/// The loader: everything attached and pinned, then SIGKILL.
fn load_and_die(note: &Path) -> ! {
    let text = fs::read_to_string(note).unwrap();
    let mut lines = text.lines().map(PathBuf::from);
    let (session, pins, program) = (lines.next().unwrap(), lines.next().unwrap(), lines.next().unwrap());
    let mut kernel = Kernel::load().unwrap();
    kernel.maps().protect(key(&program)).unwrap();
    let _lock = attach(&mut kernel, &session, 2, &STANDARD_DEVICES, &pins).unwrap();
    nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap();
    unreachable!("SIGKILL");
}

#[test]
fn two_sessions_never_share_a_directory() {
    let stage = Stage::new();
    let mut kernel = Kernel::load().unwrap();
    stage.attach(&mut kernel, 2, &STANDARD_DEVICES);
    assert!(stage.attach_at(&stage.pins).is_err());
    let mut names: Vec<_> =
        fs::read_dir(&stage.pins).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(
        names,
        ["device", "sched_process_exec", "sched_process_exit"],
        "the first one's pins are untouched"
    );
}

#[test]
fn a_session_is_kept_while_its_lock_is() {
    let stage = Stage::new();
    assert!(pins::is_kept(&stage.pins).is_err());
    let lock = stage.attach_at(&stage.pins).unwrap();
    assert!(pins::is_kept(&stage.pins).unwrap());
    drop(lock);
    assert!(!pins::is_kept(&stage.pins).unwrap());
}

/// A directory without a lock is that of a dead session, for whoever keeps the others from starting meanwhile.
#[test]
fn no_directory_is_there_before_its_lock() {
    let stage = Stage::new();
    let mut kernel = Kernel::load().unwrap();
    thread::scope(|threads| {
        let starts = pins::starts(Path::new(pins::BASE)).unwrap();
        let (told, tid) = std::sync::mpsc::channel();
        let (kernel, stage) = (&mut kernel, &stage);
        let starting = threads.spawn(move || {
            told.send(nix::unistd::gettid()).unwrap();
            attach(kernel, &stage.session, 2, &[], &stage.pins).map(drop)
        });
        let place = format!("/proc/self/task/{}/syscall", tid.recv().unwrap());
        let waits = format!("{} ", nix::libc::SYS_flock);
        let until = Instant::now() + PATIENCE;
        while !fs::read_to_string(&place).unwrap().starts_with(&waits) {
            assert!(Instant::now() < until && !starting.is_finished(), "it does not wait");
            thread::yield_now();
        }
        assert!(!stage.pins.exists());
        drop(starts);
        starting.join().unwrap().unwrap();
    });
    assert!(stage.pins.exists());
}

#[test]
fn pins_are_for_bpffs_only() {
    let stage = Stage::new();
    let elsewhere = stage.programs.join("pins");
    let error = stage.attach_at(&elsewhere).unwrap_err();
    assert!(error.to_string().contains("not on bpffs"), "{error}");
}
