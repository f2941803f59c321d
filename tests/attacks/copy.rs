//! Copies the protected program and runs the copy: by reading it, by cp, by copy_file_range, by a descriptor that
//! was opened with O_PATH first, by mapping it. Argument: the program.
#![allow(unsafe_code, reason = "mmap")]

use std::{
    fs::{self, File},
    io::{self, Write},
    os::{fd::AsRawFd, unix::fs::PermissionsExt},
    path::Path,
    process::Command,
};

use ana_tests::attempt::{argument, run, say, tell, tell_io};
use nix::{
    fcntl::{OFlag, open},
    sys::{
        mman::{MapFlags, ProtFlags, mmap},
        stat::Mode,
    },
};

fn main() {
    let program = argument(1);
    let read = tell_io("read", fs::read(&program));
    try_copy("read", read);

    run("cp", Command::new("cp").arg(&program).arg("copy-cp"));
    run("exec-cp", Command::new("./copy-cp").arg("cp"));

    tell_io("copy_file_range", fs::copy(&program, "copy-range"));
    run("exec-range", Command::new("./copy-range").arg("range"));

    let again = tell("o-path", open(&program, OFlag::O_PATH, Mode::empty()))
        .and_then(|fd| tell_io("reopen", fs::read(format!("/proc/self/fd/{}", fd.as_raw_fd()))));
    try_copy("reopen", again);

    let mapped = tell_io("open-for-map", File::open(&program)).and_then(|file| tell_io("map", map(&file)));
    try_copy("map", mapped);
}

fn try_copy(how: &str, bytes: Option<Vec<u8>>) {
    let Some(bytes) = bytes else {
        say(&format!("attempt exec-{how}: no bytes"));
        return;
    };
    let name = format!("./copy-{how}");
    let written = File::create(&name).and_then(|mut file| file.write_all(&bytes));
    tell_io(&format!("write-{how}"), written);
    tell_io(&format!("mode-{how}"), fs::set_permissions(Path::new(&name), fs::Permissions::from_mode(0o755)));
    run(&format!("exec-{how}"), Command::new(&name).arg(how));
}

fn map(file: &File) -> io::Result<Vec<u8>> {
    let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    let Some(size) = std::num::NonZeroUsize::new(length) else { return Ok(Vec::new()) };
    // SAFETY: a private mapping of a file that nobody shortens, at an address of the kernel's choice.
    let start = unsafe { mmap(None, size, ProtFlags::PROT_READ, MapFlags::MAP_PRIVATE, file, 0)? };
    // SAFETY: the mapping is `length` readable bytes and lives until this process ends.
    Ok(unsafe { std::slice::from_raw_parts(start.as_ptr().cast::<u8>(), length) }.to_vec())
}
