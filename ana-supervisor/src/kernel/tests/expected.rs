//! What was let through without a hold is executed exactly as it was, once.

use std::{fs, path::Path};

use nix::unistd::Pid;

use super::super::{BLOCK_BYTES, Block, Kernel, KillReason, Report};
use super::stage::{Stage, was_killed};

/// The process's own environment block, and the arguments it is going to execute.
pub(super) fn block(arguments: &[&str]) -> Block {
    let mut bytes: Vec<u8> =
        arguments.iter().flat_map(|argument| [argument.as_bytes(), b"\0"].concat()).collect();
    let arguments = bytes.len();
    bytes.extend(environment());
    Block::new(&bytes, arguments).unwrap()
}

pub(super) fn started(tgid: u32) -> u64 {
    let pid = Pid::from_raw(tgid.cast_signed());
    crate::gate::process::start_time(pid).unwrap().parse().unwrap()
}

/// What the stage's shell hands to what it executes, as `env -0` shows it there.
fn environment() -> Vec<u8> {
    static BLOCK: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    let read = || {
        let shell = "exec cat /proc/self/environ";
        std::process::Command::new("/bin/sh").args(["-c", shell]).output().unwrap().stdout
    };
    BLOCK.get_or_init(read).clone()
}

#[test]
fn what_was_let_through_runs_once_and_nothing_else_does() {
    let stage = Stage::new();
    let mut guard = stage.guard(Kernel::load().unwrap());
    let (program, file) = stage.program("touch", "/usr/bin/touch");
    let (other, other_file) = stage.program("other", "/usr/bin/touch");
    guard.maps.protect(file).unwrap();
    guard.maps.protect(other_file).unwrap();
    let (marker, evil) = (stage.programs.join("ran"), stage.programs.join("evil"));
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let (program, other) = (path(&program), path(&other));
    let (marker_path, evil_path) = (path(&marker), path(&evil));
    let attempt = |executed: [&str; 2], let_through: &[&str], env: bool| {
        let command =
            if env { vec!["/usr/bin/env", "X=1", executed[0], executed[1]] } else { executed.to_vec() };
        let actor = stage.start(&stage.session, &command);
        let tgid = actor.tgid();
        guard.maps.expect(tgid, file, started(tgid), &block(let_through)).unwrap();
        was_killed(actor.go())
    };
    let good = [program.as_str(), marker_path.as_str()];
    assert!(!attempt(good, &good, false));
    assert!(fs::remove_file(&marker).is_ok());
    // Other arguments, of the same length and of others; another argv[0]; another environment; another file.
    assert!(attempt([&program, &evil_path], &good, false));
    assert!(attempt([&program, &marker_path[1..]], &good, false));
    assert!(attempt(good, &["touch", &marker_path], false));
    assert!(attempt(good, &[&program, &marker_path, ""], false));
    assert!(attempt(good, &good, true));
    assert!(attempt([&other, &marker_path], &[&other, &marker_path], false));
    assert!(!marker.exists() && !evil.exists());
    for _ in 0..6 {
        match guard.next() {
            Report::Killed { reason: KillReason::NotExpected, still_alive: false, .. } => {}
            other => panic!("{other:?}"),
        }
    }
    // Used up.
    let actor = stage
        .start(&stage.session, &["/bin/sh", "-c", "\"$0\" \"$1\"; exec \"$0\" \"$1\"", &program, &evil_path]);
    assert!(was_killed(actor.go()));
    match (guard.next(), guard.next()) {
        (
            Report::Killed { reason: KillReason::NotHeld, .. },
            Report::Killed { reason: KillReason::NotHeld, .. },
        ) => {}
        other => panic!("{other:?}"),
    }
    guard.assert_silent();
    assert!(guard.maps.health().unwrap().is_clean());
}

#[test]
fn a_permission_of_another_life_of_the_pid_is_none() {
    let stage = Stage::new();
    let mut guard = stage.guard(Kernel::load().unwrap());
    let (program, file) = stage.program("true", "/bin/true");
    let path = program.to_str().unwrap();
    guard.maps.protect(file).unwrap();
    let actor = stage.start(&stage.session, &[path]);
    let tgid = actor.tgid();
    guard.maps.expect(tgid, file, started(tgid) - 1, &block(&[path])).unwrap();
    assert!(was_killed(actor.go()));
    guard.assert_killed(KillReason::NotExpected);
}

#[test]
fn the_longest_block_is_compared_to_its_last_byte() {
    let stage = Stage::new();
    let mut guard = stage.guard(Kernel::load().unwrap());
    let (program, file) = stage.program("true", "/bin/true");
    let path = program.to_str().unwrap();
    guard.maps.protect(file).unwrap();
    let room = BLOCK_BYTES - environment().len() - path.len() - 2;
    for (length, change, killed) in [(room, false, false), (room, true, true), (room - 7, false, false)] {
        let long = "x".repeat(length);
        let actor = stage.start(&stage.session, &[path, &long]);
        let mut wanted = block(&[path, &long]);
        if change {
            let last = (usize::try_from(wanted.length).unwrap() - 1) / 8;
            wanted.words[last] ^= 1;
        }
        let tgid = actor.tgid();
        guard.maps.expect(tgid, file, started(tgid), &wanted).unwrap();
        assert_eq!(was_killed(actor.go()), killed, "{length} {change}");
        if killed {
            guard.assert_killed(KillReason::NotExpected);
        }
    }
    guard.assert_silent();
}
