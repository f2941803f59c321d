//! The words of the socket. Closed lists: what is not in them is refused.

use serde::{Deserialize, Serialize};

use crate::{
    approval::{Assertion, authenticator::Options},
    launch::spec::{Failure, Spec},
    operation::Operation,
};

/// What a client says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Start the agent: the owner's first word, and only its.
    Launch(Box<Spec>),
    /// Send a signal to the agent (the owner).
    Signal(i32),
    /// The owner is in the foreground again.
    Continue,
    /// What waits for a person? Answered by any number of `Pending`, then `End`.
    Pending,
    /// Say `Changed` whenever what waits has changed.
    Watch,
    /// Everything that is needed to ask about one operation. Answered by `Question`.
    Show { id: String },
    /// A passkey's signature. Answered by `Done` or `Refused`.
    Sign { id: String, assertion: Assertion },
    /// No. Answered by `Done` or `Refused`.
    Deny { id: String, reason: String },
    /// Which session is this? Answered by `Session`.
    Describe,
    /// End the session now. Answered by `Done`.
    Kill,
}

/// What the supervisor says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// The agent's streams; those named true come as descriptors, in this order.
    Streams { session: String, master: bool, stdin: bool, stdout: bool, stderr: bool },
    /// Things that the person should know before the agent starts.
    Notice(String),
    /// The agent could not be started.
    Failed(Failure),
    /// The agent was stopped (Ctrl-Z).
    Stopped,
    /// The agent has ended and its tree is dead; a wait status.
    Exited { status: i32 },
    /// The session was ended, and why.
    Ended { why: String },
    /// One question, and how many more operations like it wait.
    Pending { operation: Box<Operation>, more: usize },
    /// No more of them.
    End,
    /// What waits has changed.
    Changed,
    /// An operation to be asked about. With it may come the remembered software passkey, open for reading.
    Question { options: Box<Options>, key: bool },
    /// So many operations like the one in question wait, too.
    Alike { id: String, more: usize },
    /// A question is over: answered elsewhere, expired, or its process has ended.
    Withdrawn { id: String },
    /// A description of the session.
    Session(SessionInfo),
    /// Accepted.
    Done,
    /// Not accepted, and why.
    Refused { why: String },
}

/// A session as `ana sessions` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct SessionInfo {
    pub session: String,
    pub user: String,
    pub uid: u32,
    /// The agent's command, shell-quoted and escaped.
    pub command: String,
    /// RFC 3339.
    pub started_at: String,
    /// The agent's process.
    pub pid: Option<i32>,
    /// How many operations wait for a person.
    pub pending: usize,
    /// The active seal, in words.
    pub seal: String,
}
