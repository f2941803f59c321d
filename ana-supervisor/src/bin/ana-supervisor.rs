//! The root half. `start` is what `ana-run` calls; the other roles are for itself.

use std::{
    fs::File,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::PathBuf,
    process::ExitCode,
};

use ana_supervisor::{
    gate::connect::worker,
    launch::{leader, warden},
    pipeline::chain,
    supervisor::{self, Options, start},
    sys,
};
use clap::{Parser, Subcommand};

/// The supervisor of ana's sessions; `ana-run` starts it
#[derive(Debug, Parser)]
#[command(name = "ana-supervisor", version)]
pub(crate) struct Args {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Start a supervisor for one session and print where it listens
    Start(Session),
    /// Serve one session
    #[command(hide = true)]
    Serve(Session),
    /// Own the session's terminal and start the agent
    #[command(name = leader::ROLE, hide = true)]
    SessionLeader,
    /// Outlive the supervisor and kill what it guarded
    #[command(name = warden::ROLE, hide = true)]
    Warden,
    /// Look at an agent's bytes, without any right
    #[command(name = worker::ROLE, hide = true)]
    ProxyWorker,
}

#[derive(Debug, clap::Args)]
struct Session {
    /// The ana-run that may use it: its pid and start time
    #[arg(long, value_name = "PID:START", value_parser = owner)]
    owner: (i32, String),
    /// The agent's user, instead of the one who called sudo
    #[arg(long)]
    user: Option<String>,
    /// The policy file, instead of the state's own
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// The folder for everything that ana writes
    #[arg(long, value_name = "DIR", env = "ANA_STATE_DIR")]
    state: Option<PathBuf>,
    /// Who called sudo
    #[arg(long, env = "SUDO_UID", hide = true)]
    sudo_uid: Option<u32>,
}

fn owner(text: &str) -> Result<(i32, String), String> {
    let (pid, start) = text.split_once(':').ok_or("it is PID:START")?;
    Ok((pid.parse().map_err(|error| format!("{error}"))?, start.to_owned()))
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::WARN)
        .without_time()
        .init();
    let result = match Args::parse().role {
        Role::Start(_) => return announce(start::start(&std::env::args_os().skip(2).collect::<Vec<_>>())),
        Role::Serve(session) => return serve(session),
        Role::SessionLeader => socket().and_then(|socket| leader::run(socket).map_err(|error| chain(&error))),
        Role::Warden => socket().and_then(watch),
        Role::ProxyWorker => {
            socket().and_then(|socket| worker::run(socket.into()).map_err(|error| chain(&error)))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            tracing::error!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// Our stdin is a socket to the supervisor.
fn socket() -> Result<UnixStream, String> {
    let fd = sys::process::inherited(0).map_err(|error| format!("no socket to the supervisor: {error}"))?;
    // The number stays taken, so that nothing else becomes stdin.
    let copy = fd.try_clone().map_err(|error| error.to_string())?;
    let null = File::open("/dev/null").map_err(|error| error.to_string())?;
    nix::unistd::dup2_stdin(OwnedFd::from(null)).map_err(|error| error.to_string())?;
    std::mem::forget(fd);
    Ok(UnixStream::from(copy))
}

fn watch(socket: UnixStream) -> Result<(), String> {
    match warden::run(socket).map_err(|error| chain(&error))? {
        warden::Watch::Relieved => Ok(()),
        warden::Watch::Avenged(charge, cause) => {
            supervisor::record_death(&charge, cause).map_err(|error| chain(&error))
        }
    }
}

fn announce(result: std::io::Result<start::Announcement>) -> ExitCode {
    let announcement = result.unwrap_or_else(|error| start::Announcement::Failed { why: error.to_string() });
    match start::announce(&announcement) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_nobody_listens) => ExitCode::FAILURE,
    }
}

fn serve(session: Session) -> ExitCode {
    let Session { owner, user, policy, state, sudo_uid } = session;
    let options = Options { owner, user, sudo_uid, policy, state };
    let mut announced = false;
    let served = supervisor::serve(options, |announcement| {
        announced = true;
        start::announce(announcement)?;
        supervisor::into_background(announcement)
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if announced => {
            tracing::error!("{}", chain(&error));
            ExitCode::FAILURE
        }
        Err(error) => announce(Ok(start::Announcement::Failed { why: chain(&error) })),
    }
}
