//! The command for people and scripts: answer, look, configure.

use std::{path::PathBuf, process::ExitCode};

use ana_supervisor::cli::{answer, audit, checks, doctor, passkey, policy, schema, sessions};
use clap::{Parser, Subcommand};

/// Stop the operations that matter until a person approves them with a passkey
#[derive(Debug, Parser)]
#[command(name = "ana", version)]
pub(crate) struct Args {
    /// The folder for everything that ana writes
    #[arg(long, value_name = "DIR", env = "ANA_STATE_DIR", global = true)]
    state: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Pending(answer::Pending),
    Approve(answer::Approve),
    Deny(answer::Deny),
    Sessions(sessions::Args),
    #[command(subcommand)]
    Passkey(passkey::Args),
    Policy(policy::Args),
    Audit(audit::Audit),
    Doctor(doctor::Args),
    Schema(schema::Args),
}

fn main() -> ExitCode {
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        eprintln!("ana: cannot become non-dumpable: {error}");
        return ExitCode::FAILURE;
    }
    let Args { state, command } = Args::parse();
    let state = state.as_deref();
    let result = match command {
        Command::Pending(args) => answer::pending(&args, state),
        Command::Approve(args) => answer::approve(&args, state),
        Command::Deny(args) => answer::deny(&args, state),
        Command::Sessions(args) => sessions::run(&args, state),
        Command::Passkey(args) => return passkey::run(args, state),
        Command::Policy(args) => return policy::run(args, state),
        Command::Audit(args) => return audit::run(args, state),
        Command::Schema(args) => schema::run(&args),
        Command::Doctor(args) => return doctor::run(&args, checks::extra(state)),
    };
    result.unwrap_or_else(|error| {
        eprintln!("ana: {error:#}");
        ExitCode::FAILURE
    })
}
