//! What the connect gate's programs refused, in order.

use std::net::SocketAddr;

use ana_common::network::{
    REFUSED_DEVICE, REFUSED_DOT, REFUSED_ECHO, REFUSED_FULL, REFUSED_LISTENER, REFUSED_PACKET,
    REFUSED_PROTOCOL, REFUSED_PROXY, REFUSED_QUIC, REFUSED_UDP_DEFAULT, REFUSED_UDP_LOCAL,
    REFUSED_UDP_PROTECTED, Refused,
};

use super::super::{FileKey, KernelError, ring::Ring};

/// Something that was refused in the kernel: nobody was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Normalised: 0/8 and :: are the loopback address, IPv4 is IPv4. `None`: the socket was not made.
    pub destination: Option<SocketAddr>,
    /// `IPPROTO_*`: 6, 17, or what a socket was asked for of.
    pub protocol: u32,
    pub reason: RefusalReason,
    /// The process, in the initial pid namespace.
    pub tgid: u32,
    /// Field 22 of /proc/PID/stat. 0: unreadable.
    pub started: u64,
    /// What the process executed last. Zero: unreadable.
    pub exe: FileKey,
    /// Nanoseconds of CLOCK_BOOTTIME.
    pub boot_ns: u64,
}

/// Why the kernel refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalReason {
    /// The hold proxy itself was the destination.
    Proxy,
    /// UDP to a protected address.
    UdpProtected,
    /// UDP to a port on which names are inspected.
    Quic,
    /// Port 853.
    EncryptedDns,
    /// UDP to a listener on this host, outside of the session, or to all who listen (broadcast, multicast).
    UdpLocal,
    /// UDP, where every destination is judged.
    UdpDefault,
    /// A socket of a protocol or type that is not for sessions.
    Protocol,
    /// The origin could not be kept, there is no proxy, or as many wait as may.
    Full,
    /// To be redirected, but bound to a network device.
    Device,
    /// Another listener would have answered than the one of the session that was found.
    Listener,
    /// A packet that does not say plainly where it goes.
    Packet,
    /// An echo request (ping).
    Echo,
    /// Of another version.
    Unknown(u32),
}

impl RefusalReason {
    fn decode(why: u32) -> Self {
        match why {
            REFUSED_PROXY => Self::Proxy,
            REFUSED_UDP_PROTECTED => Self::UdpProtected,
            REFUSED_QUIC => Self::Quic,
            REFUSED_DOT => Self::EncryptedDns,
            REFUSED_UDP_LOCAL => Self::UdpLocal,
            REFUSED_UDP_DEFAULT => Self::UdpDefault,
            REFUSED_PROTOCOL => Self::Protocol,
            REFUSED_FULL => Self::Full,
            REFUSED_DEVICE => Self::Device,
            REFUSED_LISTENER => Self::Listener,
            REFUSED_PACKET => Self::Packet,
            REFUSED_ECHO => Self::Echo,
            other => Self::Unknown(other),
        }
    }

    /// For people and for records.
    pub fn text(self) -> &'static str {
        match self {
            Self::Proxy => "a connection to ana's own proxy",
            Self::UdpProtected => "UDP to a protected address",
            Self::Quic => "UDP to a port on which names are inspected (QUIC)",
            Self::EncryptedDns => "encrypted DNS (port 853)",
            Self::UdpLocal => "UDP to a service on this host, outside of the session",
            Self::UdpDefault => "UDP, where every destination is judged",
            Self::Protocol => "a socket of a protocol that is not for sessions",
            Self::Full => "the connection could not be held: no memory, no proxy, or too many that wait",
            Self::Device => "the socket is bound to a network device",
            Self::Listener => "another service would have answered than the session's own",
            Self::Packet => "a packet with a source route or other options",
            Self::Echo => "an echo request (ping), which can carry data",
            Self::Unknown(_) => "the gate refused for an unknown reason",
        }
    }
}

impl Refusal {
    pub(super) fn decode(record: &[u8]) -> Result<Self, KernelError> {
        let raw = Refused::decode(record).ok_or(KernelError::MalformedReport(record.len(), 0))?;
        let Refused { destination, protocol, why, tgid, started, exe, boot_ns } = raw;
        let none = destination == ana_common::network::Endpoint::default();
        Ok(Self {
            destination: (!none).then(|| destination.socket_address()),
            protocol,
            reason: RefusalReason::decode(why),
            tgid,
            started,
            exe,
            boot_ns,
        })
    }
}

/// The reader of the refusals.
pub type Refusals = Ring<Refusal>;
