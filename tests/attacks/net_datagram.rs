//! Sends to a host without a connection, or with another protocol than TCP. Arguments: the way, the address, the port, and
//! where one is needed another address that nobody protects.
//!
//! `udp`: sendto; `connected`: connect and send; `sendmmsg`: one message to the other address and one to the host;
//! `unspec`: connected to the other address, then sendto the host; `lite`: UDP-Lite; `sctp`, `dccp`, `raw`, `raw-tcp`,
//! `packet`: sockets that are not for everybody.
#![allow(clippy::expect_used, reason = "test code: a panic names what the attack was not given")]
#![allow(unsafe_code, reason = "protocols that have no wrapper")]

use std::{
    io::{IoSlice, IoSliceMut},
    net::SocketAddr,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use ana_tests::attempt::{destinations, tell};
use nix::{
    errno::Errno,
    sys::{
        socket::{
            MsgFlags, MultiHeaders, SockaddrStorage, connect, recv, recvmsg, send, sendmmsg, sendto,
            setsockopt, sockopt,
        },
        time::TimeVal,
    },
};

fn main() {
    let (way, to, other) = destinations();
    tell(&way, attack(&way, to, other));
}

fn storage(to: SocketAddr) -> SockaddrStorage {
    to.into()
}

fn open(family: libc::c_int, kind: libc::c_int, protocol: libc::c_int) -> Result<OwnedFd, Errno> {
    // SAFETY: a plain system call; the descriptor is new and ours.
    let number = Errno::result(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) })?;
    // SAFETY: as above.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(2, 0))?;
    Ok(socket)
}

fn attack(way: &str, to: SocketAddr, other: Option<SocketAddr>) -> Result<(), Errno> {
    let family = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let words = format!("attack {way}");
    let none = MsgFlags::empty();
    let socket = match way {
        "lite" => open(family, libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE)?,
        "sctp" => open(family, libc::SOCK_STREAM, libc::IPPROTO_SCTP)?,
        "dccp" => open(family, libc::SOCK_DCCP, libc::IPPROTO_DCCP)?,
        "raw" => open(family, libc::SOCK_RAW, libc::IPPROTO_RAW)?,
        "raw-tcp" => open(family, libc::SOCK_RAW, libc::IPPROTO_TCP)?,
        // ETH_P_IP in network byte order.
        "packet" => open(libc::AF_PACKET, libc::SOCK_RAW, 8)?,
        _ => open(family, libc::SOCK_DGRAM, 0)?,
    };
    let fd = socket.as_raw_fd();
    match way {
        // Having one is enough.
        "packet" | "raw" | "raw-tcp" => return Ok(()),
        "sendmmsg" => return many(fd, &words, &[other.expect("another address"), to]),
        "unspec" => {
            connect(fd, &storage(other.expect("another address")))?;
            sendto(fd, words.as_bytes(), &storage(to), none)?;
            // An answer of somebody else than the connected one is thrown away; the host tells.
            return Ok(());
        }
        "connected" => {
            connect(fd, &storage(to))?;
            send(fd, words.as_bytes(), none)?;
        }
        "lite" => {
            sendto(fd, words.as_bytes(), &storage(to), none)?;
            // Nobody echoes it; the cable shows it.
            return Ok(());
        }
        "sctp" | "dccp" => return connect(fd, &storage(to)),
        _ => drop(sendto(fd, words.as_bytes(), &storage(to), none)?),
    }
    let mut answer = [0; 64];
    let length = recv(fd, &mut answer, none)?;
    if answer[..length] == *words.as_bytes() { Ok(()) } else { Err(Errno::EBADMSG) }
}

/// All in one system call; ends well when the last one is answered.
fn many(fd: i32, words: &str, to: &[SocketAddr]) -> Result<(), Errno> {
    let addresses: Vec<_> = to.iter().map(|to| Some(storage(*to))).collect();
    let slices: Vec<_> = to.iter().map(|_| [IoSlice::new(words.as_bytes())]).collect();
    let mut headers = MultiHeaders::preallocate(to.len(), None);
    let sent: Vec<_> = sendmmsg(fd, &mut headers, &slices, &addresses, [], MsgFlags::empty())?.collect();
    if sent.len() < to.len() {
        return Err(Errno::EPERM);
    }
    for _ in to {
        let mut bytes = [0; 64];
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let message = recvmsg::<SockaddrStorage>(fd, &mut parts, None, MsgFlags::empty())?;
        let last = to.last().copied().map(storage);
        if message.address == last {
            return Ok(());
        }
    }
    Err(Errno::ETIMEDOUT)
}
