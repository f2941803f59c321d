//! Executes the protected program with something that does not answer: a path, an argument or a stderr in a stalled file
//! system. Arguments: `path`, `argv`, `envp` or `stderr`; the program; the stalling folder.
#![allow(unsafe_code, reason = "fork, and execve with an argument in mapped memory, are the attack")]

use std::{fs::OpenOptions, num::NonZeroUsize, os::fd::AsFd, path::Path, ptr};

use ana_tests::attempt::{argument, c_environment, c_path, say, tell};
use nix::{
    errno::Errno,
    sys::{
        mman::{MapFlags, ProtFlags, mmap},
        wait::waitpid,
    },
    unistd::{ForkResult, dup2_stderr, execve, fork},
};

fn main() {
    let (how, program, folder) = (argument(1), argument(2), argument(3));
    // SAFETY: this process has one thread, so the child may do whatever it likes.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => {
            tell("stall", stall(how.to_str().unwrap_or_default(), &program, &folder));
            std::process::exit(126);
        }
        Ok(ForkResult::Parent { child }) => {
            say("begun");
            say(&format!("ended {:?}", waitpid(child, None)));
        }
        Err(errno) => drop(tell::<()>("fork", Err(errno))),
    }
}

/// Only a failure returns.
fn stall(how: &str, program: &Path, folder: &Path) -> Result<(), Errno> {
    let errno = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(0));
    let (path, environment) = (c_path(program), c_environment());
    let attack = [c"deploy".to_owned(), c"attack".to_owned()];
    match how {
        "path" => execve(&c_path(&folder.join("slow")), &attack, &environment).map(drop),
        "stderr" => {
            let file = OpenOptions::new().write(true).open(folder.join("file")).map_err(errno)?;
            dup2_stderr(&file)?;
            execve(&path, &attack, &environment).map(drop)
        }
        _ => {
            let file = OpenOptions::new().read(true).open(folder.join("file")).map_err(errno)?;
            let size = NonZeroUsize::new(4096).ok_or(Errno::EINVAL)?;
            // SAFETY: a fresh private mapping, which lives until the exec.
            let page =
                unsafe { mmap(None, size, ProtFlags::PROT_READ, MapFlags::MAP_PRIVATE, file.as_fd(), 0)? };
            let stalled = page.as_ptr().cast_const().cast::<libc::c_char>();
            let argv =
                [c"deploy".as_ptr(), if how == "argv" { stalled } else { c"attack".as_ptr() }, ptr::null()];
            let envp = [if how == "envp" { stalled } else { c"A=1".as_ptr() }, ptr::null()];
            // SAFETY: the arrays end with null; what a pointer names is the kernel's to read, page by page.
            Errno::result(unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) }).map(drop)
        }
    }
}
