//! Bind-mounts the protected program's folder somewhere else in a mount namespace of its own and runs it there.
//! Argument: the program.

use std::{path::Path, process::Command};

use ana_tests::attempt::{argument, enter_namespaces, mount, run, say};
use nix::mount::MsFlags;

fn main() {
    let program = argument(1);
    let folder = program.parent().unwrap_or(Path::new("/"));
    if !enter_namespaces() {
        say("attempt exec: no namespace");
        return;
    }
    let place = Path::new("bound");
    if std::fs::create_dir_all(place).is_err() || !mount("bind", folder, place, None, MsFlags::MS_BIND, None)
    {
        say("attempt exec: no mount");
        return;
    }
    run("exec", Command::new(place.join(program.file_name().unwrap_or_default())).arg("bind-mount"));
}
