//! Packets between the supervisor and its worker: one message of a SOCK_SEQPACKET socket each. Four bytes say how long
//! the JSON is, which follows; then come bytes as they are. Descriptors travel with them.

use std::{
    io::{self, ErrorKind},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use serde::{Serialize, de::DeserializeOwned};

use crate::sys::scm;

/// The longest packet: a DNS message with all that it says.
pub(super) const PACKET_MAX: usize = 192 << 10;

/// Both ends; the supervisor's first. Neither blocks.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?)
}

/// A packet that can be sent.
#[derive(Debug)]
pub(super) struct Packet(Vec<u8>);

impl Packet {
    pub(super) fn new(message: &impl Serialize, raw: &[u8]) -> io::Result<Self> {
        let mut bytes = vec![0; 4];
        serde_json::to_writer(&mut bytes, message)?;
        let length = u32::try_from(bytes.len() - 4).map_err(io::Error::other)?;
        if let Some(prefix) = bytes.first_chunk_mut() {
            *prefix = length.to_le_bytes();
        }
        bytes.extend_from_slice(raw);
        if bytes.len() > PACKET_MAX {
            return Err(io::Error::new(ErrorKind::InvalidInput, "a packet that is too long"));
        }
        Ok(Self(bytes))
    }

    /// One attempt; it goes as a whole or not at all (`WouldBlock`).
    pub(super) fn send(&self, socket: BorrowedFd, fds: &[BorrowedFd]) -> io::Result<()> {
        loop {
            match scm::send(socket, &self.0, fds) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => return other.map(drop),
            }
        }
    }
}

/// A packet that came.
#[derive(Debug)]
pub(super) struct Received<T> {
    pub(super) message: T,
    pub(super) raw: Vec<u8>,
    pub(super) fds: Vec<OwnedFd>,
}

/// Receives packets.
#[derive(Debug)]
pub(super) struct Receiver(Vec<u8>);

impl Receiver {
    pub(super) fn new() -> Self {
        Self(vec![0; PACKET_MAX])
    }

    /// One attempt; `None` when the other end has closed.
    ///
    /// # Errors
    /// `WouldBlock`, or something that is no packet (`InvalidData`).
    pub(super) fn receive<T: DeserializeOwned>(
        &mut self,
        socket: impl AsFd,
    ) -> io::Result<Option<Received<T>>> {
        let mut fds = Vec::new();
        let length = loop {
            match scm::receive(socket.as_fd(), &mut self.0, &mut fds) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        if length == 0 {
            return Ok(None);
        }
        let broken = || io::Error::new(ErrorKind::InvalidData, "not a packet");
        let bytes = self.0.get(..length).ok_or_else(broken)?;
        let (prefix, rest) = bytes.split_first_chunk().ok_or_else(broken)?;
        let json = usize::try_from(u32::from_le_bytes(*prefix)).map_err(io::Error::other)?;
        let (json, raw) = rest.split_at_checked(json).ok_or_else(broken)?;
        Ok(Some(Received { message: serde_json::from_slice(json)?, raw: raw.to_vec(), fds }))
    }
}
