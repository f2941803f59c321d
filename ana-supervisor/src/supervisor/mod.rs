//! One session from its start to its end: the embedded supervisor that `ana-run` starts.
//!
//! ```text
//! ana-run ── sudo ana-supervisor start ── prints the socket's path, ends
//!                        └── ana-supervisor serve   the supervisor: this module
//!                                ├── ana-warden      outlives it
//!                                └── session-leader ── the agent
//! ```

mod answering;
mod connections;
mod door;
mod ending;
mod keepers;
mod leftovers;
mod notices;
mod owner;
mod setup;
pub mod start;
mod watching;

use std::{io, path::PathBuf, time::Duration};

use thiserror::Error;

pub use leftovers::remains;

use crate::{
    approval::passkeys::PasskeysError,
    evidence::EvidenceError,
    gate::exec::GateError,
    kernel::{Kernel, KernelError},
    launch::{cgroup::CgroupError, user::UserError},
    state::StateError,
};

/// How long `ana-run` may take to connect.
const OWNER_LIMIT: Duration = Duration::from_secs(30);
/// How long the kill of a whole session may take.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// What `ana-supervisor serve` is told on its command line.
#[derive(Clone, Debug)]
pub struct Options {
    /// The `ana-run` that may use this supervisor: its pid and start time.
    pub owner: (i32, String),
    /// `--user`.
    pub user: Option<String>,
    /// Who called sudo.
    pub sudo_uid: Option<u32>,
    /// `--policy`.
    pub policy: Option<PathBuf>,
    /// `--state`.
    pub state: Option<PathBuf>,
}

/// Why a session could not be started, or had to end.
#[derive(Debug, Error)]
pub enum SupervisorError {
    #[error("ana-supervisor needs root; run ana-run as a user who may sudo")]
    NotRoot,
    #[error(transparent)]
    User(#[from] UserError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("the policy has errors")]
    Policy(String),
    #[error("the passkeys cannot be used")]
    Passkeys(#[from] PasskeysError),
    #[error("the evidence cannot be written")]
    Evidence(#[from] EvidenceError),
    #[error("the guard cannot be loaded")]
    Kernel(#[from] KernelError),
    #[error("the session's cgroups cannot be made")]
    Cgroup(#[from] CgroupError),
    #[error("the protected programs cannot be protected")]
    Gate(#[from] GateError),
    #[error("connections cannot be gated")]
    Connect(#[from] crate::gate::connect::ConnectError),
    #[error("the policy says require = \"seal\", and this kernel has none ({found}); see `ana doctor`")]
    NoSeal { found: String },
    #[error(
        "the policy says namespaces = true, and on this kernel an overlay in a session would run protected programs unasked; it \
         needs Linux 6.5 or later: remove it from the policy"
    )]
    Overlays,
    #[error("{doing}")]
    Io { doing: &'static str, source: io::Error },
    #[error("{0} said something unexpected, or nothing")]
    Protocol(&'static str),
    #[error("the agent could not be started")]
    Launch(crate::launch::spec::Failure),
}

fn io(doing: &'static str) -> impl FnOnce(io::Error) -> SupervisorError {
    move |source| SupervisorError::Io { doing, source }
}

/// Serves one session. `announce` is told the socket's path once `ana-run` may connect; what goes wrong before is returned.
///
/// # Errors
/// The session could not be started. What goes wrong later ends the session and is recorded.
pub fn serve(
    options: Options,
    announce: impl FnOnce(&start::Announcement) -> io::Result<()>,
) -> Result<(), SupervisorError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(SupervisorError::NotRoot);
    }
    nix::sys::prctl::set_dumpable(false).map_err(|errno| io("become non-dumpable")(errno.into()))?;
    nix::sys::prctl::set_name(c"ana-supervisor").map_err(|errno| io("set our name")(errno.into()))?;
    // The person's terminal is ana-run's affair.
    nix::unistd::setsid().map_err(|errno| io("lead a session of our own")(errno.into()))?;
    raise_descriptor_limit();
    let oom_score = crate::launch::leader::protect_from_oom();
    // Loading takes as long as everything else together, and needs nothing of it.
    let kernel = std::thread::spawn(Kernel::load);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        // Holds on their way block a thread each; waiting ones do not.
        .max_blocking_threads(512)
        .thread_stack_size(512 << 10)
        .enable_all()
        .build()
        .map_err(io("start the runtime"))?;
    let served = runtime.block_on(async {
        let door = door::open_door(&options)?;
        announce(&start::Announcement::Ready { session: door.session.clone(), socket: door.socket.clone() })
            .map_err(io("announce the socket"))?;
        owner::session(options, door, kernel, oom_score).await
    });
    // The answering thread goes on for ever: do not wait for it.
    runtime.shutdown_background();
    served
}

/// Each blocked open costs two descriptors.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    const WANTED: u64 = 65_536;
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Fewer only means that further opens are denied by the kernel.
        setrlimit(Resource::RLIMIT_NOFILE, WANTED.max(hard), WANTED.max(hard)).ok();
    }
}

/// Lets go of what `ana-supervisor start` lent us; what goes wrong from here on is written beside the socket.
///
/// # Errors
/// The log or /dev/null cannot be opened.
pub fn into_background(announcement: &start::Announcement) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let start::Announcement::Ready { socket, .. } = announcement else { return Ok(()) };
    let log = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(socket.with_extension("log"))?;
    nix::unistd::dup2_stdout(std::fs::File::open("/dev/null")?)?;
    nix::unistd::dup2_stderr(log)?;
    Ok(())
}

/// The warden's last duty: the record of a session whose supervisor died or hung.
///
/// # Errors
/// The evidence cannot be written.
pub fn record_death(
    charge: &crate::launch::warden::Charge,
    cause: crate::launch::warden::Cause,
) -> Result<(), SupervisorError> {
    let state = crate::state::State::open(charge.state.as_deref())?;
    let store = crate::evidence::Store::open(&state)?;
    // Only if it was started on the record, and has not ended on it.
    store.end_abandoned(&|session| session != charge.session, cause.text())?;
    // Of one that was not on the record: nothing of it has run.
    crate::evidence::notes::remove(state.run_dir(), &charge.session);
    Ok(())
}
