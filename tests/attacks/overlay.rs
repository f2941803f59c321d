//! Puts an overlay over the protected program's folder and runs it from there, once as it lies in the lower folder
//! and once after a write made the overlay copy it up. Argument: the program.

use std::{path::Path, process::Command};

use ana_tests::attempt::{argument, enter_namespaces, mount, run, say, tell_io};
use nix::mount::MsFlags;

fn main() {
    let program = argument(1);
    let folder = program.parent().unwrap_or(Path::new("/")).to_string_lossy().into_owned();
    let name = program.file_name().unwrap_or_default().to_owned();
    if !enter_namespaces() {
        say("attempt exec-lower: no namespace");
        say("attempt exec-upper: no namespace");
        return;
    }
    for part in ["upper", "work", "merged"] {
        tell_io(&format!("mkdir-{part}"), std::fs::create_dir_all(part));
    }
    let data = format!("lowerdir={folder},upperdir=upper,workdir=work");
    let merged = Path::new("merged");
    if !mount("overlay", Path::new("overlay"), merged, Some("overlay"), MsFlags::empty(), Some(&data)) {
        say("attempt exec-lower: no mount");
        say("attempt exec-upper: no mount");
        return;
    }
    let program = merged.join(name);
    run("exec-lower", Command::new(&program).arg("overlay-lower"));
    // A change of mode copies the file up: from then on the bytes lie in a file that nobody marked.
    let up = std::fs::metadata(&program).and_then(|now| {
        let mut mode = now.permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o700);
        std::fs::set_permissions(&program, mode)
    });
    tell_io("copy-up", up);
    run("exec-upper", Command::new(&program).arg("overlay-upper"));
}
