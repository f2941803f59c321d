//! Lets the dynamic loader run the protected program: `ld-linux.so PROGRAM`. Argument: the program.

use std::process::Command;

use ana_tests::attempt::{argument, run};

fn main() {
    let program = argument(1);
    run("exec", Command::new("/lib64/ld-linux-x86-64.so.2").arg(program).arg("loader"));
}
