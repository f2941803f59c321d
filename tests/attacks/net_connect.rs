//! Connects to a host in one of many ways, says something and waits for the echo. Arguments: the way, the address, the
//! port, and where one is needed another address that nobody protects.
//!
//! `plain`; `mapped`: as ::ffff:a.b.c.d; `fastopen` and `fastopen-connect`:
//! data in the SYN; `mptcp`; `bound`: from an address and a port of its own; `unspec`: connected to the other address,
//! dissolved, connected again; `swap`: a second thread changes the address during the call; `reuse`: one port for
//! connections to both, closed by a reset; `blocking-not`: without waiting for the connection.
#![allow(clippy::expect_used, reason = "test code: a panic names what the attack was not given")]
#![allow(unsafe_code, reason = "the system calls are made with addresses that others change")]

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
};

use ana_tests::attempt::{destinations, say, tell};
use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, MsgFlags, SockFlag, SockType, SockaddrStorage, bind, connect, recv, send, sendto,
            setsockopt, socket, sockopt,
        },
        time::TimeVal,
    },
};

/// How often a race is tried.
const ROUNDS: u32 = 90;

fn main() {
    let (way, to, other) = destinations();
    match way.as_str() {
        "swap" => swap(to, other.expect("another address")),
        "reuse" => reuse(to, other.expect("another address")),
        _ => {
            let echoed = once(&way, to, other).and_then(|socket| echo(&socket, &way));
            tell(&way, echoed);
        }
    }
}

fn storage(to: SocketAddr) -> SockaddrStorage {
    to.into()
}

fn stream(to: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(5, 0))?;
    Ok(socket)
}

/// A socket that is connected in this way, or has sent its first words.
fn once(way: &str, to: SocketAddr, other: Option<SocketAddr>) -> Result<OwnedFd, Errno> {
    let fd = |socket: &OwnedFd| socket.as_raw_fd();
    match way {
        "mapped" => {
            let IpAddr::V4(four) = to.ip() else { return Err(Errno::EINVAL) };
            let mapped = SocketAddr::new(four.to_ipv6_mapped().into(), to.port());
            let socket = stream(mapped)?;
            connect(fd(&socket), &storage(mapped))?;
            Ok(socket)
        }
        "fastopen" => {
            let socket = stream(to)?;
            sendto(
                fd(&socket),
                b"attack fastopen\n",
                &storage(to),
                MsgFlags::from_bits_retain(libc::MSG_FASTOPEN),
            )?;
            Ok(socket)
        }
        "fastopen-connect" => fast_open(to),
        "mptcp" => multipath(to),
        "bound" => {
            let socket = stream(to)?;
            setsockopt(&socket, sockopt::ReuseAddr, &true)?;
            let own = if to.is_ipv4() { "192.0.2.1:40404" } else { "[2001:db8::1]:40404" };
            bind(fd(&socket), &storage(own.parse().expect("an address")))?;
            connect(fd(&socket), &storage(to))?;
            Ok(socket)
        }
        "unspec" => {
            let socket = stream(to)?;
            connect(fd(&socket), &storage(other.expect("another address")))?;
            dissolve(&socket)?;
            connect(fd(&socket), &storage(to))?;
            Ok(socket)
        }
        "blocking-not" => {
            let socket = stream(to)?;
            nix::fcntl::fcntl(&socket, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))?;
            match connect(fd(&socket), &storage(to)) {
                Ok(()) | Err(Errno::EINPROGRESS) => {}
                Err(error) => return Err(error),
            }
            nix::fcntl::fcntl(&socket, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty()))?;
            Ok(socket)
        }
        _ => {
            let socket = stream(to)?;
            connect(fd(&socket), &storage(to))?;
            Ok(socket)
        }
    }
}

/// The first words travel with the SYN, which connect(2) puts off.
fn fast_open(to: SocketAddr) -> Result<OwnedFd, Errno> {
    let socket = stream(to)?;
    let on: libc::c_int = 1;
    let size = libc::socklen_t::try_from(size_of_val(&on)).expect("four bytes");
    // SAFETY: the option's value is an int that lives until the call is over.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_FASTOPEN_CONNECT,
            (&raw const on).cast(),
            size,
        )
    };
    Errno::result(set)?;
    connect(socket.as_raw_fd(), &storage(to))?;
    Ok(socket)
}

