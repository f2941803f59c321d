//! What comes over the cable to the hosts, every frame of it: the proof that nothing was sent, not even a SYN.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use nix::sys::{
    socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt},
    time::TimeVal,
};

/// So much of a frame is looked at.
const LENGTH: usize = 256;

/// One packet to a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// IPPROTO_*.
    pub protocol: u8,
    pub from: IpAddr,
    pub to: IpAddr,
    /// Of protocols that have ports.
    pub port: u16,
    /// The bytes after the IP header, the first of them.
    pub bytes: Vec<u8>,
}

/// Listens on the hosts' namespace until it is dropped.
pub(super) struct Tap {
    packets: Arc<Mutex<Vec<Packet>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Tap {
    /// Call it inside of the namespace. Packets to anything else are not kept.
    pub(super) fn start(is_host: impl Fn(IpAddr) -> bool + Send + 'static) -> Self {
        let socket =
            socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)
                .expect("root may listen to everything");
        // A burst of a gigabyte may lose frames; one SYN may not be lost behind it.
        setsockopt(&socket, sockopt::RcvBufForce, &(8 << 20)).expect("root may have a large buffer");
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, 50_000)).expect("a timeout");
        let (packets, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (kept, stopped) = (Arc::clone(&packets), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut frame = [0; LENGTH];
            while !stopped.load(Ordering::Relaxed) {
                let Ok(length) = recv(socket.as_raw_fd(), &mut frame, MsgFlags::empty()) else { continue };
                let packet = parse(&frame[..length.min(LENGTH)]);
                if let Some(packet) = packet.filter(|packet| is_host(packet.to)) {
                    kept.lock().expect("nobody panics with it").push(packet);
                }
            }
        });
        Self { packets, stop, thread: Some(thread) }
    }

    /// Listens no longer.
    pub(super) fn end(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Everything so far. What was sent before this call is in it: a veth delivers at once, and the thread that
    /// listens gets some time.
    pub(super) fn packets(&self) -> Vec<Packet> {
        self.packets.lock().expect("nobody panics with it").clone()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

/// An Ethernet frame with IPv4 or IPv6 in it.
fn parse(frame: &[u8]) -> Option<Packet> {
    let (kind, packet) = (frame.get(12..14)?, frame.get(14..)?);
    let (protocol, from, to, rest): (u8, IpAddr, IpAddr, &[u8]) = match kind {
        [0x08, 0x00] => {
            let header = usize::from(packet.first()? & 15) * 4;
            let address = |at: usize| -> Option<IpAddr> {
                let bytes: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
                Some(Ipv4Addr::from(bytes).into())
            };
            (*packet.get(9)?, address(12)?, address(16)?, packet.get(header..)?)
        }
        [0x86, 0xdd] => {
            let address = |at: usize| -> Option<IpAddr> {
                let bytes: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
                Some(Ipv6Addr::from(bytes).into())
            };
            (*packet.get(6)?, address(8)?, address(24)?, packet.get(40..)?)
        }
        _ => return None,
    };
    let port = rest.get(2..4).map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    Some(Packet { protocol, from, to, port, bytes: rest.to_vec() })
}
