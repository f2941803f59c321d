//! Asks for an io_uring: its operations pass no system call filter.
#![allow(unsafe_code, reason = "io_uring_setup has no wrapper")]

use ana_tests::attempt::tell;
use nix::errno::Errno;

fn main() {
    // struct io_uring_params is 120 bytes, all zero for the defaults.
    let mut parameters = [0_u64; 15];
    // SAFETY: the kernel writes at most 120 bytes to `parameters`.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 4, parameters.as_mut_ptr()) };
    tell("io_uring_setup", Errno::result(ring));
}
