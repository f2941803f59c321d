//! Runs the protected program through a symbolic link, and through a chain of them. Argument: the program.

use std::{os::unix::fs::symlink, process::Command};

use ana_tests::attempt::{argument, run, tell_io};

fn main() {
    tell_io("symlink", symlink(argument(1), "one"));
    tell_io("chain", symlink("one", "two"));
    run("exec-symlink", Command::new("./one").arg("symlink"));
    run("exec-chain", Command::new("./two").arg("chain"));
}
