//! What the programs of the connect gate and user space share.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::FileKey;

/// Addresses and networks that may be protected (`PROTECTED4`, `PROTECTED6`), each.
pub const NETWORKS_MAX: u32 = 65_536;
/// Ports on which names are inspected (`PORTS`).
pub const PORTS_MAX: u32 = 65_536;
/// Pairs of a set and a port (`PORT_SETS`).
pub const PORT_SETS_MAX: u32 = 65_536;
/// The host's own addresses, and those by which all hosts of a network are reached (`LOCAL`).
pub const OWN_ADDRESSES_MAX: u32 = 4096;
/// Redirected connections that nobody has accepted yet (`ORIGINS`), and sockets that asked a name server (`UDP_ORIGINS`).
pub const ORIGINS_MAX: u32 = 65_536;

/// An address and a port. IPv4 is ::ffff:a.b.c.d.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// In network byte order, as the kernel has it.
    pub addr: [u32; 4],
    /// In host byte order, the low 16 bits.
    pub port: u32,
}

impl Endpoint {
    /// The same for ::ffff:a.b.c.d and a.b.c.d. Zones and flow labels are left out.
    pub fn new(address: SocketAddr) -> Self {
        Self { addr: words(address.ip()), port: address.port().into() }
    }

    /// The endpoint as it is written: IPv4 as IPv4. (A port of more than 16 bits is none of the kernel's: 0.)
    pub fn socket_address(&self) -> SocketAddr {
        let mut octets = [0; 16];
        for (to, word) in octets.chunks_mut(4).zip(self.addr) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        let address = Ipv6Addr::from(octets).to_canonical();
        SocketAddr::new(address, u16::try_from(self.port).unwrap_or(0))
    }
}

/// The host that an address stands for: IPv4 for an IPv4-mapped address (::ffff:0:0/96) and for one under the well-known
/// prefix of NAT64 (64:ff9b::/96, RFC 6052). Any other address is its own.
pub fn canonical(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    match v6.octets() {
        [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d] => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
        _ => v6.to_canonical(),
    }
}

/// An address as the programs know it; IPv4 as ::ffff:a.b.c.d.
pub fn words(address: IpAddr) -> [u32; 4] {
    let octets = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(octets.chunks(4)) {
        let mut four = [0; 4];
        four.copy_from_slice(bytes);
        *word = u32::from_ne_bytes(four);
    }
    words
}

/// A value of `LOCAL`: one of the host's own addresses.
pub const LOCAL_OWN: u8 = 1;
/// A value of `LOCAL`: a broadcast address of a network of the host's. Every listener of the host hears what is sent there.
pub const LOCAL_BROADCAST: u8 = 2;

/// Where a redirected socket wanted to go, and who wanted it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// As asked for, normalised: 0/8 and :: are the loopback address. All zero: not redirected.
    pub destination: Endpoint,
    /// The process, in the initial pid namespace.
    pub tgid: u32,
    /// When the process started, in clock ticks (1/100 s) since boot, as field 22 of /proc/PID/stat shows it. 0: unreadable.
    pub started: u64,
    /// What the process executed last (`mm->exe_file`). Zero: unreadable.
    pub exe: FileKey,
    /// When connect(2) (of UDP without: sendmsg(2)) was called, in nanoseconds of CLOCK_BOOTTIME.
    pub boot_ns: u64,
    /// The socket's (SO_COOKIE).
    pub cookie: u64,
    /// The network namespace of the socket (SO_NETNS_COOKIE).
    pub netns: u64,
    /// With `ORIGIN_LOCAL` the listener that would have answered: its socket's inode number, as /proc/net/tcp and /proc/PID/fd
    /// show it. 0: unreadable.
    pub listener: u64,
    /// A sum of `ORIGIN_*`.
    pub flags: u32,
    /// Zero.
    pub pad: u32,
}

