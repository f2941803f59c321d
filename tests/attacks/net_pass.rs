//! Hands sockets over a UNIX socket, from one side of the session's border to the other. Arguments: the part, the path of
//! the UNIX socket, the address, the port.
//!
//! `give`: waits for one who comes, and gives a fresh socket and a connected one. `take`: gets them, connects the fresh one
//! and uses both. `lend`: gives a fresh socket of its own to whoever listens, and waits. `borrow`: waits for one who comes,
//! and connects and uses the socket that it gets.
#![allow(clippy::expect_used, reason = "test code: a panic names what the attack was not given")]

use std::{
    io::{IoSlice, IoSliceMut},
    net::{IpAddr, SocketAddr},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
};

use ana_tests::attempt::{argument, say, tell, tell_io};
use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType,
            SockaddrStorage, connect, recv, recvmsg, send, sendmsg, setsockopt, socket, sockopt,
        },
        time::TimeVal,
    },
};

fn main() -> std::io::Result<()> {
    let text = |index| argument(index).to_string_lossy().into_owned();
    let (part, path) = (text(1), argument(2));
    let address: IpAddr = text(3).parse().expect("an address");
    let to: SockaddrStorage = SocketAddr::new(address, text(4).parse().expect("a port")).into();
    match part.as_str() {
        "give" => {
            let peer = listen(&path)?;
            let connected = fresh()?;
            connect(connected.as_raw_fd(), &to)?;
            hand(&peer, &[fresh()?.as_raw_fd(), connected.as_raw_fd()])?;
            wait(&peer);
        }
        "take" => {
            let Some(peer) = tell_io("meet", UnixStream::connect(&path)) else { return Ok(()) };
            let sockets = take(&peer)?;
            let [fresh, connected] = sockets.as_slice() else { return Ok(()) };
            tell("fresh", connect(fresh.as_raw_fd(), &to).and_then(|()| echo(fresh, "fresh")));
            tell("connected", echo(connected, "connected"));
        }
        "lend" => {
            let Some(peer) = tell_io("meet", UnixStream::connect(&path)) else { return Ok(()) };
            tell_io("lend", hand(&peer, &[fresh()?.as_raw_fd()]));
            wait(&peer);
        }
        _ => {
            let peer = listen(&path)?;
            for socket in take(&peer)? {
                tell("borrowed", connect(socket.as_raw_fd(), &to).and_then(|()| echo(&socket, "borrowed")));
            }
        }
    }
    Ok(())
}

fn listen(path: &Path) -> std::io::Result<UnixStream> {
    let listener = UnixListener::bind(path)?;
    say("listening");
    listener.accept().map(|(peer, _)| peer)
}

fn fresh() -> Result<OwnedFd, Errno> {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(5, 0))?;
    Ok(socket)
}

fn hand(peer: &UnixStream, sockets: &[RawFd]) -> std::io::Result<()> {
    let rights = [ControlMessage::ScmRights(sockets)];
    let parts = [IoSlice::new(b"s")];
    sendmsg::<SockaddrStorage>(peer.as_raw_fd(), &parts, &rights, MsgFlags::empty(), None)?;
    Ok(())
}

fn take(peer: &UnixStream) -> std::io::Result<Vec<OwnedFd>> {
    let (mut byte, mut space) = ([0], nix::cmsg_space!([RawFd; 4]));
    let mut parts = [IoSliceMut::new(&mut byte)];
    let message =
        recvmsg::<SockaddrStorage>(peer.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty())?;
    let mut sockets = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = part {
            sockets.extend(numbers.into_iter().map(owned));
        }
    }
    Ok(sockets)
}

/// A descriptor that has just been received.
#[allow(unsafe_code, reason = "what recvmsg brought is ours")]
fn owned(number: RawFd) -> OwnedFd {
    // SAFETY: the kernel has made this descriptor for us in recvmsg, and nobody else has it.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// Until the other one is gone.
fn wait(peer: &UnixStream) {
    recv(peer.as_raw_fd(), &mut [0; 1], MsgFlags::empty()).ok();
}

fn echo(socket: &OwnedFd, words: &str) -> Result<(), Errno> {
    send(socket.as_raw_fd(), words.as_bytes(), MsgFlags::MSG_NOSIGNAL)?;
    let mut answer = [0; 64];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    if answer[..length] == *words.as_bytes() { Ok(()) } else { Err(Errno::EBADMSG) }
}
