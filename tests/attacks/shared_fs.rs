//! Executes the protected program in one folder, and moves it to another while it is held: a process that shares its file
//! system information (CLONE_FS) changes directory for both, once it reads a line on stdin. Arguments: the program, the
//! folder that is to be shown, the folder that is meant.
#![allow(unsafe_code, reason = "clone with shared file system information is the attack")]

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use ana_tests::attempt::{argument, c_environment, c_path, say, tell, tell_io};
use nix::{
    errno::Errno,
    sys::wait::{WaitStatus, waitpid},
    unistd::{Pid, chdir, dup2_stdin, execve, pipe, write},
};

fn main() {
    let (program, shown, meant) = (argument(1), argument(2), argument(3));
    let (path, environment) = (c_path(&program), c_environment());
    if tell("shown", chdir(&shown)).is_none() {
        return;
    }
    let Some((wait, go)) = tell("pipe", pipe()) else { return };
    // SAFETY: without CLONE_VM and a stack this is fork(2) with one more thing shared; this process has one thread.
    let child = unsafe { libc::syscall(libc::SYS_clone, libc::CLONE_FS | libc::SIGCHLD, 0, 0, 0, 0) };
    if child == 0 {
        // It waits for us if nothing else stops it.
        tell("stdin", dup2_stdin(&wait));
        let arguments = [c"deploy", c"--read", c"--exec=/usr/bin/pwd"];
        tell("exec", execve(&path, &arguments, &environment));
        std::process::exit(126);
    }
    let Some(child) = tell("clone", Errno::result(child)).and_then(|pid| i32::try_from(pid).ok()) else {
        return;
    };
    let child = Pid::from_raw(child);
    say(&format!("held {}", until_it_is(child, &program)));
    let mut line = String::new();
    tell_io("order", std::io::stdin().read_line(&mut line));
    tell("chdir", chdir(&meant));
    say("moved");
    tell("release", write(&go, b"\n"));
    match waitpid(child, None) {
        Ok(WaitStatus::Exited(_, 0)) => say("attempt run: ok"),
        ended => say(&format!("attempt run: {ended:?}")),
    }
}

/// Waits until the child's image is the program, or the child is over.
fn until_it_is(child: Pid, program: &Path) -> bool {
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        match fs::read_link(format!("/proc/{child}/exe")) {
            Ok(exe) if exe == program => return true,
            Ok(_) => std::thread::sleep(Duration::from_millis(2)),
            // A zombie has no image.
            Err(_) => return false,
        }
    }
    false
}
