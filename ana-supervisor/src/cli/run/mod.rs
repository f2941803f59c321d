//! `ana-run`: starts an agent under ana, lends it the terminal, and asks its person.

mod output;
mod page;
mod prompt;
mod relay;
mod screen;
mod supervisor;
mod terminal;

use std::{
    ffi::OsString,
    io::{self, IsTerminal},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context, bail};

use crate::{
    api::{
        client::{Client, ClientError},
        wire::{Reply, Request},
    },
    launch::{
        child::OURS,
        spec::{Spec, Stream},
    },
    operation::Bytes,
    sys,
};

/// Run an agent under ana: every operation that the policy protects stops until a person approves it
///
/// Exits with the agent's status: its exit code, 128+n when signal n ended it, 127 when it was not found, 126 when it
/// could not be executed, 125 when ana itself failed.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "ana-run", version, after_help = "Example: ana-run -- claude")]
pub struct Args {
    /// The user that the agent runs as, when root starts it (a name or a number)
    #[arg(long)]
    pub user: Option<String>,
    /// The policy file, instead of the state's own
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// The folder for everything that ana writes
    #[arg(long, value_name = "DIR", env = "ANA_STATE_DIR")]
    pub state: Option<PathBuf>,
    /// Ask in lines of text only: without colours, and without a screen of its own (for screen readers, logs, odd
    /// terminals)
    #[arg(long)]
    pub plain: bool,
    /// The agent and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// Runs the agent; the exit status is the agent's.
pub fn run(args: &Args) -> ExitCode {
    match try_run(args) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            say(&format!("{error:#}"));
            ExitCode::from(OURS)
        }
    }
}

/// One message for the person, each line marked as ours.
pub(crate) fn say(text: &str) {
    use std::io::Write;
    let mut stderr = io::stderr().lock();
    for line in text.trim_end().lines() {
        // Nobody is left to be told when stderr is gone. The carriage return serves a raw terminal.
        write!(stderr, "ana-run: {line}\r\n").ok();
    }
}

fn try_run(args: &Args) -> anyhow::Result<u8> {
    let spec = spec(&args.command)?;
    let socket = supervisor::start(args)?;
    let mut client = Client::connect(&socket)
        .with_context(|| format!("cannot reach the supervisor at {}", socket.display()))?;
    let interactive = spec.interactive();
    client.send(&Request::Launch(Box::new(spec)))?;
    let streams = loop {
        match client.receive() {
            Ok(Reply::Notice(text)) => say(&text),
            Ok(Reply::Streams { master, stdin, stdout, stderr, .. }) => {
                break Streams::take(&mut client, [master, stdin, stdout, stderr])?;
            }
            Ok(Reply::Failed(failure)) => {
                say(&format!("{}: {}", failure.doing, failure.error));
                return Ok(failure.code);
            }
            Ok(_) => return Err(ClientError::Protocol.into()),
            Err(ClientError::Refused(why)) => bail!("{why}"),
            Err(error) => return Err(error).context("the session could not be started"),
        }
    };
    relay::Relay::new(client, streams, interactive, args.plain)?.run()
}

/// Our ends of the agent's streams.
pub(crate) struct Streams {
    /// The master of the session's terminal.
    pub(crate) master: Option<OwnedFd>,
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
}

impl Streams {
    fn take(client: &mut Client, there: [bool; 4]) -> anyhow::Result<Self> {
        let mut fds = client.connection.take_fds().into_iter();
        let mut next = |there: bool| match there {
            true => fds.next().map(Some).context("the supervisor sent too few descriptors"),
            false => Ok(None),
        };
        let [master, stdin, stdout, stderr] = there;
        Ok(Self { master: next(master)?, stdin: next(stdin)?, stdout: next(stdout)?, stderr: next(stderr)? })
    }
}

/// What of our surroundings the agent gets.
fn spec(command: &[OsString]) -> anyhow::Result<Spec> {
    let cwd = std::env::current_dir().context("the current folder is gone")?;
    let variables = std::env::vars_os().map(|(name, value)| {
        let mut variable = name.into_vec();
        variable.push(b'=');
        variable.extend(value.into_vec());
        Bytes(variable)
    });
    let stream = |terminal: bool| if terminal { Stream::Terminal } else { Stream::Pipe };
    Ok(Spec {
        argv: command.iter().map(|word| Bytes(word.as_bytes().to_vec())).collect(),
        environment: variables.collect(),
        cwd: Bytes(cwd.into_os_string().into_vec()),
        umask: umask(),
        streams: [
            stream(io::stdin().is_terminal()),
            stream(io::stdout().is_terminal()),
            stream(io::stderr().is_terminal()),
        ],
        size: terminal_size(),
    })
}

fn umask() -> u32 {
    use nix::sys::stat::{Mode, umask};
    // There is no way to ask without setting it.
    let current = umask(Mode::empty());
    umask(current);
    current.bits()
}

/// The size of the first of our streams that is a terminal.
pub(crate) fn terminal_size() -> Option<sys::terminal::Size> {
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    [stdout.as_fd(), stderr.as_fd(), stdin.as_fd()].into_iter().find_map(|fd| sys::terminal::size(fd).ok())
}
