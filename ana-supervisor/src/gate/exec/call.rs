//! What a process that is blocked in execve(2) is about to execute, read from its memory. It may change until the kernel
//! has copied it: the guard compares. Nothing here is waited for but that the process sleeps, a moment, and the
//! memory itself, which the process may have put on a file system of its own.

use std::{
    collections::BTreeMap,
    io,
    io::IoSliceMut,
    time::{Duration, Instant},
};

use ana_common::{BLOCK_BYTES, Block};
use nix::{
    sys::uio::{RemoteIoVec, process_vm_readv},
    unistd::Pid,
};

use crate::sys;

const PAGE: usize = 4096;
/// Pages that are looked at for one call: its arguments may lie scattered.
const PAGES_MAX: usize = 64;
/// Arguments and variables together.
const STRINGS_MAX: usize = 2048;
/// What the kernel says of a process that is not blocked.
const RUNNING: &str = "running\n";
/// How long one that has asked may take to fall asleep; well within what a look may take.
const FALLS_ASLEEP: Duration = Duration::from_millis(50);
const LOOK_AGAIN: Duration = Duration::from_micros(50);

/// The arguments and the environment of an exec that has not happened yet.
#[derive(Debug)]
pub struct Call {
    /// argv\[0\] first; never empty.
    pub argv: Vec<Vec<u8>>,
    /// The environment, as it will lie in the new image's memory.
    pub environment: Vec<u8>,
}

impl Call {
    /// Reads the call of a process of one thread. `None`: not a call of this machine's own 64-bit execve or execveat, or
    /// more than is compared.
    ///
    /// # Errors
    /// The process has gone, or its memory cannot be read.
    pub fn read(pid: Pid) -> io::Result<Option<Self>> {
        let Some((argv, envp)) = pointers(&asleep(pid)?) else { return Ok(None) };
        let mut memory = Memory { pid, pages: BTreeMap::new() };
        memory.fetch([argv, envp])?;
        let (Some(argv), Some(envp)) = (memory.vector(argv)?, memory.vector(envp)?) else { return Ok(None) };
        memory.fetch(argv.iter().chain(&envp).copied())?;
        let mut room = BLOCK_BYTES;
        let Some(argv) = memory.strings(&argv, &mut room)? else { return Ok(None) };
        let Some(variables) = memory.strings(&envp, &mut room)? else { return Ok(None) };
        // Without arguments the kernel makes up an empty one.
        Ok((!argv.is_empty()).then(|| Self { argv, environment: joined(&variables) }))
    }

    /// What the guard is told.
    pub fn block(&self) -> Option<Block> {
        let mut bytes = joined(&self.argv);
        let arguments = bytes.len();
        bytes.extend_from_slice(&self.environment);
        Block::new(&bytes, arguments)
    }
}

/// Each string with its NUL.
fn joined(strings: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(strings.iter().map(|string| string.len() + 1).sum());
    for string in strings {
        bytes.extend_from_slice(string);
        bytes.push(0);
    }
    bytes
}

