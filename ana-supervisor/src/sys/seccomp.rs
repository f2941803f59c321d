//! A seccomp filter of plain errno rules (seccomp(2)): no listener, no pointer is looked at, hence no race.

use std::io;

use libc::{sock_filter, sock_fprog};

use super::check;

pub mod only;

/// A classic BPF program that answers every system call with "go on" or with an errno.
#[derive(Clone, Debug)]
pub struct Filter {
    pub native: Table,
    /// For 32-bit (i386) system calls; `None`: they do not exist (ENOSYS).
    pub i386: Option<Table>,
}

/// What is refused of one system call table.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Refused by number, with this errno.
    pub refuse: Vec<(libc::c_long, i32)>,
    /// Refused, with this errno, when none of these arguments (by position) is zero.
    pub refuse_unless_zero: Vec<(libc::c_long, &'static [u32], i32)>,
    /// Refused, with this errno, when an argument has a flag, unless it has another one with it.
    pub refuse_flags: Vec<Flags>,
    /// The calls that make sockets, and the only address families they may be asked for (else EAFNOSUPPORT).
    pub socket_calls: Vec<libc::c_long>,
    pub families: Vec<i32>,
}

/// A flag of a system call that is refused. Only the argument's lower half is looked at: the kernel does the same where
/// this is used.
#[derive(Clone, Copy, Debug)]
pub struct Flags {
    pub call: libc::c_long,
    /// The argument's position.
    pub argument: u32,
    pub flag: i32,
    /// What makes the flag harmless; 0: nothing.
    pub unless: i32,
    pub errno: i32,
}

const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const AUDIT_ARCH_I386: u32 = 0x4000_0003;
/// __X32_SYSCALL_BIT: an x32 call has the x86-64 architecture, and numbers from here on.
const X32: u32 = 0x4000_0000;
/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

const LOAD: u16 = code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS);
const RETURN: u16 = code(libc::BPF_RET | libc::BPF_K);
const IF_EQUAL: u16 = code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K);
const IF_AT_LEAST: u16 = code(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K);
const IF_ANY_BIT: u16 = code(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K);
const JUMP: u16 = code(libc::BPF_JMP | libc::BPF_JA);

/// The opcodes have sixteen bits; libc gives them thirty-two.
const fn code(code: u32) -> u16 {
    let [low, high, _, _] = code.to_le_bytes();
    u16::from_le_bytes([low, high])
}

fn step(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

/// Executes the next `skip` steps only if the condition holds.
fn unless(code: u16, k: u32, skip: u8) -> sock_filter {
    sock_filter { code, jt: 0, jf: skip, k }
}

fn errno(error: i32) -> sock_filter {
    step(RETURN, libc::SECCOMP_RET_ERRNO | (error.unsigned_abs() & libc::SECCOMP_RET_DATA))
}

impl Filter {
    fn program(&self) -> io::Result<Vec<sock_filter>> {
        let mut native = vec![
            sock_filter { code: IF_EQUAL, jt: 1, jf: 0, k: AUDIT_ARCH_X86_64 },
            errno(libc::ENOSYS),
            step(LOAD, NUMBER),
            unless(IF_AT_LEAST, X32, 1),
            errno(libc::ENOSYS),
        ];
        native.extend(self.native.steps()?);
        let i386 = match &self.i386 {
            Some(table) => [vec![step(LOAD, NUMBER)], table.steps()?].concat(),
            None => vec![errno(libc::ENOSYS)],
        };
        let over_native = u32::try_from(native.len()).map_err(io::Error::other)?;
        let mut program =
            vec![step(LOAD, ARCHITECTURE), unless(IF_EQUAL, AUDIT_ARCH_I386, 1), step(JUMP, over_native)];
        program.extend(native);
        program.extend(i386);
        Ok(program)
    }

    /// Binds the calling thread, and everything it will start, to the filter for ever. Needs no_new_privs, or
    /// CAP_SYS_ADMIN where that is not set (`sudo` must work in a session).
    pub fn install(&self) -> io::Result<()> {
        install(self.program()?, 0).map(drop)
    }
}

/// seccomp(2), SECCOMP_SET_MODE_FILTER, with these flags.
fn install(mut program: Vec<sock_filter>, flags: libc::c_ulong) -> io::Result<i64> {
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let argument = sock_fprog { len: length, filter: program.as_mut_ptr() };
    // SAFETY: the kernel copies `length` instructions from a vector that lives across the call.
    check(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const argument)
    })
}

