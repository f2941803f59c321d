//! `ana-supervisor start`: puts the supervisor into the background and tells where it listens.

use std::{
    io::{self, BufRead, BufReader, Write},
    path::PathBuf,
    process::{Command, Stdio},
};

use serde::{Deserialize, Serialize};

/// The one line on stdout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Announcement {
    /// `ana-run` may connect.
    Ready { session: String, socket: PathBuf },
    /// The supervisor could not start; in words.
    Failed { why: String },
}

/// The hidden subcommand that serves.
pub const SERVE: &str = "serve";

/// Starts `ana-supervisor serve` with the same arguments and passes its announcement on.
pub fn start(arguments: &[std::ffi::OsString]) -> io::Result<Announcement> {
    let mut server = Command::new("/proc/self/exe")
        .arg(SERVE)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let Some(stdout) = server.stdout.take() else { return Err(io::ErrorKind::BrokenPipe.into()) };
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    if line.is_empty() {
        let status = server.wait()?;
        return Err(io::Error::other(format!("the supervisor ended at once ({status})")));
    }
    Ok(serde_json::from_str(&line)?)
}

/// Prints an announcement as one line.
pub fn announce(announcement: &Announcement) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    serde_json::to_writer(&mut stdout, announcement)?;
    stdout.write_all(b"\n")?;
    stdout.flush()
}
