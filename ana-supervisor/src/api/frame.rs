//! Frames on our unix sockets: four bytes of length (big endian), then that many bytes of JSON. Descriptors travel with
//! the first byte of the frame they belong to.

use std::{
    io::{self, ErrorKind},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use serde::{Serialize, de::DeserializeOwned};
use tokio::io::Interest;

use crate::sys::scm;

/// The most that a client may send in one frame: an argv and an environment at their kernel limit fit.
pub const REQUEST_MAX: usize = 16 << 20;
/// The most that anybody who is not the session's owner may send: an assertion or a reason.
pub const SMALL_REQUEST_MAX: usize = 64 << 10;
/// The most that the supervisor sends in one frame.
pub const REPLY_MAX: usize = 4 << 20;

fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let length = u32::try_from(bytes.len() - 4).map_err(io::Error::other)?;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    Ok(bytes)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    serde_json::from_slice(bytes).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
}

/// Collects bytes until a frame is whole; what came early stays for the next one.
#[derive(Debug)]
pub struct Assembly {
    max: usize,
    bytes: Vec<u8>,
    /// Descriptors that came so far and have not been taken.
    pub fds: Vec<OwnedFd>,
}

impl Assembly {
    /// Refuses frames longer than `max` bytes before anything is allocated for them.
    pub fn new(max: usize) -> Self {
        Self { max, bytes: Vec::new(), fds: Vec::new() }
    }

    /// Raises or lowers the limit, once it is known who speaks.
    pub fn limit(&mut self, max: usize) {
        self.max = max;
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame, if there is one.
    pub fn frame<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let Some(prefix) = self.bytes.first_chunk::<4>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*prefix)).map_err(io::Error::other)?;
        if length > self.max {
            let message = format!("a message of {length} bytes (the limit is {})", self.max);
            return Err(io::Error::new(ErrorKind::InvalidData, message));
        }
        let Some(body) = self.bytes.get(4..4 + length) else { return Ok(None) };
        let message = decode(body);
        self.bytes.drain(..4 + length);
        message.map(Some)
    }

    /// One read from a blocking socket that has something to say; false at its end.
    pub fn fill(&mut self, socket: BorrowedFd) -> io::Result<bool> {
        let mut buffer = [0; 16 << 10];
        let length = loop {
            match scm::receive(socket, &mut buffer, &mut self.fds) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        self.push(&buffer[..length]);
        Ok(length > 0)
    }
}

/// A blocking end: `ana-run`, `ana`, the session leader, the warden.
#[derive(Debug)]
pub struct Blocking {
    stream: UnixStream,
    assembly: Assembly,
}

impl Blocking {
    pub fn new(stream: UnixStream, max: usize) -> Self {
        Self { stream, assembly: Assembly::new(max) }
    }

    pub fn send(&self, message: &impl Serialize, fds: &[BorrowedFd]) -> io::Result<()> {
        let bytes = encode(message)?;
        let (mut sent, mut fds) = (0, fds);
        while sent < bytes.len() {
            match scm::send(self.stream.as_fd(), &bytes[sent..], fds) {
                Ok(length) => (sent, fds) = (sent + length, &[]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits for the next frame; `None` when the other end has closed.
    pub fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        loop {
            if let Some(message) = self.assembly.frame()? {
                return Ok(Some(message));
            }
            if !self.assembly.fill(self.stream.as_fd())? {
                return Ok(None);
            }
        }
    }

    /// A frame that is there already, after a poll(2) said that there is something to read. `Err(UnexpectedEof)` at the
    /// end of the stream.
    pub fn receive_ready<T: DeserializeOwned>(&mut self) -> io::Result<Vec<T>> {
        let open = self.assembly.fill(self.stream.as_fd())?;
        let mut messages = Vec::new();
        while let Some(message) = self.assembly.frame()? {
            messages.push(message);
        }
        if !open && messages.is_empty() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(messages)
    }

    /// The descriptors that came with the frames received so far.
    pub fn take_fds(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.assembly.fds)
    }
}

impl AsFd for Blocking {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Sends one frame over a tokio stream.
pub async fn send(
    stream: &tokio::net::UnixStream,
    message: &impl Serialize,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = encode(message)?;
    let (mut sent, mut fds) = (0, fds);
    while sent < bytes.len() {
        stream.writable().await?;
        let attempt = stream.try_io(Interest::WRITABLE, || scm::send(stream.as_fd(), &bytes[sent..], fds));
        match attempt {
            Ok(length) => (sent, fds) = (sent + length, &[]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Waits for the next frame of a tokio stream; `None` when the other end has closed. Cancel safe: what came stays in the
/// assembly.
pub async fn receive<T: DeserializeOwned>(
    stream: &tokio::net::UnixStream,
    assembly: &mut Assembly,
) -> io::Result<Option<T>> {
    loop {
        if let Some(message) = assembly.frame()? {
            return Ok(Some(message));
        }
        stream.readable().await?;
        match stream.try_io(Interest::READABLE, || assembly.fill(stream.as_fd())) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cut_and_too_long_ones_are_refused() {
        let bytes = [encode(&"one").unwrap(), encode(&"two").unwrap()].concat();
        for cut in 0..bytes.len() {
            let mut assembly = Assembly::new(100);
            let mut seen: Vec<String> = Vec::new();
            for part in [&bytes[..cut], &bytes[cut..]] {
                assembly.push(part);
                while let Some(message) = assembly.frame().unwrap() {
                    seen.push(message);
                }
            }
            assert_eq!(seen, ["one", "two"]);
        }
        let mut assembly = Assembly::new(100);
        assembly.push(&101u32.to_be_bytes());
        assert!(assembly.frame::<String>().is_err());
        let mut assembly = Assembly::new(100);
        assembly.push(&[0, 0, 0, 2, b'{', b'"']);
        assert!(assembly.frame::<String>().is_err());
    }

    #[test]
    fn descriptors_arrive_with_their_frame() {
        let (a, b) = UnixStream::pair().unwrap();
        let (a, mut b) = (Blocking::new(a, 100), Blocking::new(b, 100));
        let file = std::fs::File::open("/dev/null").unwrap();
        a.send(&1, &[file.as_fd()]).unwrap();
        assert_eq!(b.receive::<i32>().unwrap(), Some(1));
        assert_eq!(b.take_fds().len(), 1);
        drop(a);
        assert_eq!(b.receive::<i32>().unwrap(), None);
    }
}
