//! The questions of a session, answered in this process.

use std::{
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use ana_supervisor::{
    api::{
        client::{self, Client},
        wire::{Reply, Request},
    },
    approval::{authenticator::Authenticator, software::SoftwarePasskey},
    operation::Operation,
};
use nix::{
    sys::socket::{getsockopt, sockopt::PeerCredentials},
    unistd::Pid,
};

use super::now;
use crate::Ground;

/// The socket of the one session of this ground.
pub fn socket(ground: &Ground) -> PathBuf {
    let sockets = client::sockets(&ground.state().join("run"));
    sockets.into_iter().next().expect("a session runs").1
}

/// Bob's key.
pub fn key(path: &Path) -> SoftwarePasskey {
    let ask = || Box::new(|| Err(std::io::Error::other("no passphrase is asked for")));
    SoftwarePasskey::open(path, ask()).expect("the key file")
}

/// The supervisor's process.
pub fn supervisor(client: &Client) -> Pid {
    Pid::from_raw(getsockopt(&client.connection.as_fd(), PeerCredentials).expect("a peer").pid())
}

/// A reply that is not the news that something has changed.
pub fn ask_for(client: &mut Client, request: &Request) -> Result<Reply, client::ClientError> {
    client.send(request)?;
    loop {
        let reply = client.receive()?;
        if !matches!(reply, Reply::Changed) {
            return Ok(reply);
        }
    }
}

/// Waits for a question. The client watches.
pub fn pending(client: &mut Client) -> String {
    pending_all(client, 1).swap_remove(0).id
}

/// Waits until there are so many questions. The client watches.
pub fn pending_all(client: &mut Client, many: usize) -> Vec<Operation> {
    loop {
        let mut found = Vec::new();
        client.send(&Request::Pending).expect("sent");
        loop {
            let reply = client.receive().expect("a reply");
            if let Reply::Pending { operation, .. } = reply {
                found.push(*operation);
            } else if let Reply::End = reply {
                break;
            }
        }
        if found.len() >= many {
            return found;
        }
        // Sleeps until the supervisor says that something has changed.
        while !matches!(client.receive().expect("a reply"), Reply::Changed) {}
    }
}

/// Approves; when the assertion was sent. The answer to it is still to be received.
pub fn sign(client: &mut Client, key: &mut SoftwarePasskey, id: &str) -> f64 {
    let Ok(Reply::Question { options, .. }) = ask_for(client, &Request::Show { id: id.to_owned() }) else {
        panic!("no question");
    };
    client.connection.take_fds();
    let assertion = key.assert(&options).expect("it signs");
    let sent = now();
    client.send(&Request::Sign { id: id.to_owned(), assertion }).expect("sent");
    sent
}