/// Several paths under one connection.
fn multipath(to: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: a plain system call; the descriptor is new and ours.
    let number = Errno::result(unsafe { libc::socket(family, libc::SOCK_STREAM, libc::IPPROTO_MPTCP) })?;
    // SAFETY: as above.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    connect(socket.as_raw_fd(), &storage(to))?;
    Ok(socket)
}

/// connect(AF_UNSPEC): the socket is unconnected again.
fn dissolve(socket: &OwnedFd) -> Result<(), Errno> {
    let nothing = libc::sockaddr { sa_family: 0, sa_data: [0; 14] };
    let size = libc::socklen_t::try_from(size_of_val(&nothing)).expect("sixteen bytes");
    // SAFETY: the address is 16 bytes that live until the call is over.
    Errno::result(unsafe { libc::connect(socket.as_raw_fd(), &raw const nothing, size) }).map(drop)
}

/// Says `attack WAY` and waits for the same to come back.
fn echo(socket: &OwnedFd, way: &str) -> Result<(), Errno> {
    // A whole line: half of one could still become a request, for which the gate waits.
    let words = format!("attack {way}\n");
    // That one has said it with its first packet.
    if way != "fastopen" {
        send(socket.as_raw_fd(), words.as_bytes(), MsgFlags::MSG_NOSIGNAL)?;
    }
    let mut answer = [0; 64];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    if answer[..length] == *words.as_bytes() { Ok(()) } else { Err(Errno::EBADMSG) }
}

/// The address is harmless when the call begins, and is not, and is: another thread changes it all the time.
fn swap(to: SocketAddr, other: SocketAddr) {
    let (SocketAddr::V4(to), SocketAddr::V4(other)) = (to, other) else { return };
    let words = [other, to].map(|address| u32::from_ne_bytes(address.ip().octets()));
    let (address, stop) = (AtomicU32::new(words[0]), AtomicBool::new(false));
    let mut reached = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                address.store(words[0], Ordering::SeqCst);
                address.store(words[1], Ordering::SeqCst);
            }
        });
        for _ in 0..ROUNDS {
            let Ok(socket) = stream(to.into()) else { continue };
            if racing(&socket, to.port(), &address).is_ok() && echo(&socket, "swap").is_ok() {
                reached += 1;
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    // By whom, the hosts know.
    say(&format!("swap: {reached} of {ROUNDS} were answered"));
}

/// connect(2) with an address that somebody is changing.
fn racing(socket: &OwnedFd, port: u16, address: &AtomicU32) -> Result<(), Errno> {
    // A sockaddr_in in two words: family and port, then the address, which is the other thread's to write.
    #[repr(C)]
    struct Shared([AtomicU32; 4]);
    let family = u16::try_from(libc::AF_INET).expect("2").to_ne_bytes();
    let port = port.to_be_bytes();
    let first = u32::from_ne_bytes([family[0], family[1], port[0], port[1]]);
    let shared = Shared([first, 0, 0, 0].map(AtomicU32::new));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                shared.0[1].store(address.load(Ordering::Relaxed), Ordering::SeqCst);
            }
        });
        shared.0[1].store(address.load(Ordering::Relaxed), Ordering::SeqCst);
        // SAFETY: the kernel reads 16 bytes that live until the threads have ended; the other thread writes one aligned
        // word of them, which is the attack.
        let result = unsafe { libc::connect(socket.as_raw_fd(), (&raw const shared).cast(), 16) };
        let result = Errno::result(result).map(drop);
        done.store(true, Ordering::Relaxed);
        result
    })
}

/// One source port, connections to one and the other in turn, each ended by a reset at once or after its words: whoever
/// keeps destinations by source address mixes them up.
fn reuse(to: SocketAddr, other: SocketAddr) {
    let mut reached = 0;
    for round in 0..ROUNDS {
        let target = if round % 2 == 0 { other } else { to };
        let Ok(socket) = stream(target) else { continue };
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        let prepared = setsockopt(&socket, sockopt::ReuseAddr, &true)
            .and_then(|()| setsockopt(&socket, sockopt::Linger, &linger))
            .and_then(|()| bind(socket.as_raw_fd(), &storage("0.0.0.0:40405".parse().expect("an address"))))
            .and_then(|()| connect(socket.as_raw_fd(), &storage(target)));
        // Every third one goes without a word.
        if prepared.is_ok() && round % 3 != 0 {
            let words = if target == to { "reuse" } else { "other" };
            if echo(&socket, words).is_ok() {
                reached += 1;
            }
        }
    }
    say(&format!("reuse: {reached} of {ROUNDS} were answered"));
}
