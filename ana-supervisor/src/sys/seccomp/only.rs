//! A filter that lets a process of ours do what is listed, and nothing else.

use std::io;

use libc::sock_filter;

use super::{
    ARCHITECTURE, AUDIT_ARCH_X86_64, FIRST_ARGUMENT, IF_ANY_BIT, IF_AT_LEAST, IF_EQUAL, LOAD, NUMBER, RETURN,
    X32, errno, install, number, step, unless,
};

/// The calls that a process may make; every other one fails with EPERM, and those of other architectures with ENOSYS.
#[derive(Clone, Debug)]
pub struct Only(pub Vec<Allowed>);

/// A system call that is allowed, if the condition holds.
#[derive(Clone, Copy, Debug)]
pub struct Allowed {
    pub call: libc::c_long,
    pub when: When,
}

/// What an argument must be. Only its lower half is looked at: the kernel does the same where this is used.
#[derive(Clone, Copy, Debug)]
pub enum When {
    Always,
    /// None of these flags.
    Without {
        argument: u32,
        flags: u32,
    },
    /// One of these values.
    OneOf {
        argument: u32,
        values: &'static [i32],
    },
}

impl Only {
    fn program(&self) -> io::Result<Vec<sock_filter>> {
        let mut program = vec![
            step(LOAD, ARCHITECTURE),
            sock_filter { code: IF_EQUAL, jt: 1, jf: 0, k: AUDIT_ARCH_X86_64 },
            errno(libc::ENOSYS),
            step(LOAD, NUMBER),
            unless(IF_AT_LEAST, X32, 1),
            errno(libc::ENOSYS),
        ];
        for allowed in &self.0 {
            program.extend(allowed.steps()?);
        }
        program.push(errno(libc::EPERM));
        Ok(program)
    }

    /// Binds every thread of the process for ever. Needs no_new_privs.
    ///
    /// # Errors
    /// What seccomp(2) says; ESRCH: a thread has another filter already.
    pub fn install(&self) -> io::Result<()> {
        // A positive number is the thread that could not be bound.
        match install(self.program()?, libc::SECCOMP_FILTER_FLAG_TSYNC)? {
            0 => Ok(()),
            _thread => Err(io::Error::from_raw_os_error(libc::ESRCH)),
        }
    }
}

impl Allowed {
    /// Starts and ends with the call's number loaded.
    fn steps(&self) -> io::Result<Vec<sock_filter>> {
        let allow = step(RETURN, libc::SECCOMP_RET_ALLOW);
        let call = number(self.call)?;
        let load = |argument: u32| step(LOAD, FIRST_ARGUMENT + argument * 8);
        Ok(match self.when {
            When::Always => vec![unless(IF_EQUAL, call, 1), allow],
            When::Without { argument, flags } => vec![
                unless(IF_EQUAL, call, 4),
                load(argument),
                sock_filter { code: IF_ANY_BIT, jt: 1, jf: 0, k: flags },
                allow,
                errno(libc::EPERM),
            ],
            When::OneOf { argument, values } => {
                let count = u8::try_from(values.len()).map_err(io::Error::other)?;
                let mut steps = vec![unless(IF_EQUAL, call, count + 3), load(argument)];
                for (before, value) in (0u8..).zip(values) {
                    let to_allow = count - before;
                    steps.push(sock_filter { code: IF_EQUAL, jt: to_allow, jf: 0, k: value.cast_unsigned() });
                }
                steps.extend([errno(libc::EPERM), allow]);
                steps
            }
        })
    }
}
