//! The base filter: system calls that no session needs and that would reach into another process, past the gates, or out
//! of what they see. Plain errno rules, race-free. A switch of the policy opens one of them, loudly.

use super::spec::Switches;
use crate::sys::seccomp::Filter;

/// The filter for a session with these switches.
pub fn base(switches: Switches) -> Filter {
    let mut refuse = Vec::new();
    if !switches.debuggers {
        refuse.extend([
            // Rewrites a process that has been judged.
            (libc::SYS_ptrace, libc::EPERM),
            (libc::SYS_process_vm_writev, libc::EPERM),
            // Copies a held program out of its memory.
            (libc::SYS_process_vm_readv, libc::EPERM),
            // Takes descriptors out of a process that was given them.
            (libc::SYS_pidfd_getfd, libc::EPERM),
        ]);
    }
    if !switches.io_uring {
        // Operations that no filter sees. EPERM is what the sysctl io_uring_disabled answers: programs know it.
        refuse.push((libc::SYS_io_uring_setup, libc::EPERM));
    }
    let families = vec![libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    // Setting the limits of another process: RLIMIT_CPU = 0 kills it, and Landlock does not scope this call.
    let refuse_unless_zero = vec![(libc::SYS_prlimit64, &[0, 2][..], libc::EPERM)];
    Filter { refuse, refuse_unless_zero, families, i386: switches.i386 }
}
