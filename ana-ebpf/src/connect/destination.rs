//! What an address means.

use ana_common::network::{Endpoint, LOCAL_BROADCAST, Network, SetPort};
use aya_ebpf::maps::lpm_trie::Key;

use crate::maps::{LOCAL, PORT_SETS, PORTS, PROTECTED4, PROTECTED6};

/// 127.0.0.1 in network byte order.
const LOOPBACK4: u32 = 0x7f00_0001u32.to_be();
/// 127.255.255.255.
const LOOPBACK_BROADCAST4: u32 = 0x7fff_ffffu32.to_be();
const BROADCAST4: u32 = u32::MAX;
/// The third word of ::ffff:a.b.c.d.
const MAPPED: u32 = 0x0000_ffffu32.to_be();
/// The last word of ::1.
const ONE: u32 = 1u32.to_be();
const LOOPBACK6: [u32; 4] = [0, 0, 0, ONE];
/// The first word of 64:ff9b::/96, behind which a gateway reaches IPv4 hosts (RFC 6052).
const NAT64: u32 = 0x0064_ff9bu32.to_be();

#[inline(always)]
pub const fn v4(ip: u32) -> [u32; 4] {
    [0, 0, MAPPED, ip]
}

#[inline(always)]
pub fn is_v4(addr: &[u32; 4]) -> bool {
    addr[0] == 0 && addr[1] == 0 && addr[2] == MAPPED
}

#[inline(always)]
fn is_loopback6(addr: &[u32; 4]) -> bool {
    addr[0] == 0 && addr[1] == 0 && addr[2] == 0 && addr[3] == ONE
}

/// The address that the kernel connects to when it is asked for this one: 0.0.0.0 and :: are the loopback address. The rest
/// of 0/8 reaches nothing, and is treated alike.
#[inline(always)]
pub fn normalised(asked: Endpoint, bound_to_v4: bool) -> Endpoint {
    let addr = asked.addr;
    if is_v4(&addr) {
        let any = addr[3] & 0xffu32 == 0;
        return if any { Endpoint { addr: v4(LOOPBACK4), port: asked.port } } else { asked };
    }
    if addr[0] == 0 && addr[1] == 0 && addr[2] == 0 && addr[3] == 0 {
        // A socket that is bound to an IPv4-mapped address stays with IPv4.
        let addr = if bound_to_v4 { v4(LOOPBACK4) } else { LOOPBACK6 };
        return Endpoint { addr, port: asked.port };
    }
    asked
}

/// Where the proxy listens for what was meant to go to `addr`.
#[inline(always)]
pub fn proxy(network: Network, addr: &[u32; 4]) -> Endpoint {
    let addr = if is_v4(addr) { v4(LOOPBACK4) } else { LOOPBACK6 };
    Endpoint { addr, port: network.proxy_port }
}

/// The proxy itself, by any of its names.
#[inline(always)]
pub fn is_proxy(network: Network, to: &Endpoint) -> bool {
    let Network { proxy_port, .. } = network;
    proxy_port != 0
        && to.port == proxy_port
        && (is_loopback6(&to.addr) || (is_v4(&to.addr) && to.addr[3] == LOOPBACK4))
}

/// Where an address leads.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Elsewhere,
    /// To this host.
    Here,
    /// To everybody who listens, on this host too: broadcast and multicast.
    Everybody,
}

#[inline(always)]
pub fn place(addr: &[u32; 4]) -> Place {
    if is_v4(addr) {
        let first = addr[3] & 0xff;
        if addr[3] == BROADCAST4 || addr[3] == LOOPBACK_BROADCAST4 || first & 0xf0 == 0xe0 {
            return Place::Everybody;
        }
        if first == 127 {
            // There may be networks of their own in there.
            return if told(addr) == LOCAL_BROADCAST { Place::Everybody } else { Place::Here };
        }
    } else if addr[0] & 0xff == 0xff {
        return Place::Everybody;
    } else if is_loopback6(addr) {
        return Place::Here;
    }
    match told(addr) {
        0 => Place::Elsewhere,
        LOCAL_BROADCAST => Place::Everybody,
        _ => Place::Here,
    }
}

/// 0: nothing.
#[inline(always)]
fn told(addr: &[u32; 4]) -> u8 {
    // SAFETY: one byte, copied at once.
    unsafe { LOCAL.get(addr) }.copied().unwrap_or(0)
}

/// A port on which names are inspected.
#[inline(always)]
pub fn is_inspected(port: u32) -> bool {
    // SAFETY: the entry is not read, only its presence counts.
    unsafe { PORTS.get(port) }.is_some()
}

/// In a protected network, and on one of its ports.
#[inline(always)]
pub fn is_protected(to: &Endpoint) -> bool {
    let addr = to.addr;
    if is_v4(&addr) {
        return in_network4(addr[3], to.port);
    }
    if addr[0] == NAT64 && addr[1] == 0 && addr[2] == 0 && in_network4(addr[3], to.port) {
        return true;
    }
    match PROTECTED6.get(Key::new(128, addr)) {
        Some(&set) => has_port(set, to.port),
        None => false,
    }
}

/// In a protected network, on whichever of its ports.
#[inline(always)]
pub fn is_protected_somewhere(addr: &[u32; 4]) -> bool {
    if is_v4(addr) {
        return PROTECTED4.get(Key::new(32, addr[3])).is_some();
    }
    if addr[0] == NAT64 && addr[1] == 0 && addr[2] == 0 && PROTECTED4.get(Key::new(32, addr[3])).is_some() {
        return true;
    }
    PROTECTED6.get(Key::new(128, *addr)).is_some()
}

#[inline(always)]
fn in_network4(ip: u32, port: u32) -> bool {
    match PROTECTED4.get(Key::new(32, ip)) {
        Some(&set) => has_port(set, port),
        None => false,
    }
}

#[inline(always)]
fn has_port(set: u32, port: u32) -> bool {
    // SAFETY: as above.
    unsafe {
        PORT_SETS.get(SetPort { set, port: 0 }).is_some() || PORT_SETS.get(SetPort { set, port }).is_some()
    }
}
