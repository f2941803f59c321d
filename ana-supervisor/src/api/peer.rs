//! Who may say what.

use std::os::fd::AsFd;

use thiserror::Error;

use crate::{
    launch::cgroup::{self, Hierarchy},
    sys::{process, socket::Peer},
};

#[derive(Debug, Error)]
pub enum PeerError {
    #[error("the caller has ended")]
    Ended,
    #[error("the caller is inside a session: an agent does not answer for a person")]
    Inside,
    #[error("user {caller} is not the session's user {user}")]
    OtherUser { caller: u32, user: u32 },
    #[error("the caller cannot be looked at")]
    Unknown(#[source] std::io::Error),
}

/// Asked at every message: a process may have entered a session, or ended, since it connected.
///
/// # Errors
/// Whoever is in any session of ana, has ended, or is neither the session's user nor root.
pub fn may_answer(peer: &Peer, hierarchy: &Hierarchy, user: u32) -> Result<(), PeerError> {
    if peer.uid != 0 && peer.uid != user {
        return Err(PeerError::OtherUser { caller: peer.uid, user });
    }
    let cgroup = cgroup::of_process(peer.pid).map_err(PeerError::Unknown)?;
    // What was read is the caller's if the caller lives now: until then its number was its own.
    if process::ended(peer.process.as_fd()).map_err(PeerError::Unknown)? {
        return Err(PeerError::Ended);
    }
    if cgroup.starts_with(&hierarchy.sessions_prefix()) {
        return Err(PeerError::Inside);
    }
    Ok(())
}
