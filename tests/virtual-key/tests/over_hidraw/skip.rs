//! A test that this machine cannot run says so where everybody sees it, and is counted.

use std::{fs::OpenOptions, io::Write};

/// Whether keys can be made here. If not, prints `SKIPPED: test: reason` past the test runner's capture and appends it
/// to `target/ana-tests/skipped`, which `cargo xtask test` counts; the caller returns.
pub(crate) fn no_uhid(test: &str) -> bool {
    let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/uhid") else { return false };
    let line = format!("SKIPPED: {test}: no /dev/uhid ({error})\n");
    std::io::stderr().write_all(line.as_bytes()).expect("stderr takes a line");
    let exe = std::env::current_exe().expect("a running program has a path");
    // target/<profile>/deps/<test>
    let target = exe.ancestors().nth(3).expect("cargo's layout");
    let folder = target.join("ana-tests");
    std::fs::create_dir_all(&folder).expect("the target folder can be written");
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join("skipped"))
        .and_then(|mut file| file.write_all(line.as_bytes()))
        .expect("the list of skipped tests can be written");
    true
}
