//! The identity of files is the kernel's own, on every file system.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::super::{Kernel, KillReason, Report, identity};
use super::stage::{Stage, key, was_killed};

/// A mount that ends with the test.
struct Mounted(PathBuf);

impl Mounted {
    fn new(kind: &str, at: PathBuf, options: &str) -> Self {
        fs::create_dir_all(&at).unwrap();
        mount(Some(kind), &at, Some(kind), MsFlags::empty(), Some(options)).unwrap();
        Self(at)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let done = umount2(&self.0, MntFlags::MNT_DETACH);
        assert!(done.is_ok() || std::thread::panicking(), "{done:?}");
    }
}

/// What file_key() says is what the guard sees.
fn assert_guarded(stage: &Stage, program: &Path) {
    let mut guard = stage.guard(Kernel::load().unwrap());
    let file = key(program);
    guard.maps.protect(file).unwrap();
    assert!(was_killed(stage.run(&stage.session, &[program.to_str().unwrap()])), "{}", program.display());
    match guard.next() {
        Report::Killed { file: f, reason: KillReason::NotHeld, .. } => assert_eq!(f, file),
        other => panic!("{other:?}"),
    }
}

#[test]
fn on_the_disk() {
    let stage = Stage::new();
    let (program, _) = stage.program("true", "/bin/true");
    assert_guarded(&stage, &program);
}

#[test]
fn on_tmpfs() {
    let stage = Stage::new();
    let mounted = Mounted::new("tmpfs", stage.programs.join("tmpfs"), "mode=755");
    let program = mounted.0.join("true");
    fs::copy("/bin/true", &program).unwrap();
    assert_guarded(&stage, &program);
}

#[test]
fn on_overlayfs_in_both_layers() {
    let layers = |stage: &Stage| {
        let upper = Mounted::new("tmpfs", stage.programs.join("tmpfs"), "mode=755");
        for directory in ["upper", "work"] {
            fs::create_dir(upper.0.join(directory)).unwrap();
        }
        let lower = stage.programs.join("lower");
        fs::create_dir(&lower).unwrap();
        fs::copy("/bin/true", lower.join("low")).unwrap();
        let at = |path: &str| upper.0.join(path).display().to_string();
        let options = format!("lowerdir={},upperdir={},workdir={}", lower.display(), at("upper"), at("work"));
        (Mounted::new("overlay", stage.programs.join("merged"), &options), upper)
    };
    for name in ["low", "high"] {
        let stage = Stage::new();
        let (merged, _upper) = layers(&stage);
        let program = merged.0.join(name);
        if name == "high" {
            fs::copy("/bin/true", &program).unwrap();
        }
        assert_guarded(&stage, &program);
    }
}

/// A fanotify event's file was opened through a mount of the session's own namespace.
#[test]
fn through_a_mount_of_another_namespace() {
    let stage = Stage::new();
    let directory = |name: &str| {
        let path = stage.programs.join(name);
        fs::create_dir(&path).unwrap();
        path.display().to_string()
    };
    let (lower, merged, upper) = (directory("lower"), directory("merged"), directory("upper"));
    fs::copy("/bin/true", format!("{lower}/true")).unwrap();
    let script = "mount -t tmpfs tmpfs $3 && mkdir $3/u $3/w &&
        mount -t overlay overlay -o lowerdir=$1,upperdir=$3/u,workdir=$3/w $2 && echo ready && read done";
    let mut other = Command::new("/usr/bin/unshare")
        .args(["--mount", "/bin/sh", "-c", script, "sh", &lower, &merged, &upper])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(other.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");

    let inside = Path::new("/proc").join(other.id().to_string()).join("root").join(&merged[1..]).join("true");
    let file = File::open(&inside).unwrap();
    let file = identity::file_key_seen_by(file.as_fd(), other.id()).unwrap();
    let mut guard = stage.guard(Kernel::load().unwrap());
    guard.maps.protect(file).unwrap();
    assert!(was_killed(stage.run(&stage.session, &[inside.to_str().unwrap()])));
    match guard.next() {
        Report::Killed { file: f, reason: KillReason::NotHeld, .. } => assert_eq!(f, file),
        other => panic!("{other:?}"),
    }
    drop(other.stdin.take());
    other.wait().unwrap();
}
