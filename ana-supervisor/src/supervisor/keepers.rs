//! The processes that outlive a supervisor, or own what it must not: the warden and the session leader.

use std::{
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream as StdUnixStream,
    },
    process::{Child, Command, Stdio},
};

use nix::unistd::Pid;
use tokio::net::UnixStream;

use super::{Options, SupervisorError, door::Door, io as doing};
use crate::{
    api::frame::{self, Blocking},
    launch::{leader, warden},
    sys,
};

/// The warden, and the socket by which it is relieved.
pub(super) struct Warden {
    pub process: Child,
    pub socket: Blocking,
}

impl Warden {
    /// There is nothing left to be watched.
    pub(super) fn relieve(&mut self) {
        self.socket.send(&warden::Done, &[]).ok();
        self.process.wait().ok();
    }
}

pub(super) fn start_warden(
    options: &Options,
    door: &Door,
    [group, lock, beats]: [BorrowedFd; 3],
) -> Result<Warden, SupervisorError> {
    let (ours, theirs) = StdUnixStream::pair().map_err(doing("make a socket for the warden"))?;
    let process = role(warden::ROLE, theirs).spawn().map_err(doing("start the warden"))?;
    let mut socket = Blocking::new(ours, 1024);
    let charge = warden::Charge {
        session: door.session.clone(),
        remains: door.remains(),
        state: options.state.clone(),
    };
    let this = sys::process::pidfd_open(Pid::this()).map_err(doing("open our own pidfd"))?;
    let fds = [this.as_fd(), group, lock, beats];
    socket.send(&charge, &fds).map_err(doing("charge the warden"))?;
    let answer: Option<warden::Done> = socket.receive().map_err(doing("hear from the warden"))?;
    answer.ok_or(SupervisorError::Protocol("the warden"))?;
    Ok(Warden { process, socket })
}

/// One of our own processes, with a socket to us as its stdin.
fn role(name: &str, socket: StdUnixStream) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg(name).stdin(Stdio::from(OwnedFd::from(socket))).stdout(Stdio::null()).env_clear();
    command
}

/// Starts the session leader; its socket, and the process.
pub(super) fn start_leader(oom_score: Option<&str>) -> Result<(UnixStream, Child), SupervisorError> {
    let (ours, theirs) = StdUnixStream::pair().map_err(doing("make a socket for the session leader"))?;
    let mut command = role(leader::ROLE, theirs);
    if let Some(score) = oom_score {
        command.env(leader::OOM_SCORE_VARIABLE, score);
    }
    let process = command.spawn().map_err(doing("start the session leader"))?;
    ours.set_nonblocking(true).map_err(doing("talk to the session leader"))?;
    Ok((UnixStream::from_std(ours).map_err(doing("talk to the session leader"))?, process))
}

/// Sends one word to the session leader.
pub(super) async fn tell_leader(
    leader: &UnixStream,
    word: &crate::launch::spec::ToLeader,
    fds: &[std::os::fd::BorrowedFd<'_>],
) -> Result<(), SupervisorError> {
    frame::send(leader, word, fds).await.map_err(doing("talk to the session leader"))
}
