//! The other way to join two sockets: in the kernel, by a map of sockets. It stands where ana's proxy stands, and decides
//! nothing.

use std::{
    io::{self, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd,
    thread,
};

use aya::{
    Ebpf,
    maps::{MapData, SockHash},
    programs::SkSkb,
};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::record;

/// Built by `cargo xtask bpf`, like ana's own.
static OBJECT: &[u8] = aya::include_bytes_aligned!("object/sockmap.bpf.o");

type Peers = SockHash<MapData, [u32; 2]>;

/// Listens at each first address and joins whoever comes with the second. One connection at a time.
pub(crate) fn relay(ways: &[(SocketAddr, SocketAddr)]) {
    for &(at, to) in ways {
        let listener = TcpListener::bind(at).expect("the port is free");
        thread::spawn(move || {
            let (_programs, mut peers) = load();
            for client in listener.incoming() {
                join(&client.expect("a connection"), to, &mut peers).expect("the hosts answer");
            }
        });
    }
}

/// What is loaded is gone with the first value.
fn load() -> (Ebpf, Peers) {
    let mut programs = Ebpf::load(OBJECT).expect("the kernel takes the program");
    let peers = programs.take_map("PEERS").expect("it is in the object");
    let peers = Peers::try_from(peers).expect("a map of sockets");
    let program: &mut SkSkb =
        programs.program_mut("pass_on").expect("it is in the object").try_into().expect("its type");
    program.load().expect("the kernel takes the program");
    program.attach(peers.fd()).expect("the map takes the program");
    (programs, peers)
}

/// From the first record on everything passes in the kernel, until the client ends. The kernel passes no end on: there is
/// none in what is measured.
fn join(mut client: &TcpStream, to: SocketAddr, peers: &mut Peers) -> io::Result<()> {
    let mut hello = vec![0; 4096];
    let length = record::read(&mut client, &mut hello, 0)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let mut server = TcpStream::connect(to)?;
    server.set_nodelay(true)?;
    // Neither of them says anything now: what has come before is not passed on.
    peers.insert(ports(client)?, server.as_raw_fd(), 0).map_err(io::Error::other)?;
    peers.insert(ports(&server)?, client.as_raw_fd(), 0).map_err(io::Error::other)?;
    server.write_all(&hello[..length])?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(client, EpollEvent::new(EpollFlags::EPOLLRDHUP, 0))?;
    epoll.wait(&mut [EpollEvent::empty()], EpollTimeout::NONE)?;
    Ok(())
}

fn ports(stream: &TcpStream) -> io::Result<[u32; 2]> {
    Ok([stream.local_addr()?.port().into(), stream.peer_addr()?.port().into()])
}
