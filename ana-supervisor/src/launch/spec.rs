//! What is to be started, and the words that the supervisor and the session leader exchange.

use std::{ffi::OsString, os::unix::ffi::OsStringExt, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{operation::Bytes, sys::terminal::Size};

/// What `ana-run` asks for: the command, and what of its own surroundings the agent gets.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The command and its arguments; at least one.
    pub argv: Vec<Bytes>,
    /// `NAME=value` strings.
    pub environment: Vec<Bytes>,
    pub cwd: Bytes,
    pub umask: u32,
    /// stdin, stdout, stderr.
    pub streams: [Stream; 3],
    /// The size of the person's terminal.
    pub size: Option<Size>,
}

/// What a standard stream of the agent becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// The session's own terminal.
    Terminal,
    /// A pipe of its own.
    Pipe,
}

impl Spec {
    /// Every stream is a terminal: `ana-run` reads keys and asks there.
    pub fn interactive(&self) -> bool {
        self.streams.iter().all(|s| *s == Stream::Terminal)
    }

    /// The value of an environment variable of the agent.
    pub fn variable(&self, name: &str) -> Option<OsString> {
        let prefix = [name.as_bytes(), b"="].concat();
        let value = self.environment.iter().find_map(|e| e.0.strip_prefix(prefix.as_slice()))?;
        Some(OsString::from_vec(value.to_vec()))
    }

    /// Replaces a variable, or adds it.
    pub fn set_variable(&mut self, name: &str, value: &[u8]) {
        let prefix = [name.as_bytes(), b"="].concat();
        self.environment.retain(|e| !e.0.starts_with(&prefix));
        self.environment.push(Bytes([prefix.as_slice(), value].concat()));
    }
}

/// Who the agent runs as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

/// What the session leader is told.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToLeader {
    /// First; with it come the folder `work` of the session's cgroup and, where there is one, cgroup.procs of its v1 pids
    /// group.
    Prepare(Box<Preparation>),
    /// Start the agent. The session-start record is on disk.
    Go,
    /// Send a signal to the agent's process group.
    Signal(i32),
    /// Give the agent the terminal back and let it go on.
    Continue,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Preparation {
    pub spec: Spec,
    pub identity: Identity,
    pub switches: Switches,
    /// Landlock's ABI version on this kernel; 0: none.
    pub landlock_abi: i32,
    /// The session's cgroup, which the leader kills when everybody else has died.
    pub cgroup: PathBuf,
}

/// The policy's `[session]` switches that concern the launch. Each one that is true opens something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switches {
    pub namespaces: bool,
    pub debuggers: bool,
    pub io_uring: bool,
    pub i386: bool,
}

/// What the session leader reports.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromLeader {
    /// Everything is set up; the descriptors named true come with it, in this order.
    Ready { master: bool, stdin: bool, stdout: bool, stderr: bool },
    /// The agent's process exists; its exec may still fail.
    Started { pid: i32 },
    /// The agent could not be started.
    Failed(Failure),
    /// The agent's process was stopped (Ctrl-Z).
    Stopped,
    /// The agent ended, with this wait status.
    Exited { status: i32 },
}

/// Why the agent did not start.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// What was being done, in words.
    pub doing: String,
    /// The error's text.
    pub error: String,
    /// What `ana-run` exits with: 127 not found, 126 not executable, 125 anything of ours.
    pub code: u8,
}
