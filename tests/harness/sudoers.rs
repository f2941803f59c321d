//! Leave for the session's user to use sudo without a password, only as long as a test needs it.

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::machine::{USER, admin, machine, path_str};

/// A file in /etc/sudoers.d of this test's own; removed when dropped.
pub struct Sudoers(PathBuf);

impl Sudoers {
    /// Lets [`USER`] become root without being asked.
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        machine();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/etc/sudoers.d/ana-tests-{}-{count}", std::process::id()));
        fs::write(&path, format!("{USER} ALL=(ALL) NOPASSWD: ALL\n")).expect("root writes");
        admin("chmod", &["0440", path_str(&path)]);
        Self(path)
    }
}

impl Default for Sudoers {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Sudoers {
    fn drop(&mut self) {
        let removed = fs::remove_file(&self.0);
        assert!(removed.is_ok() || std::thread::panicking());
    }
}
