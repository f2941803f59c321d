//! Keeps a program open without reading it (O_PATH), waits for a line on stdin, then runs it by that descriptor.
//! Argument: the program.

use std::ffi::CString;

use ana_tests::attempt::{argument, c_environment, c_path, say, tell};
use nix::{
    fcntl::{OFlag, open},
    sys::stat::Mode,
};

fn main() {
    let program = argument(1);
    let opened = tell("open", open(&program, OFlag::O_PATH, Mode::empty()));
    say("ready");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap_or_default();
    let Some(file) = opened else { return };
    let name = c_path(&program);
    let arguments: [CString; 2] = [name, c_path(std::path::Path::new("unlinked"))];
    tell(
        "exec",
        nix::unistd::execveat(file, c"", &arguments, &c_environment(), nix::fcntl::AtFlags::AT_EMPTY_PATH),
    );
}