/// The call that a process is blocked in, as proc_pid_syscall(5) has it. Its event comes before it sleeps, and until it does
/// the file says `running`: for a microsecond, or as long as its processor is not given to the machine (a virtual one).
fn asleep(pid: Pid) -> io::Result<String> {
    let path = format!("/proc/{pid}/syscall");
    let deadline = Instant::now() + FALLS_ASLEEP;
    loop {
        let call = sys::process::small_text(&path)?;
        if call != RUNNING || Instant::now() >= deadline {
            return Ok(call);
        }
        // Nothing tells of it.
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// argv and envp of `NUMBER ARG0 … ARG5 SP PC` (proc_pid_syscall(5)).
fn pointers(call: &str) -> Option<(u64, u64)> {
    let mut fields = call.split_ascii_whitespace();
    let number: i64 = fields.next()?.parse().ok()?;
    let mut argument = |skip: usize| {
        let text = fields.nth(skip)?;
        u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
    };
    match number {
        libc::SYS_execve => Some((argument(1)?, argument(0)?)),
        libc::SYS_execveat => Some((argument(2)?, argument(0)?)),
        _ => None,
    }
}

/// Pages of another process, read once.
struct Memory {
    pid: Pid,
    pages: BTreeMap<u64, [u8; PAGE]>,
}

impl Memory {
    /// Reads the pages of these addresses that are not known yet, with one system call.
    fn fetch(&mut self, addresses: impl IntoIterator<Item = u64>) -> io::Result<()> {
        let mut wanted: Vec<u64> =
            addresses.into_iter().map(|address| address & !(PAGE as u64 - 1)).collect();
        wanted.sort_unstable();
        wanted.dedup();
        wanted.retain(|page| !self.pages.contains_key(page));
        if wanted.is_empty() {
            return Ok(());
        }
        if self.pages.len() + wanted.len() > PAGES_MAX {
            return Err(io::Error::other("the arguments are scattered over too many pages"));
        }
        let mut pages = vec![[0; PAGE]; wanted.len()];
        let mut local: Vec<IoSliceMut> = pages.iter_mut().map(|page| IoSliceMut::new(page)).collect();
        let base = |page: &u64| usize::try_from(*page).unwrap_or(usize::MAX);
        let remote: Vec<RemoteIoVec> =
            wanted.iter().map(|page| RemoteIoVec { base: base(page), len: PAGE }).collect();
        if process_vm_readv(self.pid, &mut local, &remote)? != PAGE * wanted.len() {
            return Err(io::Error::other("a page of the arguments cannot be read"));
        }
        self.pages.extend(wanted.into_iter().zip(pages));
        Ok(())
    }

    /// What is left of the address's page, from it on.
    fn rest(&mut self, address: u64) -> io::Result<&[u8]> {
        self.fetch([address])?;
        let at = usize::try_from(address % PAGE as u64).map_err(io::Error::other)?;
        let page = self.pages.get(&(address - address % PAGE as u64));
        Ok(page.and_then(|page| page.get(at..)).unwrap_or_default())
    }

    /// The addresses of a vector that a null ends. A null vector is an empty one (execve(2)). `None`: too many, or they
    /// do not lie as the C language lays them.
    fn vector(&mut self, start: u64) -> io::Result<Option<Vec<u64>>> {
        let mut all = Vec::new();
        if start == 0 {
            return Ok(Some(all));
        }
        if !start.is_multiple_of(8) {
            return Ok(None);
        }
        let mut at = start;
        loop {
            for word in self.rest(at)?.as_chunks::<8>().0 {
                match u64::from_ne_bytes(*word) {
                    0 => return Ok(Some(all)),
                    address => all.push(address),
                }
                if all.len() > STRINGS_MAX {
                    return Ok(None);
                }
            }
            at = (at & !(PAGE as u64 - 1)).saturating_add(PAGE as u64);
        }
    }

    /// The strings at these addresses; takes their length from `room`. `None`: no room.
    fn strings(&mut self, addresses: &[u64], room: &mut usize) -> io::Result<Option<Vec<Vec<u8>>>> {
        let mut all = Vec::with_capacity(addresses.len());
        for &start in addresses {
            let (mut string, mut at) = (Vec::new(), start);
            loop {
                let rest = self.rest(at)?;
                let end = rest.iter().position(|&byte| byte == 0);
                string.extend_from_slice(&rest[..end.unwrap_or(rest.len())]);
                if string.len() >= *room {
                    return Ok(None);
                }
                if end.is_some() {
                    break;
                }
                at = (at & !(PAGE as u64 - 1)).saturating_add(PAGE as u64);
            }
            *room -= string.len() + 1;
            all.push(string);
        }
        Ok(Some(all))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A process that executes nothing any more: one that was just started may still be in its execve.
    pub(in super::super) fn idle() -> std::process::Child {
        use std::{
            io::{Read, Write},
            process::{Command, Stdio},
        };
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        child
    }

    #[test]
    fn only_our_own_execs_have_arguments() {
        let line = |number| format!("{number} 0x1 0x2 0x3 0x4 0x5 0x6 0x7ffe 0x7f00\n");
        assert_eq!(pointers(&line(libc::SYS_execve)), Some((2, 3)));
        assert_eq!(pointers(&line(libc::SYS_execveat)), Some((3, 4)));
        // i386's execve, read as ours.
        assert_eq!(pointers(&line(11)), None);
        assert_eq!(pointers("running\n"), None);
        assert_eq!(pointers("-1 0x7ffe 0x7f00\n"), None);
        assert_eq!(pointers("59 0x1\n"), None);
        assert_eq!(pointers(""), None);
    }

    fn ours() -> Memory {
        Memory { pid: Pid::this(), pages: BTreeMap::new() }
    }

    #[test]
    fn strings_are_read_across_pages_and_within_the_limit() {
        let long = [vec![b'x'; PAGE + 100], vec![0]].concat();
        let texts: [&[u8]; 3] = [b"git\0", &long, b"\0"];
        let addresses: Vec<u64> = texts.iter().map(|text| text.as_ptr() as u64).collect();
        let (mut memory, mut room) = (ours(), BLOCK_BYTES);
        let strings = memory.strings(&addresses, &mut room).unwrap().unwrap();
        assert_eq!(strings, [b"git".to_vec(), vec![b'x'; PAGE + 100], Vec::new()]);
        assert_eq!(room, BLOCK_BYTES - (PAGE + 100) - 6);
        assert!(ours().strings(&addresses, &mut (PAGE + 100)).unwrap().is_none());
        assert!(ours().strings(&[8], &mut 100).is_err(), "nothing is there");
    }

    #[test]
    fn vectors_end_with_a_null() {
        let long: Vec<u64> = (1..2000).chain([0]).collect();
        let read = |vector: &[u64]| ours().vector(vector.as_ptr() as u64).unwrap();
        assert_eq!(read(&long).unwrap(), long[..1999]);
        assert_eq!(read(&[0]), Some(vec![]));
        assert!(read(&vec![7; 5000]).is_none());
        assert_eq!(ours().vector(0).unwrap(), Some(vec![]));
        assert_eq!(ours().vector(long.as_ptr() as u64 + 4).unwrap(), None);
    }

    #[test]
    fn a_blocked_exec_of_another_process_is_read() {
        // A process that stops right before its exec cannot be had without a gate; another call has no argv.
        let mut child = idle();
        let pid = Pid::from_raw(child.id().cast_signed());
        assert!(Call::read(pid).unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(Call::read(pid).is_err());
    }

    #[test]
    fn the_block_is_arguments_then_environment() {
        let call = Call { argv: vec![b"a".to_vec(), Vec::new()], environment: b"X=1\0".to_vec() };
        let block = call.block().unwrap();
        assert_eq!((block.arguments, block.length), (3, 7));
    }
}
