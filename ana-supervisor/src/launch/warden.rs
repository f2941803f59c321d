//! The warden: a small process that outlives the supervisor. If the supervisor dies, the session dies: the warden kills
//! the tree, and only when nobody is left lets go of what guards it.
//!
//! It is the watchdog, too: if the thread that answers the kernel gives no sign of life, the session dies, and then the
//! supervisor, so that nobody on the host waits for it any longer.
//!
//! It holds a copy of the fanotify descriptor, so that opens which were waiting for the supervisor stay waiting instead
//! of being allowed, and the guard's links stay pinned. Nobody answers those of the host meanwhile: as soon as everybody in
//! the session has been killed, the descriptor goes, even if some cannot die yet (their file system does not answer).

use std::{
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{prctl, signal::Signal},
};
use serde::{Deserialize, Serialize};

use super::{pulse, remains::Remains};
use crate::{
    api::frame::{Blocking, REQUEST_MAX},
    sys,
};

/// The role's name on the hidden command line of ana-supervisor.
pub const ROLE: &str = "ana-warden";
/// Between two attempts to kill a session that would not die.
const RETRY: Duration = Duration::from_millis(100);
/// How long one attempt waits for the end of everybody.
const KILL_LIMIT: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum WardenError {
    #[error("talk to the supervisor")]
    Socket(#[from] io::Error),
    #[error("the supervisor sent something else than its charge")]
    Protocol,
    #[error("{0}")]
    System(#[from] nix::errno::Errno),
}

/// What the warden watches over; with it come the supervisor's pidfd, the fanotify group, the session's lock and the
/// answering thread's beats.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Charge {
    pub session: String,
    pub remains: Remains,
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
    /// The supervisor died or hung; the tree has been killed and its remains removed. Somebody has to write it down.
    Avenged(Charge, Cause),
}

/// Why the warden ended a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    Died,
    /// Its answering thread was silent; the supervisor was killed, too.
    Hung,
}

impl Cause {
    /// For the record.
    pub fn text(self) -> &'static str {
        match self {
            Self::Died => "the supervisor died",
            Self::Hung => "the supervisor hung: its answering thread gave no sign of life for 2 s",
        }
    }
}

/// Watches until the supervisor ends one way or the other. The first frame is answered with an empty one.
pub fn run(socket: UnixStream) -> Result<Watch, WardenError> {
    prctl::set_dumpable(false)?;
    prctl::set_name(c"ana-warden")?;
    // Ctrl-C and the end of the person's terminal are not for us.
    nix::unistd::setsid()?;
    sys::process::prefer_this_thread();
    let mut socket = Blocking::new(socket, REQUEST_MAX);
    let charge: Charge = socket.receive()?.ok_or(WardenError::Protocol)?;
    let [supervisor, gate, lock, beats]: [OwnedFd; 4] =
        socket.take_fds().try_into().map_err(|_fds| WardenError::Protocol)?;
    socket.send(&Done, &[])?;

    let hangs = wait(&supervisor, &socket, pulse::Watch::new(beats, Instant::now()))?;
    // A closed socket without a word means that the supervisor is dying, whatever its pidfd says yet.
    if !hangs && let Ok(Some(Done)) = socket.receive() {
        return Ok(Watch::Relieved);
    }
    let end_supervisor = || {
        if hangs {
            // What it has of the gate goes with it.
            sys::process::signal(supervisor.as_fd(), Some(Signal::SIGKILL)).ok();
        }
    };
    let mut gate = Some(gate);
    // As long as something may run, the gate stays: what waits there must not be let go.
    while let Err(error) = charge.remains.kill(KILL_LIMIT) {
        // It must not do anything to those that are looked at.
        end_supervisor();
        let doomed = charge.remains.are_doomed();
        if !doomed || gate.take().is_some() {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, doomed, "the session is not dead; trying again");
        }
        std::thread::sleep(RETRY);
    }
    end_supervisor();
    drop(gate);
    // Nobody of the session is left: now the guard may go, too.
    charge.remains.remove();
    drop(lock);
    let cause = if hangs { Cause::Hung } else { Cause::Died };
    Ok(Watch::Avenged(charge, cause))
}

/// Waits until the supervisor ends or says so (false), or hangs (true).
fn wait(supervisor: &OwnedFd, socket: &Blocking, mut pulse: pulse::Watch) -> Result<bool, nix::errno::Errno> {
    let look = PollTimeout::try_from(pulse::LOOK).unwrap_or(PollTimeout::MAX);
    loop {
        let mut fds = [
            PollFd::new(supervisor.as_fd(), PollFlags::POLLIN),
            PollFd::new(socket.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, look) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => {}
            Ok(_) => return Ok(false),
            Err(error) => return Err(error),
        }
        if pulse.hangs(Instant::now()) {
            return Ok(true);
        }
    }
}
