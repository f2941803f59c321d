//! The client's end of a session's socket.

use std::{
    fs, io,
    os::{fd::AsFd, unix::net::UnixStream},
    path::{Path, PathBuf},
};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use thiserror::Error;

use super::{
    frame::{Blocking, REPLY_MAX},
    wire::{Reply, Request},
};

#[derive(Debug, Error)]
pub enum ClientError {
    #[error("talk to the supervisor")]
    Io(#[from] io::Error),
    #[error("{path} is served by uid {uid}, not by root: whoever that is, it is not the supervisor", path = path.display())]
    NotRoot { path: PathBuf, uid: u32 },
    #[error("the supervisor closed the connection")]
    Closed,
    #[error("the supervisor said something else than was asked for")]
    Protocol,
    #[error("{0}")]
    Refused(String),
}

/// A connection to one session's supervisor.
#[derive(Debug)]
pub struct Client {
    pub connection: Blocking,
}

impl Client {
    /// # Errors
    /// Nobody listens, or somebody who is not root does.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(path)?;
        let server = getsockopt(&stream.as_fd(), PeerCredentials).map_err(io::Error::from)?;
        if server.uid() != 0 {
            return Err(ClientError::NotRoot { path: path.to_owned(), uid: server.uid() });
        }
        Ok(Self { connection: Blocking::new(stream, REPLY_MAX) })
    }

    pub fn send(&self, request: &Request) -> Result<(), ClientError> {
        Ok(self.connection.send(request, &[])?)
    }

    /// The next reply; a refusal is an error.
    pub fn receive(&mut self) -> Result<Reply, ClientError> {
        let reply = self.connection.receive()?.ok_or(ClientError::Closed)?;
        if let Reply::Refused { why } = reply {
            return Err(ClientError::Refused(why));
        }
        Ok(reply)
    }

    pub fn ask(&mut self, request: &Request) -> Result<Reply, ClientError> {
        self.send(request)?;
        self.receive()
    }
}

/// The sockets of the sessions in a run folder, by session id, oldest first (ids sort by time). A missing folder has none.
pub fn sockets(run: &Path) -> Vec<(String, PathBuf)> {
    let Ok(entries) = fs::read_dir(run) else { return Vec::new() };
    let mut found: Vec<_> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            Some((name.strip_suffix(".sock")?.to_owned(), entry.path()))
        })
        .collect();
    found.sort();
    found
}

/// What to say of a session that does not answer; nothing if it has just ended: nobody listens any more, whatever is
/// still there of its socket.
pub fn silent(session: &str, socket: &Path, error: &ClientError) -> Option<String> {
    let over = matches!(error, ClientError::Io(error) if is_over(error))
        || UnixStream::connect(socket).is_err_and(|error| is_over(&error));
    (!over).then(|| format!("session {session} does not answer: {}", crate::pipeline::chain(error)))
}

/// No file, or one that no process listens on.
fn is_over(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}
