//! Runs the protected program by the names that /proc has for it: /proc/self/root/…, /proc/self/cwd/….
//! Argument: the program.

use std::{path::Path, process::Command};

use ana_tests::attempt::{argument, run};

fn main() {
    let program = argument(1);
    let below = program.strip_prefix("/").unwrap_or(&program);
    run("exec-root", Command::new(Path::new("/proc/self/root").join(below)).arg("root"));
    let folder = program.parent().unwrap_or(Path::new("/"));
    let name = Path::new("/proc/self/cwd").join(program.file_name().unwrap_or_default());
    run("exec-cwd", Command::new(name).arg("cwd").current_dir(folder));
}