impl Table {
    /// Starts with the call's number loaded, and ends with an answer.
    fn steps(&self) -> io::Result<Vec<sock_filter>> {
        let allow = step(RETURN, libc::SECCOMP_RET_ALLOW);
        let mut steps = Vec::new();
        for &(call, error) in &self.refuse {
            steps.extend([unless(IF_EQUAL, number(call)?, 1), errno(error)]);
        }
        for &(call, arguments, error) in &self.refuse_unless_zero {
            // Four steps an argument: both halves of it decide.
            let length = u8::try_from(arguments.len() * 4 + 1).map_err(io::Error::other)?;
            steps.push(unless(IF_EQUAL, number(call)?, length + 1));
            for (before, argument) in (0u8..).zip(arguments) {
                let to_end = length - before * 4 - 3;
                let low = FIRST_ARGUMENT + argument * 8;
                steps.extend([
                    step(LOAD, low),
                    sock_filter { code: IF_EQUAL, jt: 0, jf: 2, k: 0 },
                    step(LOAD, low + 4),
                    sock_filter { code: IF_EQUAL, jt: to_end - 1, jf: 0, k: 0 },
                ]);
            }
            steps.extend([errno(error), step(LOAD, NUMBER)]);
        }
        for flags in &self.refuse_flags {
            steps.extend([
                unless(IF_EQUAL, number(flags.call)?, 5),
                step(LOAD, FIRST_ARGUMENT + flags.argument * 8),
                sock_filter { code: IF_ANY_BIT, jt: 0, jf: 2, k: flags.flag.cast_unsigned() },
                sock_filter { code: IF_ANY_BIT, jt: 1, jf: 0, k: flags.unless.cast_unsigned() },
                errno(flags.errno),
                step(LOAD, NUMBER),
            ]);
        }
        let families = u8::try_from(self.families.len()).map_err(io::Error::other)?;
        for &call in &self.socket_calls {
            // Load, one comparison a family, the refusal, the permission.
            steps.extend([unless(IF_EQUAL, number(call)?, families + 3), step(LOAD, FIRST_ARGUMENT)]);
            for (index, &family) in (0u8..).zip(&self.families) {
                let to_allow = families - index;
                steps.push(sock_filter { code: IF_EQUAL, jt: to_allow, jf: 0, k: family.unsigned_abs() });
            }
            steps.extend([errno(libc::EAFNOSUPPORT), allow]);
        }
        steps.push(allow);
        Ok(steps)
    }
}

