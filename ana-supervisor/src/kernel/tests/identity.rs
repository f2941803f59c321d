//! The identity of files is the kernel's own, on every file system.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::super::{Kernel, KillReason, Report};
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
