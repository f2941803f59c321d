//! Answering from another terminal: `ana pending`, `ana approve`, `ana deny`.

use std::{
    fs::File,
    io::{self, IsTerminal, Write},
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::inotify::{AddWatchFlags, InitFlags, Inotify},
};
use serde::Serialize;
use zeroize::Zeroizing;

use super::question::{self, Answer};
use crate::{
    api::{
        client::{self, Client, ClientError},
        wire::{Reply, Request},
    },
    approval::{
        Assertion,
        authenticator::{Authenticator, Options},
        software::SoftwarePasskey,
    },
    operation::Operation,
    state::State,
};

/// Show the operations that wait for a person
#[derive(Clone, Debug, clap::Args)]
pub struct Pending {
    /// Print a JSON array
    #[arg(long)]
    pub json: bool,
    /// Wait until there is one, at most this many seconds
    #[arg(long, value_name = "SECS")]
    pub wait: Option<f64>,
}

/// Approve an operation with a passkey
#[derive(Clone, Debug, clap::Args)]
pub struct Approve {
    /// The operation's id, as `ana pending` shows it
    pub id: String,
    /// Sign with the software passkey in this file
    #[arg(long, value_name = "KEYFILE")]
    pub software: Option<PathBuf>,
}

/// Deny an operation
#[derive(Clone, Debug, clap::Args)]
pub struct Deny {
    /// The operation's id, as `ana pending` shows it
    pub id: String,
    /// Why; the agent is told
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub reason: String,
}

/// One row of `ana pending --json`.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(super) struct Row {
    id: String,
    session: String,
    kind: &'static str,
    rule: String,
    summary: String,
    created_at: String,
    expires_at: String,
    /// How many operations like this one wait, itself included.
    count: usize,
    operation: Operation,
}

impl From<(Operation, usize)> for Row {
    fn from((operation, more): (Operation, usize)) -> Self {
        Self {
            id: operation.id.clone(),
            session: operation.session.clone(),
            kind: operation.kind.word(),
            rule: operation.rule.clone(),
            summary: operation.summary(),
            created_at: operation.issued_at.clone(),
            expires_at: operation.expires_at.clone(),
            count: more.saturating_add(1),
            operation,
        }
    }
}

/// `ana pending`.
pub fn pending(args: &Pending, state: Option<&Path>) -> anyhow::Result<ExitCode> {
    let run = State::paths(state).run;
    let wait = Duration::try_from_secs_f64(args.wait.unwrap_or(0.0)).context("--wait takes seconds")?;
    let rows: Vec<Row> = wait_for_operations(&run, wait)?.into_iter().map(Row::from).collect();
    let mut stdout = io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut stdout, &rows)?;
        writeln!(stdout)?;
        return Ok(ExitCode::SUCCESS);
    }
    if rows.is_empty() {
        writeln!(stdout, "nothing waits")?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(["ID", "RULE", "COUNT", "EXPIRES", "COMMAND"]);
    for row in rows {
        table.add_row([row.id, row.rule, row.count.to_string(), row.expires_at, row.summary]);
    }
    writeln!(stdout, "{}", table.trim_fmt())?;
    Ok(ExitCode::SUCCESS)
}