fn number(call: libc::c_long) -> io::Result<u32> {
    u32::try_from(call).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Interprets the filter as the kernel would.
    #[allow(clippy::cast_possible_truncation, reason = "the halves of a register are meant")]
    fn run(filter: &Filter, architecture: u32, number: u32, arguments: [u64; 3]) -> u32 {
        let program = filter.program().unwrap();
        let (mut at, mut loaded) = (0, 0);
        loop {
            let step = &program[at];
            at += 1;
            let jump = |held: bool| usize::from(if held { step.jt } else { step.jf });
            match step.code {
                LOAD if step.k == NUMBER => loaded = number,
                LOAD if step.k == ARCHITECTURE => loaded = architecture,
                LOAD => {
                    let at = step.k - FIRST_ARGUMENT;
                    let argument = arguments[(at / 8) as usize];
                    loaded = (argument >> (at % 8 * 8)) as u32;
                }
                IF_EQUAL => at += jump(loaded == step.k),
                IF_AT_LEAST => at += jump(loaded >= step.k),
                IF_ANY_BIT => at += jump(loaded & step.k != 0),
                JUMP => at += step.k as usize,
                RETURN => return step.k,
                other => panic!("unknown instruction {other}"),
            }
        }
    }

    #[test]
    #[allow(clippy::cast_possible_truncation, reason = "system call numbers are small")]
    fn each_rule_answers_its_own_calls_and_no_others() {
        let clone = Flags {
            call: libc::SYS_clone,
            argument: 0,
            flag: libc::CLONE_FS,
            unless: libc::CLONE_THREAD,
            errno: libc::EPERM,
        };
        let native = Table {
            refuse: vec![(libc::SYS_ptrace, libc::EPERM), (libc::SYS_io_uring_setup, libc::ENOSYS)],
            refuse_unless_zero: vec![(libc::SYS_prlimit64, &[0, 2], libc::EPERM)],
            refuse_flags: vec![clone],
            socket_calls: vec![libc::SYS_socket, libc::SYS_socketpair],
            families: vec![libc::AF_UNIX, libc::AF_INET, libc::AF_INET6],
        };
        let filter = Filter { native, i386: None };
        let refused = |error: i32| libc::SECCOMP_RET_ERRNO | error.unsigned_abs();
        let native = |number: libc::c_long, argument: i32| {
            run(&filter, AUDIT_ARCH_X86_64, number as u32, [u64::from(argument.unsigned_abs()), 0, 0])
        };
        assert_eq!(native(libc::SYS_ptrace, 0), refused(libc::EPERM));
        assert_eq!(native(libc::SYS_io_uring_setup, 0), refused(libc::ENOSYS));
        for number in (0..500).filter(|n| ![libc::SYS_ptrace, libc::SYS_io_uring_setup].contains(n)) {
            assert_eq!(native(number, libc::AF_INET), libc::SECCOMP_RET_ALLOW, "call {number}");
        }
        for call in [libc::SYS_socket, libc::SYS_socketpair] {
            for family in 0..50 {
                let expected = match filter.native.families.contains(&family) {
                    true => libc::SECCOMP_RET_ALLOW,
                    false => refused(libc::EAFNOSUPPORT),
                };
                assert_eq!(native(call, family), expected, "family {family}");
            }
        }
        for (pid, limit) in [(0, 0), (0, 1 << 40), (7, 0), (7, 1), (7, 1 << 40), (1 << 40, 1 << 33)] {
            let expected = match pid != 0 && limit != 0 {
                true => refused(libc::EPERM),
                false => libc::SECCOMP_RET_ALLOW,
            };
            let number = libc::SYS_prlimit64 as u32;
            assert_eq!(run(&filter, AUDIT_ARCH_X86_64, number, [pid, 0, limit]), expected, "{pid} {limit}");
        }
        assert_eq!(run(&filter, AUDIT_ARCH_X86_64, X32 | 59, [0; 3]), refused(libc::ENOSYS));
        assert_eq!(run(&filter, AUDIT_ARCH_I386, 11, [0; 3]), refused(libc::ENOSYS));
        assert_eq!(run(&filter, 0x1234, 0, [0; 3]), refused(libc::ENOSYS));
        for (flags, expected) in [
            (libc::SIGCHLD, libc::SECCOMP_RET_ALLOW),
            (libc::CLONE_VM | libc::CLONE_VFORK, libc::SECCOMP_RET_ALLOW),
            (libc::CLONE_FS | libc::CLONE_THREAD, libc::SECCOMP_RET_ALLOW),
            (libc::CLONE_FS | libc::SIGCHLD, refused(libc::EPERM)),
        ] {
            assert_eq!(native(libc::SYS_clone, flags), expected, "{flags:#x}");
        }
        let i386 = Table { refuse: vec![(26, libc::EPERM)], ..Table::default() };
        let both = Filter { i386: Some(i386), ..filter };
        assert_eq!(run(&both, AUDIT_ARCH_I386, 11, [0; 3]), libc::SECCOMP_RET_ALLOW);
        assert_eq!(run(&both, AUDIT_ARCH_I386, 26, [0; 3]), refused(libc::EPERM));
        assert_eq!(run(&both, AUDIT_ARCH_X86_64, 26, [0; 3]), libc::SECCOMP_RET_ALLOW);
        assert_eq!(run(&both, AUDIT_ARCH_X86_64, X32 | 59, [0; 3]), refused(libc::ENOSYS));
        assert_eq!(run(&both, 0x1234, 0, [0; 3]), refused(libc::ENOSYS));
    }
}
