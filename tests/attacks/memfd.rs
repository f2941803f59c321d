//! Runs bytes from memory: execveat on a memfd. First with bytes read from the protected program now, then with
//! those of a copy that was made before. Arguments: the program, the earlier copy.
#![allow(unsafe_code, reason = "fork")]

use std::{ffi::CString, fs, io::Write};

use ana_tests::attempt::{argument, c_environment, say, tell, tell_io};
use nix::{
    errno::Errno,
    fcntl::AtFlags,
    sys::{
        memfd::{MFdFlags, memfd_create},
        wait::{WaitStatus, waitpid},
    },
    unistd::{ForkResult, execveat, fork},
};

fn main() {
    try_run("now", tell_io("read", fs::read(argument(1))));
    try_run("earlier", tell_io("read-earlier", fs::read(argument(2))));
}

fn try_run(when: &str, bytes: Option<Vec<u8>>) {
    let name = format!("exec-{when}");
    let Some(bytes) = bytes else {
        say(&format!("attempt {name}: no bytes"));
        return;
    };
    let Some(fd) = tell("memfd", memfd_create(c"deploy", MFdFlags::empty())) else { return };
    let mut file = fs::File::from(fd);
    if tell_io("fill", file.write_all(&bytes)).is_none() {
        return;
    }
    let arguments = [c"deploy".to_owned(), CString::new(when).unwrap_or_default()];
    let environment = c_environment();
    // SAFETY: this process has one thread, so the child may do whatever it likes.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => {
            tell(&name, execveat(&file, c"", &arguments, &environment, AtFlags::AT_EMPTY_PATH));
            std::process::exit(126);
        }
        Ok(ForkResult::Parent { child }) => match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, 0)) => say(&format!("attempt {name}: ok")),
            ended => say(&format!("attempt {name}: {ended:?}")),
        },
        Err(errno) => drop(tell::<()>(&name, Err::<(), Errno>(errno))),
    }
}