/// The destination is a listener on this host, outside of the session.
pub const ORIGIN_LOCAL: u32 = 1;
/// The destination is a name server: port 53.
pub const ORIGIN_DNS: u32 = 2;
/// A UDP socket.
pub const ORIGIN_UDP: u32 = 4;

/// The key of `ORIGINS` and `UDP_ORIGINS`: the peer as accept(2) or recvmsg(2) show it to the proxy.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PeerKey {
    pub peer: Endpoint,
    /// Zero.
    pub pad: u32,
    /// The network namespace (SO_NETNS_COOKIE).
    pub netns: u64,
}

/// What is kept with sockets of the session (`SOCKETS`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Socket {
    pub origin: Origin,
    /// Under which key the origin was published. All zero: it is not.
    pub published: PeerKey,
    /// What was reported last: a socket that goes on trying is reported once.
    pub told: Endpoint,
    /// TCP: not 0: the destination is on this host, and only a listener of the session may answer.
    pub local: u32,
}

/// The key of `PORT_SETS`: the port belongs to the set.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SetPort {
    pub set: u32,
    /// In host byte order. 0: every port.
    pub port: u32,
}

/// The one entry of `NETWORK`: how the session's connections are judged.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Where the hold proxy listens, on 127.0.0.1 and ::1, TCP and UDP; host byte order. 0: nowhere yet, everything that would
    /// be redirected is refused.
    pub proxy_port: u32,
    /// A sum of `NETWORK_*`.
    pub flags: u32,
}

/// Every TCP connection is redirected; of UDP only DNS passes.
pub const NETWORK_CAPTURE_ALL: u32 = 1;
/// Port 53, TCP and UDP, is redirected.
pub const NETWORK_DNS: u32 = 2;
/// Listeners on this host are not protected.
pub const NETWORK_LOOPBACK_ANY: u32 = 4;
/// UDP to a port on which names are inspected passes.
pub const NETWORK_QUIC_ALLOWED: u32 = 8;
/// Port 853, TCP and UDP, is refused.
pub const NETWORK_DOT_REFUSED: u32 = 16;
/// There is no route to any IPv4 host: what would be redirected ends in ENETUNREACH, as it would without the gate. A client
/// that sees an established connection would not try its other addresses.
pub const NETWORK_NO_ROUTE4: u32 = 32;
/// The same for IPv6.
pub const NETWORK_NO_ROUTE6: u32 = 64;

/// One record of the ring `NETWORK_REPORTS`: what was refused in the kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Normalised. All zero: of a socket that was not made.
    pub destination: Endpoint,
    /// `IPPROTO_*`.
    pub protocol: u32,
    /// `REFUSED_*`.
    pub why: u32,
    /// As in [`Origin`], and so is the rest. 0 where packets are refused that no process sends just now.
    pub tgid: u32,
    pub started: u64,
    pub exe: FileKey,
    pub boot_ns: u64,
}

/// The hold proxy itself was the destination.
pub const REFUSED_PROXY: u32 = 1;
/// UDP to a protected address.
pub const REFUSED_UDP_PROTECTED: u32 = 2;
/// UDP to a port on which names are inspected: QUIC.
pub const REFUSED_QUIC: u32 = 3;
/// Port 853.
pub const REFUSED_DOT: u32 = 4;
/// UDP to a listener on this host, outside of the session, or to all who listen (broadcast, multicast).
pub const REFUSED_UDP_LOCAL: u32 = 5;
/// UDP, where every destination is judged.
pub const REFUSED_UDP_DEFAULT: u32 = 6;
/// A socket of a protocol or type that is not for sessions.
pub const REFUSED_PROTOCOL: u32 = 7;
/// The origin could not be kept: no memory, or no proxy.
pub const REFUSED_FULL: u32 = 8;
/// To be redirected, but bound to a network device: the proxy is on the loopback device only.
pub const REFUSED_DEVICE: u32 = 9;
/// Another listener would have answered than the one of the session that was found.
pub const REFUSED_LISTENER: u32 = 10;
/// A packet with something between its addresses and its ports, such as a source route: where it goes cannot be told.
pub const REFUSED_PACKET: u32 = 11;
/// An echo request (ping), which carries bytes both ways, where every destination is judged, or to this host or a protected
/// one.
pub const REFUSED_ECHO: u32 = 12;

