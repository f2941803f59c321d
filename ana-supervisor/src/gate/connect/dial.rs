//! Connections to where the agent wanted to go, made in the name of the session's user: root opens them, so that no
//! process with that user's rights can (the unprivileged worker least of all).

use std::{io, net::SocketAddr, time::Duration};

use nix::sys::socket::{AddressFamily, SockType};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

use crate::sys;

/// Who does not answer by then is not there. Shorter than the kernel's own two minutes: the agent's clock runs.
const LIMIT: Duration = Duration::from_secs(30);

/// A connection to `destination` that belongs to `uid`.
///
/// # Errors
/// What connect(2) says; `TimedOut` after 30 s.
pub async fn tcp(destination: SocketAddr, uid: u32) -> io::Result<TcpStream> {
    let fd = sys::socket::of_user(family(destination), SockType::Stream, uid)?;
    let socket = TcpSocket::from_std_stream(std::net::TcpStream::from(fd));
    let stream = tokio::time::timeout(LIMIT, socket.connect(destination)).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
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
