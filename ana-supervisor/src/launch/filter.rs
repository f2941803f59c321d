//! The base filter: system calls that no session needs and that would reach into another process, past the gates, or out
//! of what they see. Plain errno rules, race-free. A switch of the policy opens one of them, loudly.

use super::spec::Switches;
use crate::sys::seccomp::{Filter, Flags, Table};

/// The numbers of one system call table.
struct Numbers {
    ptrace: libc::c_long,
    process_vm_readv: libc::c_long,
    process_vm_writev: libc::c_long,
    pidfd_getfd: libc::c_long,
    io_uring_setup: libc::c_long,
    prlimit64: libc::c_long,
    clone: libc::c_long,
    clone3: libc::c_long,
    unshare: libc::c_long,
    seccomp: libc::c_long,
    socket: libc::c_long,
    socketpair: libc::c_long,
}

const NATIVE: Numbers = Numbers {
    ptrace: libc::SYS_ptrace,
    process_vm_readv: libc::SYS_process_vm_readv,
    process_vm_writev: libc::SYS_process_vm_writev,
    pidfd_getfd: libc::SYS_pidfd_getfd,
    io_uring_setup: libc::SYS_io_uring_setup,
    prlimit64: libc::SYS_prlimit64,
    clone: libc::SYS_clone,
    clone3: libc::SYS_clone3,
    unshare: libc::SYS_unshare,
    seccomp: libc::SYS_seccomp,
    socket: libc::SYS_socket,
    socketpair: libc::SYS_socketpair,
};

/// arch/x86/entry/syscalls/syscall_32.tbl
const I386: Numbers = Numbers {
    ptrace: 26,
    process_vm_readv: 347,
    process_vm_writev: 348,
    pidfd_getfd: 438,
    io_uring_setup: 425,
    prlimit64: 340,
    clone: 120,
    clone3: 435,
    unshare: 310,
    seccomp: 354,
    socket: 359,
    socketpair: 360,
};
/// socketcall(2): its arguments lie in memory, where a filter cannot look. Programs have used the calls it stands for
/// since Linux 4.3.
const I386_SOCKETCALL: libc::c_long = 102;

/// The filter for a session with these switches.
pub fn base(switches: Switches) -> Filter {
    let i386 = switches.i386.then(|| {
        let mut table = table(&I386, switches);
        table.refuse.push((I386_SOCKETCALL, libc::ENOSYS));
        table
    });
    Filter { native: table(&NATIVE, switches), i386 }
}

fn table(numbers: &Numbers, switches: Switches) -> Table {
    // Its flags lie in memory, where a filter cannot look. Programs fall back to clone(2), as on an old kernel.
    let mut refuse = vec![(numbers.clone3, libc::ENOSYS)];
    if !switches.debuggers {
        refuse.extend([
            // Rewrites a process that has been judged.
            (numbers.ptrace, libc::EPERM),
            (numbers.process_vm_writev, libc::EPERM),
            // Copies a held program out of its memory.
            (numbers.process_vm_readv, libc::EPERM),
            // Takes descriptors out of a process that was given them.
            (numbers.pidfd_getfd, libc::EPERM),
        ]);
    }
    if !switches.io_uring {
        // Operations that no filter sees. EPERM is what the sysctl io_uring_disabled answers: programs know it.
        refuse.push((numbers.io_uring_setup, libc::EPERM));
    }
    let errno = libc::EPERM;
    let mut refuse_flags = vec![
        // A process that shares a held one's working directory moves it to another after it was shown. (Threads are
        // stopped with it.)
        Flags { call: numbers.clone, argument: 0, flag: libc::CLONE_FS, unless: libc::CLONE_THREAD, errno },
        // Whoever listens to a filter answers the system calls of what was judged: its files are others then.
        Flags { call: numbers.seccomp, argument: 1, flag: NEW_LISTENER, unless: 0, errno },
    ];
    if !switches.namespaces {
        // Whoever is root in one may change its root folder, and with it what a program loads.
        refuse_flags.extend([numbers.clone, numbers.unshare].map(|call| Flags {
            call,
            argument: 0,
            flag: libc::CLONE_NEWUSER,
            unless: 0,
            errno,
        }));
    }
    Table {
        refuse,
        // Setting the limits of another process: RLIMIT_CPU = 0 kills it, and Landlock does not scope this call.
        refuse_unless_zero: vec![(numbers.prlimit64, &[0, 2][..], errno)],
        refuse_flags,
        socket_calls: vec![numbers.socket, numbers.socketpair],
        families: vec![libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK],
    }
}

/// SECCOMP_FILTER_FLAG_NEW_LISTENER (linux/seccomp.h); libc has it as the wider type of a pointer.
const NEW_LISTENER: i32 = 8;
