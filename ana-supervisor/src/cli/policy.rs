//! `ana policy`: check a policy, and ask it which rule would decide.

pub(super) mod explain;
pub(super) mod explain_connect;
mod files;
mod init;
mod programs;
#[cfg(test)]
mod tests;

use std::{
    ffi::OsString,
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args as ClapArgs, Subcommand};
use schemars::JsonSchema;
use serde::Serialize;

use crate::policy::{Policy, PolicyErrors, Target};
pub use files::{PathWarning, home, missing_files, path_warnings};

/// Check a policy, ask it which rule would decide, or start with one
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read policy files as one policy and run its self-tests
    Check(Check),
    /// Say which rule would decide about an operation, and why
    Explain(Explain),
    /// Print a policy to start with: what coding agents use, as it is installed here
    Init(init::Init),
}

#[derive(Debug, ClapArgs)]
struct Check {
    /// The files, in order [default: the installed policy]
    files: Vec<PathBuf>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, ClapArgs)]
#[command(subcommand_value_name = "KIND", subcommand_help_heading = "Kinds")]
struct Explain {
    #[command(subcommand)]
    kind: Kind,
    /// Use this policy file instead of the installed policy
    #[arg(long, value_name = "FILE", global = true)]
    policy: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

/// The kinds of operations that this version gates.
#[derive(Debug, Subcommand)]
enum Kind {
    /// The execution of a program
    Exec {
        /// The command, as it would be typed
        #[arg(last = true, required = true, value_name = "CMD")]
        command: Vec<OsString>,
    },
    /// A connection
    Connect {
        /// Where to: api.example.com:443, 192.0.2.7:22 or [2001:db8::1]:443
        #[arg(value_name = "HOST:PORT")]
        target: Target,
        /// The program that connects
        #[arg(long, value_name = "PATH")]
        exe: Option<PathBuf>,
    },
}

#[derive(Debug, ClapArgs)]
struct Common {
    /// The session user's home, for `~/` in the policy [default: the invoking user's]
    #[arg(long, value_name = "DIR", global = true)]
    home: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

/// Why `ana policy` cannot say anything.
#[derive(Debug, thiserror::Error)]
pub enum PolicyCommandError {
    #[error("cannot read the policy {}", .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the policy {} is not UTF-8 text", .path.display())]
    NotText { path: PathBuf, source: std::string::FromUtf8Error },
    #[error("{0} is not found in PATH")]
    NotFound(String),
    #[error("cannot look at {}", .path.display())]
    Program { path: PathBuf, source: std::io::Error },
    /// Rendered by its own means.
    #[error("the policy is not loaded")]
    Policy(#[from] PolicyErrors),
}

/// What a command has to say.
#[derive(Default)]
struct Output {
    stdout: String,
    stderr: String,
}

/// Runs `ana policy …`. `state` is the state folder that was named explicitly. Exit status 0, or 1 when the policy
/// does not hold or cannot be read.
pub fn run(args: Args, state: Option<&Path>) -> ExitCode {
    let (output, ok) = answer(&args, state);
    let mut code = if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    let written = std::io::stdout()
        .write_all(output.stdout.as_bytes())
        .and_then(|()| std::io::stderr().write_all(output.stderr.as_bytes()));
    if written.is_err() {
        code = ExitCode::FAILURE;
    }
    code
}

/// What is printed, and whether all is well.
fn answer(args: &Args, state: Option<&Path>) -> (Output, bool) {
    let (json, result) = match &args.command {
        Command::Check(check) => (check.common.json, self::check(check, state)),
        Command::Explain(explain) => (explain.common.json, self::explain(explain, state)),
        Command::Init(init) => (false, init::init(init)),
    };
    match result {
        Ok(output) => (output, true),
        Err(error) => (failure(&error, json), false),
    }
}

/// The policy of these files, or else of the installed one.
fn load(files: &[PathBuf], home: Option<&Path>, state: Option<&Path>) -> Result<Policy, PolicyCommandError> {
    let home = match home {
        Some(home) => std::path::absolute(home)
            .map_err(|source| PolicyCommandError::Program { path: home.to_owned(), source })?,
        None => files::home().unwrap_or_default(),
    };
    let sources = if files.is_empty() { files::installed(state)? } else { files::named(files)? };
    Ok(Policy::parse(&sources, &home)?)
}

fn explain(args: &Explain, state: Option<&Path>) -> Result<Output, PolicyCommandError> {
    let policy = load(args.policy.as_slice(), args.common.home.as_deref(), state)?;
    match &args.kind {
        Kind::Exec { command } => explain::explain(&policy, command, args.common.json),
        Kind::Connect { target, exe } => {
            explain_connect::explain(&policy, target, exe.as_deref(), args.common.json)
        }
    }
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Checked<'a> {
    ok: bool,
    rules: usize,
    tests: usize,
    sha256: &'a str,
    warnings: Vec<String>,
}

fn check(args: &Check, state: Option<&Path>) -> Result<Output, PolicyCommandError> {
    let policy = load(&args.files, args.common.home.as_deref(), state)?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut warnings = missing_files(&policy);
    warnings.extend(path_warnings(&policy, &path).into_iter().map(|warning| warning.to_string()));
    let rules = policy.exec_rules().len() + policy.connect_rules().len();
    let tests = policy.test_count();
    if args.common.json {
        return Ok(json(&Checked { ok: true, rules, tests, sha256: policy.sha256(), warnings }));
    }
    let plural = |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
    Ok(Output {
        stdout: format!("ok: {}, {} passed\n", plural(rules, "rule"), plural(tests, "self-test")),
        stderr: warnings.iter().map(|warning| format!("warning: {warning}\n")).collect(),
    })
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Failed<'a> {
    ok: bool,
    errors: Vec<ErrorLine<'a>>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct ErrorLine<'a> {
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<&'a str>,
}

fn failure(error: &PolicyCommandError, as_json: bool) -> Output {
    let errors = match error {
        PolicyCommandError::Policy(errors) if as_json => {
            errors.problems().iter().map(|p| line(errors, p)).collect()
        }
        PolicyCommandError::Policy(errors) => {
            let color = std::io::IsTerminal::is_terminal(&std::io::stderr())
                && std::env::var_os("NO_COLOR").is_none();
            return Output { stderr: errors.render(color), ..Output::default() };
        }
        PolicyCommandError::Read { .. }
        | PolicyCommandError::NotText { .. }
        | PolicyCommandError::NotFound(_)
        | PolicyCommandError::Program { .. } => {
            let mut message = error.to_string();
            if let Some(source) = std::error::Error::source(error) {
                message.push_str(&format!(": {source}"));
            }
            vec![ErrorLine { message, file: None, line: None, column: None, help: None }]
        }
    };
    if as_json {
        return json(&Failed { ok: false, errors });
    }
    let stderr = errors.iter().map(|error| format!("ana: {}\n", error.message)).collect();
    Output { stderr, ..Output::default() }
}

fn line<'a>(errors: &'a PolicyErrors, problem: &'a crate::policy::Problem) -> ErrorLine<'a> {
    let position = errors.position(problem);
    ErrorLine {
        message: problem.message.clone(),
        file: position.map(|(file, ..)| file),
        line: position.map(|(_, line, _)| line),
        column: position.map(|(.., column)| column),
        help: problem.help.as_deref(),
    }
}

fn json(value: &impl Serialize) -> Output {
    match serde_json::to_string_pretty(value) {
        Ok(text) => Output { stdout: format!("{text}\n"), ..Output::default() },
        Err(error) => Output { stderr: format!("ana: cannot print JSON: {error}\n"), ..Output::default() },
    }
}
