//! `ana sessions`: what runs, and breaking the glass.

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use anyhow::bail;

use crate::{
    api::{
        client::{self, Client, ClientError},
        wire::{Reply, Request, SessionInfo},
    },
    state::State,
};

/// Show the running sessions
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Print a JSON array
    #[arg(long)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Kill a session and everything in it, now
    Kill {
        /// The session's id, or the first characters of it
        id: String,
    },
}

pub fn run(args: &Args, state: Option<&Path>) -> anyhow::Result<ExitCode> {
    match &args.command {
        None => list(args.json, state),
        Some(Command::Kill { id }) => kill(id, state),
    }
}

fn list(json: bool, state: Option<&Path>) -> anyhow::Result<ExitCode> {
    let mut sessions = Vec::new();
    let mut silent = Vec::new();
    for (session, socket) in client::sockets(&State::paths(state).run) {
        match Client::connect(&socket).and_then(|mut client| describe(&mut client)) {
            Ok(session) => sessions.push(session),
            Err(ClientError::Refused(why)) => silent.push(format!("session {session}: {why}")),
            // It has just ended, or it does not answer.
            Err(error @ (ClientError::Io(_) | ClientError::Closed)) => {
                silent.extend(client::silent(&session, &socket, &error));
            }
            Err(error) => return Err(error.into()),
        }
    }
    let mut stdout = io::stdout().lock();
    if json {
        serde_json::to_writer(&mut stdout, &sessions)?;
        writeln!(stdout)?;
    } else if sessions.is_empty() && silent.is_empty() {
        writeln!(stdout, "no sessions")?;
    } else if sessions.is_empty() {
    } else {
        let mut table = comfy_table::Table::new();
        table
            .load_style(comfy_table::presets::NOTHING)
            .set_header(["SESSION", "USER", "SEAL", "PENDING", "STARTED", "COMMAND"]);
        for s in sessions {
            table.add_row([s.session, s.user, s.seal, s.pending.to_string(), s.started_at, s.command]);
        }
        writeln!(stdout, "{}", table.trim_fmt())?;
    }
    for why in &silent {
        writeln!(io::stderr(), "ana: {why}")?;
    }
    Ok(if silent.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn describe(client: &mut Client) -> Result<SessionInfo, ClientError> {
    let Reply::Session(info) = client.ask(&Request::Describe)? else { return Err(ClientError::Protocol) };
    Ok(info)
}

fn kill(id: &str, state: Option<&Path>) -> anyhow::Result<ExitCode> {
    let mut found = client::sockets(&State::paths(state).run);
    found.retain(|(session, _)| session.starts_with(id));
    let [(session, socket)] = found.as_slice() else {
        match found.len() {
            0 => bail!("no session {id}; see `ana sessions`"),
            n => bail!("{id} could be {n} sessions; type more of it"),
        }
    };
    match Client::connect(socket).and_then(|mut client| client.ask(&Request::Kill)) {
        Ok(_) => {}
        Err(error @ (ClientError::Io(_) | ClientError::Closed)) => {
            match client::silent(session, socket, &error) {
                Some(why) => bail!("{why}"),
                None => {
                    bail!("session {session} has ended already; what is left of it goes with the next start")
                }
            }
        }
        Err(error) => return Err(error.into()),
    }
    writeln!(io::stdout(), "killed: {session}")?;
    Ok(ExitCode::SUCCESS)
}
