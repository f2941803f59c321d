//! Calls the protected program by other names: a rule that allows `deploy status` must not allow
//! `exec -a deploy-everything deploy status`. Argument: the program.
#![allow(unsafe_code, reason = "fork")]

use std::{ffi::CString, path::Path};

use ana_tests::attempt::{argument, c_environment, c_path, say, tell};
use nix::{
    sys::wait::{WaitStatus, waitpid},
    unistd::{ForkResult, execve, fork},
};

fn main() {
    let program = argument(1);
    call("other-name", &program, &[c"deploy-everything", c"status"]);
    call("empty-name", &program, &[c"", c"status"]);
    call("slash-name", &program, &[c"/", c"status"]);
    call("other-folder", &program, &[c"/elsewhere/deploy/", c"status"]);
    call("no-name", &program, &[]);
}

fn call(name: &str, program: &Path, arguments: &[&std::ffi::CStr]) {
    let path = c_path(program);
    let arguments: Vec<CString> = arguments.iter().map(|&arg| arg.to_owned()).collect();
    let environment = c_environment();
    // SAFETY: this process has one thread, so the child may do whatever it likes.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => {
            tell(name, execve(&path, &arguments, &environment));
            std::process::exit(126);
        }
        Ok(ForkResult::Parent { child }) => match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, 0)) => say(&format!("attempt {name}: ok")),
            ended => say(&format!("attempt {name}: {ended:?}")),
        },
        Err(errno) => drop(tell::<()>(name, Err(errno))),
    }
}
