//! Opens terminals that are not its own, writes a forged question to them and reads from them.
//! Arguments: the terminals' paths.
#![allow(unsafe_code, reason = "TIOCSTI has no wrapper")]

use std::{fs::OpenOptions, io::Write, os::fd::AsRawFd};

use ana_tests::attempt::{tell, tell_io};
use nix::errno::Errno;

fn main() {
    for (index, path) in std::env::args_os().skip(1).enumerate() {
        let Some(mut terminal) =
            tell_io(&format!("open-{index}"), OpenOptions::new().read(true).write(true).open(&path))
        else {
            continue;
        };
        tell_io(&format!("write-{index}"), terminal.write_all(b"forged question\r\n"));
        // SAFETY: the third argument points to one byte, which is all that TIOCSTI reads.
        let pushed = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSTI, c"y".as_ptr()) };
        tell(&format!("push-{index}"), Errno::result(pushed));
    }
}