/// Everything that waits in all sessions; if nothing does, waits for something.
fn wait_for_operations(run: &Path, wait: Duration) -> anyhow::Result<Vec<(Operation, usize)>> {
    let end = Instant::now() + wait;
    loop {
        // Watched first, looked at second: a session that starts in between is not missed.
        let folder = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let watched = run.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        folder.add_watch(watched, AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO)?;
        let (mut clients, mut found, mut refused) = (Vec::new(), Vec::new(), None);
        for (session, socket) in client::sockets(run) {
            match Client::connect(&socket).and_then(|client| list(client, &mut found)) {
                Ok(client) => clients.push(client),
                Err(ClientError::Refused(why)) => refused = Some(why),
                // It has just ended, or it does not answer.
                Err(error @ (ClientError::Io(_) | ClientError::Closed)) => {
                    refused = refused.or(client::silent(&session, &socket, &error));
                }
                Err(error) => return Err(error.into()),
            }
        }
        if !found.is_empty() {
            return Ok(found);
        }
        if let Some(why) = refused {
            bail!("{why}");
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(found);
        }
        let mut fds: Vec<PollFd> = clients
            .iter()
            .map(|client| PollFd::new(client.connection.as_fd(), PollFlags::POLLIN))
            .chain([PollFd::new(folder.as_fd(), PollFlags::POLLIN)])
            .collect();
        // Rounded up, or the last fraction of a millisecond would be spent spinning.
        let timeout = PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Subscribes, then lists.
fn list(mut client: Client, into: &mut Vec<(Operation, usize)>) -> Result<Client, ClientError> {
    client.ask(&Request::Watch)?;
    client.send(&Request::Pending)?;
    loop {
        let reply = client.receive()?;
        if let Reply::Pending { operation, more } = reply {
            into.push((*operation, more));
        } else if let Reply::End = reply {
            return Ok(client);
        } else if !matches!(reply, Reply::Changed) {
            return Err(ClientError::Protocol);
        }
    }
}

/// `ana approve`.
pub fn approve(args: &Approve, state: Option<&Path>) -> anyhow::Result<ExitCode> {
    let (mut client, reply) = find(state, &Request::Show { id: args.id.clone() })?;
    let Reply::Question { options, key } = reply else { return Err(ClientError::Protocol.into()) };
    let key = client.connection.take_fds().into_iter().next().filter(|_| key).map(File::from);
    if args.software.is_none() && io::stdin().is_terminal() && io::stderr().is_terminal() {
        match question::ask_on_terminal(&options)? {
            Answer::Approve => {}
            Answer::Deny => {
                client.ask(&Request::Deny { id: args.id.clone(), reason: String::new() })?;
                writeln!(io::stderr(), "denied")?;
                return Ok(ExitCode::SUCCESS);
            }
            Answer::Later => {
                writeln!(io::stderr(), "it still waits")?;
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    let assertion = sign(&options, args.software.as_deref(), key)?;
    client.ask(&Request::Sign { id: args.id.clone(), assertion })?;
    writeln!(io::stdout(), "approved: {}", options.operation.summary())?;
    Ok(ExitCode::SUCCESS)
}

/// Has the passkey sign the operation that was rendered.
pub fn sign(options: &Options, software: Option<&Path>, key: Option<File>) -> anyhow::Result<Assertion> {
    let ask = Box::new(|| Ok(Zeroizing::new(rpassword::prompt_password("passphrase of the passkey: ")?)));
    let mut passkey = match (software, key) {
        (Some(path), _) => SoftwarePasskey::open(path, ask)
            .with_context(|| format!("cannot use the software passkey {}", path.display()))?,
        (None, Some(file)) => {
            SoftwarePasskey::from_file(file, ask).context("cannot use the remembered software passkey")?
        }
        (None, None) => bail!(
            "no passkey is at hand: the enrolled software passkey's file cannot be opened by the supervisor; \
             name it with --software KEYFILE"
        ),
    };
    passkey.assert(options).context("the passkey did not sign")
}

/// `ana deny`.
pub fn deny(args: &Deny, state: Option<&Path>) -> anyhow::Result<ExitCode> {
    find(state, &Request::Deny { id: args.id.clone(), reason: args.reason.clone() })?;
    writeln!(io::stdout(), "denied: {}", args.id)?;
    Ok(ExitCode::SUCCESS)
}

/// Asks every session until one knows the operation.
fn find(state: Option<&Path>, request: &Request) -> anyhow::Result<(Client, Reply)> {
    let mut refusals = Vec::new();
    for (session, socket) in client::sockets(&State::paths(state).run) {
        let asked =
            Client::connect(&socket).and_then(|mut client| client.ask(request).map(|reply| (client, reply)));
        match asked {
            Ok(answered) => return Ok(answered),
            Err(ClientError::Refused(why)) => refusals.push(why),
            Err(error @ (ClientError::Io(_) | ClientError::Closed)) => {
                refusals.extend(client::silent(&session, &socket, &error));
            }
            Err(error) => return Err(error.into()),
        }
    }
    // A session that knows it says more than those that do not.
    let unknown = |why: &String| why.starts_with("no operation ");
    match refusals.iter().find(|why| !unknown(why)).or(refusals.first()) {
        Some(why) => Err(anyhow!("{why}")),
        None => Err(anyhow!("no session is running here; see `ana sessions`")),
    }
}

/// Whether something can be read now; waits at most `limit`.
pub fn readable(fd: BorrowedFd, limit: Duration) -> io::Result<bool> {
    let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
    match poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], timeout) {
        Ok(ready) => Ok(ready > 0),
        Err(nix::errno::Errno::EINTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