impl Refused {
    /// Bytes of a record in the ring.
    pub const SIZE: usize = size_of::<Self>();

    /// Reads a ring record. `None`: it is not of the size that this version writes.
    pub fn decode(record: &[u8]) -> Option<Self> {
        if record.len() != Self::SIZE {
            return None;
        }
        let word = |at: usize| Some(u32::from_ne_bytes(*record.get(at..)?.first_chunk()?));
        let long = |at: usize| Some(u64::from_ne_bytes(*record.get(at..)?.first_chunk()?));
        Some(Self {
            destination: Endpoint { addr: [word(0)?, word(4)?, word(8)?, word(12)?], port: word(16)? },
            protocol: word(20)?,
            why: word(24)?,
            tgid: word(28)?,
            started: long(32)?,
            exe: FileKey { ino: long(40)?, dev: word(48)?, pad: word(52)? },
            boot_ns: long(56)?,
        })
    }
}

const _: () = {
    assert!(size_of::<Endpoint>() == 20 && align_of::<Endpoint>() == 4);
    assert!(size_of::<Origin>() == 88 && align_of::<Origin>() == 8);
    assert!(size_of::<PeerKey>() == 32 && align_of::<PeerKey>() == 8);
    assert!(size_of::<Socket>() == 144 && align_of::<Socket>() == 8);
    assert!(size_of::<SetPort>() == 8);
    assert!(size_of::<Network>() == 8);
    assert!(Refused::SIZE == 64 && align_of::<Refused>() == 8);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_written_as_it_was() {
        for text in ["192.0.2.7:443", "[2001:db8::1]:80", "127.0.0.1:0", "[::1]:65535"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(Endpoint::new(address).socket_address(), address, "{text}");
        }
        let mapped = Endpoint::new("[::ffff:192.0.2.7]:443".parse().unwrap());
        assert_eq!(mapped, Endpoint::new("192.0.2.7:443".parse().unwrap()));
        assert_eq!(mapped.addr, [0, 0, u32::to_be(0xffff), u32::to_be(0xc000_0207)]);
    }

    #[test]
    fn an_ipv4_host_is_known_by_its_other_addresses() {
        for (shown, host) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("64:ff9b::192.0.2.7", "192.0.2.7"),
            ("64:ff9b:1::192.0.2.7", "64:ff9b:1::192.0.2.7"),
            ("64:ff9b::1:192.0.2.7", "64:ff9b::1:192.0.2.7"),
            ("2001:db8::1", "2001:db8::1"),
            ("::1", "::1"),
        ] {
            assert_eq!(canonical(shown.parse().unwrap()), host.parse::<IpAddr>().unwrap(), "{shown}");
        }
    }

    #[test]
    fn a_record_is_decoded_field_by_field() {
        let mut record = [0u8; Refused::SIZE];
        for (at, byte) in (0u8..).zip(record.iter_mut()) {
            *byte = at;
        }
        let long = |at: u8| u64::from_ne_bytes(core::array::from_fn(|i| at + u8::try_from(i).unwrap()));
        let word = |at: u8| u32::from_ne_bytes(core::array::from_fn(|i| at + u8::try_from(i).unwrap()));
        let expected = Refused {
            destination: Endpoint { addr: [word(0), word(4), word(8), word(12)], port: word(16) },
            protocol: word(20),
            why: word(24),
            tgid: word(28),
            started: long(32),
            exe: FileKey { ino: long(40), dev: word(48), pad: word(52) },
            boot_ns: long(56),
        };
        assert_eq!(Refused::decode(&record), Some(expected));
        assert_eq!(Refused::decode(&record[1..]), None);
        assert_eq!(Refused::decode(&[0; Refused::SIZE + 8]), None);
    }
}
