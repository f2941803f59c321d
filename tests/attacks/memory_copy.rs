//! Copies a held program out of its memory, which its parent may read in /proc/PID/mem, and runs the copy. Arguments: the
//! program, where the copy goes.
#![allow(unsafe_code, reason = "fork")]

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, OpenOptionsExt},
    },
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use ana_tests::attempt::{argument, c_environment, c_path, run, say, tell, tell_io};
use nix::{
    sys::{
        signal::{Signal, kill},
        wait::waitpid,
    },
    unistd::{ForkResult, Pid, execve, fork},
};

fn main() {
    let (program, copy) = (argument(1), argument(2));
    let (path, environment) = (c_path(&program), c_environment());
    // SAFETY: this process has one thread, so the child may do whatever it likes.
    let child = match unsafe { fork() } {
        Ok(ForkResult::Child) => {
            let arguments = [c"deploy".to_owned(), c"held".to_owned()];
            tell("exec", execve(&path, &arguments, &environment));
            std::process::exit(126);
        }
        Ok(ForkResult::Parent { child }) => child,
        Err(errno) => {
            tell::<()>("fork", Err(errno));
            return;
        }
    };
    let held = until_it_is(child, &program);
    say(&format!("held {held}"));
    tell_io("read-memory", take(child, &program, &copy));
    tell("kill", kill(child, Signal::SIGKILL));
    tell("wait", waitpid(child, None));
    run("run-copy", Command::new(&copy).arg("copied"));
}

/// Waits until the child's image is the program: it has no instruction of it behind it.
fn until_it_is(child: Pid, program: &Path) -> bool {
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        if fs::read_link(format!("/proc/{child}/exe")).is_ok_and(|exe| exe == program) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

/// Every mapped part of the program's file, put where it lies in the file.
fn take(child: Pid, program: &Path, copy: &Path) -> std::io::Result<()> {
    let maps = fs::read(format!("/proc/{child}/maps"))?;
    let memory = File::open(format!("/proc/{child}/mem"))?;
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o755).open(copy)?;
    for line in
        maps.split(|byte| *byte == b'\n').filter(|line| line.ends_with(program.as_os_str().as_bytes()))
    {
        let Some((start, end, offset)) = place(OsStr::from_bytes(line).to_str().unwrap_or_default()) else {
            continue;
        };
        let mut bytes = vec![0; usize::try_from(end - start).map_err(std::io::Error::other)?];
        // A page beyond the file's end cannot be read: what came before it is enough.
        let length = memory.read_at(&mut bytes, start)?;
        file.write_all_at(&bytes[..length], offset)?;
    }
    Ok(())
}

/// Start, end and file offset of a line of /proc/PID/maps.
fn place(line: &str) -> Option<(u64, u64, u64)> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let offset = fields.nth(1)?;
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    Some((number(start)?, number(end)?, number(offset)?))
}
