//! The administrator's policy: which operations stop, and what is asked about them.
//!
//! Takes the text of the policy files and the session user's home; gives a [`Policy`] whose self-tests have
//! passed, or every error with its place. Judging takes what the kernel has fixed (which listed files the program
//! is, and its arguments) and gives a [`Verdict`]. Nothing here reads a file, a clock or the environment.

mod agents;
mod cidr;
mod connect;
mod error;
mod host;
mod judge;
mod judge_connect;
mod keys;
mod networks;
mod parse;
mod pattern;
mod resolvers;
mod rule;
mod selftest;
mod starter;
#[cfg(test)]
mod tests;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

pub use agents::{AGENTS_EXAMPLE, agents_names, agents_starter};
pub use cidr::Cidr;
pub use connect::{
    By, ConnectRule, ConnectVerdict, Destination, ENCRYPTED_DNS_RULE, LOCAL_RULE, Loopback, NETWORK_RULE,
    Network, QUIC_RULE, Scope, Showing, Target, TargetError,
};
pub use error::{Place, PolicyErrors, Problem};
pub use host::{HostPattern, host_name};
pub use networks::{NETWORK_APPROVE_EXAMPLE, NETWORK_STRICT_EXAMPLE, network_starter};
pub use resolvers::{resolver_addresses, resolver_names};
pub use rule::ExecRule;
pub use starter::{GIT_EXAMPLE, STARTER_NAMES, starter};

use crate::operation::Verify;

/// The name of the built-in rule for execs that gain privilege.
pub const PRIVILEGE_RULE: &str = "builtin:privilege";

/// One policy file: what it is called in messages, and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub name: String,
    pub text: String,
}

/// A policy that holds: parsed from all its sources, its self-tests passed.
#[derive(Clone, Debug)]
pub struct Policy {
    sha256: String,
    allow_software_passkey: bool,
    session: Session,
    defaults: Defaults,
    exec: Vec<ExecRule>,
    network: Option<Network>,
    connect: Vec<ConnectRule>,
    tests: usize,
}

/// `[session]`: what the session's processes get beyond the seal and the base filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// User namespaces and mounts inside the session (bubblewrap, rootless containers).
    pub namespaces: bool,
    /// ptrace and process_vm_writev inside the session.
    pub debuggers: bool,
    pub io_uring: bool,
    /// 32-bit system calls.
    pub i386: bool,
    /// Device nodes beyond the allow-list, absolute.
    pub devices: Vec<PathBuf>,
    /// How many operations may wait at once; further ones are denied.
    pub max_holds: usize,
}

impl Default for Session {
    fn default() -> Self {
        Self {
            namespaces: false,
            debuggers: false,
            io_uring: false,
            i386: false,
            devices: Vec::new(),
            max_holds: 64,
        }
    }
}

/// `[defaults]`: what a rule that does not say otherwise gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// After this without an answer the operation is denied.
    pub timeout: Duration,
    pub verify: Verify,
    /// `require = "seal"`: without a seal the session does not start.
    pub require_seal: bool,
    /// What happens to an exec that gains privilege, when no rule lists the program.
    pub privilege: Action,
    /// The names of programs that may open a listed script in order to run it.
    pub interpreters: Vec<String>,
}

impl Default for Defaults {
    fn default() -> Self {
        let interpreters = ["sh", "bash", "dash", "zsh", "python3", "perl", "ruby", "node", "bun", "deno"];
        Self {
            timeout: Duration::from_secs(120),
            verify: Verify::Presence,
            require_seal: false,
            privilege: Action::Approve,
            interpreters: interpreters.map(str::to_owned).to_vec(),
        }
    }
}

/// What happens to an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    Allow,
    Deny,
    Approve,
}

impl Action {
    /// The word of the policy file.
    pub fn word(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Approve => "approve",
        }
    }
}

/// What the policy says about one operation.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub action: Action,
    /// The name of the rule that decided.
    pub rule: String,
    /// Which line decided, for people.
    pub because: String,
    pub timeout: Duration,
    pub verify: Verify,
    /// False when no other arguments could have led to another action of another rule: the caller need not read
    /// them.
    pub needs_argv: bool,
    /// From the judgement to the program's exit nothing else of the session runs.
    pub exclusive: bool,
}

impl Policy {
    /// SHA-256 over the text of every source in order, each behind its length (64 bits, big-endian), base64url.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    pub fn session(&self) -> &Session {
        &self.session
    }

    pub fn defaults(&self) -> &Defaults {
        &self.defaults
    }

    /// Whether a software passkey may approve anything.
    pub fn allow_software_passkey(&self) -> bool {
        self.allow_software_passkey
    }

    /// The names of programs that may open a listed script in order to run it.
    pub fn interpreters(&self) -> &[String] {
        &self.defaults.interpreters
    }

    /// The exec rules, in the order in which they decide.
    pub fn exec_rules(&self) -> &[ExecRule] {
        &self.exec
    }

    /// The settings of the connect gate. `None` when there is neither `[network]` nor `[[connect]]`: no gate.
    pub fn network(&self) -> Option<&Network> {
        self.network.as_ref()
    }

    /// The connect rules, in the order in which they decide.
    pub fn connect_rules(&self) -> &[ConnectRule] {
        &self.connect
    }

    /// Whether every connection to port 853 (DNS over TLS) is to be refused without looking at rules: unless the policy
    /// allows encrypted DNS, or some rule speaks of that port.
    pub fn refuses_dot(&self) -> bool {
        let listed = self.connect.iter().any(|rule| rule.ports().contains(&connect::DOT_PORT));
        self.network.as_ref().is_some_and(|network| !network.encrypted_dns) && !listed
    }

    /// Every file that an exec rule lists, `~` expanded, each once. They need not exist.
    pub fn exec_files(&self) -> impl Iterator<Item = &Path> {
        let mut seen = std::collections::BTreeSet::new();
        self.exec.iter().flat_map(ExecRule::files).filter(move |file| seen.insert(*file))
    }

    /// How many lines of `[exec.test]` and `[connect.test]` have passed.
    pub fn test_count(&self) -> usize {
        self.tests
    }
}
