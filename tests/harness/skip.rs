//! A test that this machine cannot run says so where everybody sees it, and is counted.

use std::io::Write;

use crate::machine;

/// Prints `SKIPPED: reason` past the test runner's capture and appends it to `target/ana-tests/skipped`, which
/// `cargo xtask test` counts. The caller returns afterwards.
pub fn skipped(test: &str, reason: &str) {
    let line = format!("SKIPPED: {test}: {reason}\n");
    std::io::stderr().write_all(line.as_bytes()).expect("stderr takes a line");
    let folder = machine::target_dir().join("ana-tests");
    std::fs::create_dir_all(&folder).expect("the target folder can be written");
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join("skipped"))
        .and_then(|mut file| file.write_all(line.as_bytes()))
        .expect("the list of skipped tests can be written");
}
