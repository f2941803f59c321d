//! Registers a format of its own with binfmt_misc, in a user namespace: once with the protected program as the interpreter,
//! once with a program of the agent's as the interpreter of the protected file, which it is handed open for reading.
//! Arguments: the program, the agent's interpreter.

use std::{fs, os::unix::fs::symlink, path::Path, process::Command};

use ana_tests::attempt::{argument, enter_namespaces, mount, run, say, tell_io};
use nix::mount::MsFlags;

fn main() {
    let (program, reader) = (argument(1), argument(2));
    let formats = Path::new("formats");
    let none = tell_io("mkdir", fs::create_dir_all(formats)).is_none();
    let kind = Some("binfmt_misc");
    if none
        || !enter_namespaces()
        || !mount("formats", Path::new("none"), formats, kind, MsFlags::empty(), None)
    {
        for way in ["as-interpreter", "interpreted", "fixed"] {
            say(&format!("attempt {way}: no namespace"));
        }
        return;
    }
    let register = |rule: String| fs::write(formats.join("register"), rule);
    tell_io("register", register(format!(":a:E::asked::{}:", program.display())));
    tell_io("text", fs::write("text.asked", "no program"));
    executable("text.asked");
    run("as-interpreter", Command::new("./text.asked").arg("asked"));

    tell_io("register-2", register(format!(":r:E::read::{}:O", reader.display())));
    tell_io("link", symlink(&program, "deploy.read"));
    run("interpreted", Command::new("./deploy.read").arg("interpreted"));

    // F: the interpreter is opened now, by a write, not by an exec.
    tell_io("fixed", register(format!(":f:E::fixed::{}:F", program.display())));
}

fn executable(path: &str) {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    tell_io("chmod", fs::set_permissions(path, mode));
}
