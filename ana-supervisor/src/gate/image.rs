//! The memory of a process: it has another one after every exec, whatever program it runs then.

use std::{fs::File, io, os::unix::fs::FileExt};

use nix::unistd::Pid;

/// The memory that a process had when this was opened. /proc/PID/maps shows this memory for as long as it is open, and is
/// empty once nobody uses it any more; unlike the names, arguments and addresses of a process, that cannot be imitated.
#[derive(Debug)]
pub struct Memory(File);

impl Memory {
    /// # Errors
    /// The process has gone.
    pub fn of(pid: Pid) -> io::Result<Self> {
        Ok(Self(File::open(format!("/proc/{pid}/maps"))?))
    }

    /// Whether the process has executed nothing since.
    pub fn lives(&self) -> bool {
        self.0.read_at(&mut [0], 0).is_ok_and(|length| length > 0)
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, process::Stdio};

    use super::*;

    #[test]
    fn an_exec_ends_it_even_of_the_same_program() {
        let script = "read -r line; exec sh -c 'read -r line'";
        let mut shell = std::process::Command::new("sh");
        let mut child = shell.args(["-c", script]).stdin(Stdio::piped()).spawn().unwrap();
        let memory = Memory::of(Pid::from_raw(child.id().cast_signed())).unwrap();
        assert!(memory.lives());
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"go\n").unwrap();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while memory.lives() && std::time::Instant::now() < end {
            std::thread::yield_now();
        }
        assert!(!memory.lives() && child.try_wait().unwrap().is_none());
        drop(stdin);
        child.wait().unwrap();
    }
}
