//! The session leader: a small root process, outside the seal and the session's cgroup, that owns the session's terminal
//! and is the agent's parent. It does job control as a shell would.
//!
//! Its stdin is a socket to the supervisor; when that closes, it kills the session and ends. The warden does so, too: this
//! is what holds when both have died at once.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, setsid},
};

use super::{
    cgroup,
    child::{self, Outfit, Step},
    seal::{self, Seal},
    spec::{Failure, FromLeader, Preparation, Stream, ToLeader},
    terminal,
};
use crate::{
    api::frame::{Blocking, REQUEST_MAX},
    sys,
};

/// The role's name on the hidden command line of ana-supervisor.
pub const ROLE: &str = "session-leader";
/// How long the kill of a whole session may take.
const KILL_LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum LeaderError {
    #[error("talk to the supervisor")]
    Socket(#[from] io::Error),
    #[error("the supervisor sent something else than {0}")]
    Protocol(&'static str),
    #[error("{0}")]
    System(#[from] nix::errno::Errno),
    #[error("kill the session")]
    Kill(#[from] cgroup::CgroupError),
}

/// Runs until the agent has ended or the supervisor has gone.
pub fn run(socket: UnixStream) -> Result<(), LeaderError> {
    prctl::set_dumpable(false)?;
    prctl::set_child_subreaper(true)?;
    prctl::set_name(c"ana-leader")?;
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&handled()), None)?;
    let mut socket = Blocking::new(socket, REQUEST_MAX);
    let Some(ToLeader::Prepare(preparation)) = socket.receive()? else {
        return Err(LeaderError::Protocol("the preparation"));
    };
    let mut fds = socket.take_fds().into_iter();
    let work = fds.next().ok_or(LeaderError::Protocol("the cgroup"))?;
    let pids = fds.next().map(File::from);

    let (stage, pipes) = match stage(&preparation) {
        Ok(stage) => stage,
        Err(step) => return Ok(socket.send(&FromLeader::Failed(step.into()), &[])?),
    };
    let ready = FromLeader::Ready {
        master: stage.master.is_some(),
        stdin: pipes[0].is_some(),
        stdout: pipes[1].is_some(),
        stderr: pipes[2].is_some(),
    };
    {
        let ends: Vec<_> = stage.master.iter().chain(pipes.iter().flatten()).map(AsFd::as_fd).collect();
        socket.send(&ready, &ends)?;
    }
    // Only ana-run may hold these, or the agent would never see the end of its input.
    drop(pipes);
    match socket.receive()? {
        Some(ToLeader::Go) => {}
        _ => return Ok(()),
    }
    start(socket, *preparation, stage, &work, pids)
}

/// What is set up before the agent may start.
struct Stage {
    master: Option<OwnedFd>,
    slave: Option<OwnedFd>,
    streams: [OwnedFd; 3],
    ruleset: Option<landlock::RulesetCreated>,
}

/// The far ends of the pipes, for `ana-run`.
type Pipes = [Option<OwnedFd>; 3];

fn stage(preparation: &Preparation) -> Result<(Stage, Pipes), Step> {
    setsid().map_err(Step::doing("lead a session"))?;
    terminal::isolate()?;
    let spec = &preparation.spec;
    let pty = match spec.streams.contains(&Stream::Terminal) {
        true => Some(terminal::open(&preparation.identity, spec.size)?),
        false => None,
    };
    if let Some(pty) = &pty {
        sys::terminal::control(pty.slave.as_fd()).map_err(Step::doing("take the session's terminal"))?;
    }
    let seal = Seal::expected(preparation.landlock_abi, preparation.switches.namespaces);
    let ruleset = seal::prepare(&seal).map_err(Step::doing("prepare the seal"))?;

    let mut pipes: Pipes = [None, None, None];
    let mut streams = Vec::with_capacity(3);
    for (index, stream) in spec.streams.iter().enumerate() {
        let near = match (stream, &pty) {
            (Stream::Terminal, Some(pty)) => {
                pty.slave.try_clone().map_err(Step::doing("copy the terminal"))?
            }
            _ => {
                let (read, write) =
                    nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(Step::doing("make a pipe"))?;
                let (near, far) = if index == 0 { (read, write) } else { (write, read) };
                // Programs reopen /dev/stdout: the pipe has to be the agent's.
                nix::unistd::fchown(&near, Some(preparation.identity.uid.into()), None)
                    .map_err(Step::doing("give a pipe to the agent's user"))?;
                pipes[index] = Some(far);
                near
            }
        };
        streams.push(near);
    }
    let streams =
        streams.try_into().map_err(|_more: Vec<OwnedFd>| Step::doing("set up the streams")(Three))?;
    let (master, slave) = pty.map_or((None, None), |pty| (Some(pty.master), Some(pty.slave)));
    Ok((Stage { master, slave, streams, ruleset }, pipes))
}

#[derive(Debug, thiserror::Error)]
#[error("there are three of them")]
struct Three;

fn start(
    socket: Blocking,
    preparation: Preparation,
    stage: Stage,
    work: &OwnedFd,
    pids: Option<File>,
) -> Result<(), LeaderError> {
    let Stage { master, slave, streams, ruleset } = stage;
    let cgroup = preparation.cgroup.clone();
    let (failure, report) = child::report_pipe()?;
    let terminal = slave.as_ref().map(OwnedFd::try_clone).transpose()?;
    let oom_score_adj = preparation_oom();
    let outfit = Outfit { preparation, streams, terminal, ruleset, pids, oom_score_adj };

    let mut report = Some(report);
    let mut outfit = Some(outfit);
    let (agent, _pidfd) = sys::process::fork_into(work.as_fd(), || match (outfit.take(), report.take()) {
        (Some(outfit), Some(report)) => child::become_agent(outfit, report),
        _ => std::process::exit(i32::from(child::OURS)),
    })?;
    // By both of us, as shells do it: a key may have to reach the group before the child has run at all.
    nix::unistd::setpgid(agent, agent).ok();
    // Our copies: the streams must end when the agent's side closes them, the master belongs to ana-run.
    drop((outfit, report, master));

    let events = SignalFd::with_flags(&handled(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    // A supervisor that is gone already is seen by the control.
    socket.send(&FromLeader::Started { pid: agent.as_raw() }, &[]).ok();
    let job = Job { socket, agent, terminal: slave, failure: Some(failure) };
    let controlled = job.control(&events);
    // Whatever ends us ends the session; usually the supervisor has done so before. Nothing is left when it has removed
    // the cgroup, too.
    if let Err(error) = cgroup::kill(&cgroup, KILL_LIMIT)
        && cgroup.exists()
    {
        return Err(error.into());
    }
    controlled
}

/// What the leader hears of. Keys that are pressed before the agent has the terminal come to the leader's group.
fn handled() -> SigSet {
    [Signal::SIGCHLD].into_iter().chain(KEYS).collect()
}

/// The signals of a terminal's keys; they are the agent's.
const KEYS: [Signal; 3] = [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTSTP];

/// ana's own score before it protected itself; the supervisor hands it down in our environment.
fn preparation_oom() -> Option<String> {
    std::env::var(OOM_SCORE_VARIABLE).ok()
}

/// Carries the oom_score_adj that ana was started with from the supervisor to the agent.
pub const OOM_SCORE_VARIABLE: &str = "ANA_OOM_SCORE_ADJ";

struct Job {
    socket: Blocking,
    agent: Pid,
    terminal: Option<OwnedFd>,
    /// Tells why the agent could not be executed. Ends silently with its exec, which may be held for as long as a person
    /// takes, or stopped by a key before it comes to it.
    failure: Option<File>,
}

impl Job {
    fn control(mut self, events: &SignalFd) -> Result<(), LeaderError> {
        loop {
            if self.reap()? {
                return Ok(());
            }
            let mut fds = vec![
                PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
                PollFd::new(events.as_fd(), PollFlags::POLLIN),
            ];
            fds.extend(self.failure.iter().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            let ready: Vec<bool> = fds.iter().map(|fd| fd.revents().is_some_and(|r| !r.is_empty())).collect();
            while let Ok(Some(info)) = events.read_signal() {
                let signal = i32::try_from(info.ssi_signo).ok().and_then(|n| Signal::try_from(n).ok());
                if let Some(signal) = signal.filter(|signal| KEYS.contains(signal)) {
                    self.obey(&ToLeader::Signal(signal as i32));
                }
            }
            if ready.get(2) == Some(&true) && self.failed()? {
                return Ok(());
            }
            if ready.first() == Some(&true) {
                let messages = match self.socket.receive_ready() {
                    Ok(messages) => messages,
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                    Err(error) => return Err(error.into()),
                };
                for message in messages {
                    self.obey(&message);
                }
            }
        }
    }

    /// The pipe has ended: true if the agent could not be executed.
    fn failed(&mut self) -> Result<bool, LeaderError> {
        let Some(mut pipe) = self.failure.take() else { return Ok(false) };
        let mut text = Vec::new();
        pipe.read_to_end(&mut text)?;
        if text.is_empty() {
            return Ok(false);
        }
        let failure: Failure = serde_json::from_slice(&text).map_err(io::Error::other)?;
        // Reaped already, or about to end.
        waitpid(self.agent, None).ok();
        self.socket.send(&FromLeader::Failed(failure), &[])?;
        Ok(true)
    }

    /// Everything orphaned in the session comes to us as well; true once the agent has ended.
    fn reap(&mut self) -> Result<bool, LeaderError> {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED)) {
                Ok(WaitStatus::Stopped(pid, _)) if pid == self.agent => {
                    self.socket.send(&FromLeader::Stopped, &[])?;
                }
                Ok(WaitStatus::Exited(pid, code)) if pid == self.agent => {
                    return self.ended(code << 8).map(|()| true);
                }
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == self.agent => {
                    return self.ended(signal as i32).map(|()| true);
                }
                Ok(WaitStatus::StillAlive) | Err(nix::errno::Errno::ECHILD) => return Ok(false),
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn ended(&mut self, status: i32) -> Result<(), LeaderError> {
        // It may have ended because it could not be executed.
        if self.failed()? {
            return Ok(());
        }
        Ok(self.socket.send(&FromLeader::Exited { status }, &[])?)
    }

    fn obey(&self, message: &ToLeader) {
        let group = Pid::from_raw(-self.agent.as_raw());
        match message {
            ToLeader::Signal(number) => {
                if let Ok(signal) = Signal::try_from(*number) {
                    // It may just have ended: its exit is on the way.
                    kill(group, signal).ok();
                }
            }
            ToLeader::Continue => {
                if let Some(terminal) = &self.terminal {
                    nix::unistd::tcsetpgrp(terminal, self.agent).ok();
                }
                kill(group, Signal::SIGCONT).ok();
            }
            ToLeader::Prepare(_) | ToLeader::Go => {}
        }
    }
}

/// Reads ana's own oom_score_adj and lowers it, so that memory pressure takes the agent before its keeper.
pub fn protect_from_oom() -> Option<String> {
    let path = "/proc/self/oom_score_adj";
    let before = fs::read_to_string(path).ok()?;
    fs::write(path, "-1000").ok()?;
    Some(before.trim().to_owned())
}
