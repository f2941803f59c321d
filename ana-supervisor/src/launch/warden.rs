//! The warden: a small process that outlives the supervisor. If the supervisor dies, the session dies: the warden kills
//! the tree, and only when nobody is left lets go of what guards it.
//!
//! It holds a copy of the fanotify descriptor, so that opens which were waiting for the supervisor stay waiting instead
//! of being allowed, and the guard's links stay pinned.

use std::{
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::prctl,
};
use serde::{Deserialize, Serialize};

use super::cgroup;
use crate::api::frame::{Blocking, REQUEST_MAX};

/// The role's name on the hidden command line of ana-supervisor.
pub const ROLE: &str = "ana-warden";
/// Between two attempts to kill a session that would not die.
const RETRY: Duration = Duration::from_millis(100);
/// How long the kill of a whole session may take.
const KILL_LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum WardenError {
    #[error("talk to the supervisor")]
    Socket(#[from] io::Error),
    #[error("the supervisor sent something else than its charge")]
    Protocol,
    #[error("{0}")]
    System(#[from] nix::errno::Errno),
}

/// What the warden watches over; with it come the supervisor's pidfd, the fanotify group and the session's lock.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Charge {
    pub session: String,
    /// The session's cgroup.
    pub cgroup: PathBuf,
    /// The folder of the pinned links.
    pub pins: PathBuf,
    /// The session's socket.
    pub socket: PathBuf,
    /// The session's v1 pids group.
    pub pids: Option<PathBuf>,
    /// What `--state` said.
    pub state: Option<PathBuf>,
}

/// The supervisor ends in good order: nothing is left to be watched.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Done;

/// How the watch ended.
#[derive(Debug)]
pub enum Watch {
    /// In good order.
    Relieved,
    /// The supervisor died; the tree has been killed and its remains removed. Somebody has to write it down.
    Avenged(Charge),
}

/// Watches until the supervisor ends one way or the other. The first frame is answered with an empty one.
pub fn run(socket: UnixStream) -> Result<Watch, WardenError> {
    prctl::set_dumpable(false)?;
    prctl::set_name(c"ana-warden")?;
    // Ctrl-C and the end of the person's terminal are not for us.
    nix::unistd::setsid()?;
    let mut socket = Blocking::new(socket, REQUEST_MAX);
    let charge: Charge = socket.receive()?.ok_or(WardenError::Protocol)?;
    let [supervisor, gate, lock]: [OwnedFd; 3] =
        socket.take_fds().try_into().map_err(|_fds| WardenError::Protocol)?;
    socket.send(&Done, &[])?;

    loop {
        let mut fds = [
            PollFd::new(supervisor.as_fd(), PollFlags::POLLIN),
            PollFd::new(socket.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => break,
            Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // A closed socket without a word means that the supervisor is dying, whatever its pidfd says yet.
    if let Ok(Some(Done)) = socket.receive() {
        return Ok(Watch::Relieved);
    }
    // As long as something lives, the gate stays: what waits there must not be let go.
    while let Err(error) = cgroup::kill(&charge.cgroup, KILL_LIMIT) {
        if !charge.cgroup.exists() {
            break;
        }
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "the session could not be killed; trying again"
        );
        std::thread::sleep(RETRY);
    }
    // Nobody of the session is left: now the gate and the guard may go.
    drop(gate);
    clear(&charge);
    drop(lock);
    Ok(Watch::Avenged(charge))
}

/// Removes what a session leaves behind once its processes are dead. What is not there any more is fine.
pub fn clear(charge: &Charge) {
    crate::kernel::pins::unpin(&charge.pins).ok();
    cgroup::remove(&charge.cgroup).ok();
    fs::remove_file(&charge.socket).ok();
    // What went wrong stays readable.
    let log = charge.socket.with_extension("log");
    if fs::metadata(&log).is_ok_and(|meta| meta.len() == 0) {
        fs::remove_file(&log).ok();
    }
    if let Some(pids) = &charge.pids {
        fs::remove_dir(pids).ok();
    }
}
