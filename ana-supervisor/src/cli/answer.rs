//! Answering from another terminal: `ana pending`, `ana approve`, `ana deny`.

use std::{
    fs::File,
    io::{self, Write},
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

use super::{
    asking::{self, Asking},
    ceremony::Ceremony,
    dialog::Verdict,
};
use crate::{
    api::{
        client::{self, Client, ClientError},
        wire::{Reply, Request},
    },
    approval::{
        authenticator::Options,
        keyfile::{self, KeyFile},
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
    let (waiting, options, remembered) = Waiting::show(&args.id, state)?;
    let key = match &args.software {
        Some(path) => {
            let name = || format!("cannot use the software passkey {}", path.display());
            let (file, _) = keyfile::open(path).with_context(name)?;
            KeyFile::read(file.try_clone()?, path).with_context(name)?;
            Some(file)
        }
        None => remembered,
    };
    let summary = options.operation.summary();
    if !Asking::possible() {
        let ceremony = match (&key, &args.software) {
            (Some(file), Some(_)) => Ceremony::by_software(&options, file)?,
            _ => Ceremony::start(&options, key.as_ref())?,
        };
        let (mut waiting, verdict) =
            asking::sign_without_terminal(ceremony, waiting).context("not approved")?;
        let Some((request, words)) = waiting.answer(verdict, &summary) else { return Ok(ExitCode::FAILURE) };
        waiting.client.ask(&request)?;
        writeln!(io::stdout(), "{words}")?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut asking = Asking::start(options, key, args.software.is_some(), waiting)?;
    loop {
        let verdict = asking.decide()?;
        // 130 is what a shell says of a command that Ctrl-C has ended.
        let code =
            if matches!(verdict, Verdict::Interrupted) { ExitCode::from(130) } else { ExitCode::FAILURE };
        let Some((request, words)) = asking.waiting.answer(verdict, &summary) else {
            asking.end()?;
            writeln!(io::stderr(), "it still waits")?;
            return Ok(code);
        };
        match asking.waiting.client.ask(&request) {
            Ok(_) => {
                asking.end()?;
                writeln!(io::stdout(), "{words}")?;
                return Ok(ExitCode::SUCCESS);
            }
            // As long as it waits, there can be another answer.
            Err(ClientError::Refused(why)) if args.software.is_none() && asking.waiting.still().is_ok() => {
                asking.dialog.refused(&why);
            }
            Err(error) => {
                asking.end()?;
                return Err(error.into());
            }
        }
    }
}

/// An operation that waits, as long as it does.
pub(super) struct Waiting {
    id: String,
    client: Client,
    /// Says when something has changed.
    watch: Client,
}

impl Waiting {
    /// What there is to ask, of whom, and the software passkey that came with it.
    fn show(id: &str, state: Option<&Path>) -> anyhow::Result<(Self, Box<Options>, Option<File>)> {
        let (mut client, socket, reply) = find(state, &Request::Show { id: id.to_owned() })?;
        let Reply::Question { options, key } = reply else { return Err(ClientError::Protocol.into()) };
        let key = client.connection.take_fds().into_iter().next().filter(|_| key).map(File::from);
        let mut watch = Client::connect(&socket)?;
        watch.ask(&Request::Watch)?;
        Ok((Self { id: id.to_owned(), client, watch }, options, key))
    }

    /// Something has changed.
    ///
    /// # Errors
    /// It does not wait any more: the supervisor's words why.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        let news: Vec<Reply> = self.watch.connection.receive_ready().map_err(|_over| ClientError::Closed)?;
        if news.is_empty() { Ok(()) } else { self.still() }
    }

    fn still(&mut self) -> anyhow::Result<()> {
        self.client.ask(&Request::Show { id: self.id.clone() })?;
        // The software passkey that comes along is here already.
        self.client.connection.take_fds();
        Ok(())
    }

    /// What is sent, and the words when it was taken; `None`: nothing.
    fn answer(&self, verdict: Verdict, summary: &str) -> Option<(Request, String)> {
        let id = self.id.clone();
        match verdict {
            Verdict::Signed(assertion) => {
                Some((Request::Sign { id, assertion: *assertion }, format!("approved: {summary}")))
            }
            Verdict::Denied(reason) => Some((Request::Deny { id, reason }, format!("denied: {summary}"))),
            Verdict::Later | Verdict::Interrupted => None,
        }
    }
}

impl AsFd for Waiting {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watch.connection.as_fd()
    }
}

/// `ana deny`.
pub fn deny(args: &Deny, state: Option<&Path>) -> anyhow::Result<ExitCode> {
    find(state, &Request::Deny { id: args.id.clone(), reason: args.reason.clone() })?;
    writeln!(io::stdout(), "denied: {}", args.id)?;
    Ok(ExitCode::SUCCESS)
}

/// Asks every session until one knows the operation.
fn find(state: Option<&Path>, request: &Request) -> anyhow::Result<(Client, PathBuf, Reply)> {
    let mut refusals = Vec::new();
    for (session, socket) in client::sockets(&State::paths(state).run) {
        let asked =
            Client::connect(&socket).and_then(|mut client| client.ask(request).map(|reply| (client, reply)));
        match asked {
            Ok((client, reply)) => return Ok((client, socket, reply)),
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
