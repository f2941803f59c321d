//! Connections to where the agent wanted to go, made in the name of the session's user: root opens them, so that no
//! process with that user's rights can (the unprivileged worker least of all).

use std::{
    io,
    net::{SocketAddr, TcpStream},
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockType, SockaddrStorage, connect, setsockopt, sockopt},
};
use tokio::net::UdpSocket;

use crate::sys;

/// Who does not answer by then is not there. Shorter than the kernel's own two minutes: the agent's clock runs.
const LIMIT: Duration = Duration::from_secs(30);

/// A connection to `destination` that belongs to `uid`; it does not block, and is fit for the worker
/// ([`super::worker::Worker::join`]).
///
/// # Errors
/// What connect(2) says; `TimedOut` after 30 s.
pub async fn tcp(destination: SocketAddr, uid: u32) -> io::Result<TcpStream> {
    let socket = sys::socket::of_user(family(destination), SockType::Stream, uid)?;
    fit(&socket)?;
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(destination)) {
        Ok(()) | Err(Errno::EINPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    let stream = TcpStream::from(socket);
    // A host nearby has answered by now: nobody has to be asked for a word.
    if stream.peer_addr().is_ok() {
        return Ok(stream);
    }
    let stream = tokio::net::TcpStream::from_std(stream)?;
    tokio::time::timeout(LIMIT, stream.writable()).await??;
    match stream.take_error()? {
        Some(error) => Err(error),
        None => stream.into_std(),
    }
}

/// What the one side sends does not wait for more of it, and urgent data is a byte of the stream like any other. For a
/// listener: its connections are so from the first byte on.
///
/// # Errors
/// What setsockopt(2) says.
pub(super) fn fit(socket: &impl AsFd) -> io::Result<()> {
    setsockopt(socket, sockopt::TcpNoDelay, &true)?;
    Ok(setsockopt(socket, sockopt::OobInline, &true)?)
}

/// A datagram socket of `uid`'s that speaks to `server` only.
///
/// # Errors
/// What connect(2) says.
pub async fn udp(server: SocketAddr, uid: u32) -> io::Result<UdpSocket> {
    let fd = sys::socket::of_user(family(server), SockType::Datagram, uid)?;
    let socket = UdpSocket::from_std(std::net::UdpSocket::from(fd))?;
    socket.connect(server).await?;
    Ok(socket)
}

fn family(address: SocketAddr) -> AddressFamily {
    match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_listens_is_reached_and_nobody_is_refused() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = tokio::net::TcpListener::bind(address).await.unwrap();
            let at = listener.local_addr().unwrap();
            let stream = tcp(at, 4242).await.unwrap();
            assert_eq!(stream.peer_addr().unwrap(), at);
            drop(listener);
            assert_eq!(tcp(at, 4242).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        }
    }
}
