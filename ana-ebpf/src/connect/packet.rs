//! The head of a packet that leaves. It is read where it lies: the programs run for every packet.

use core::ptr::{addr_of, read_volatile};

use aya_ebpf::programs::SkBuffContext;

use crate::{destination::v4, listener::Tuple};

/// Version 4 and a head of five words: without options.
const PLAIN4: u8 = 0x45;
const HEAD4: usize = 20;
const HEAD6: usize = 40;
/// The options that stand before all others (RFC 8200); one of them is the length of a large packet (RFC 2675).
const HOP_BY_HOP: u8 = 0;

/// The word of four bytes at this place of a packet that is at least as long.
macro_rules! word {
    ($at:expr, $offset:expr) => {
        // SAFETY: the caller has compared the place with the packet's end.
        unsafe { read_volatile(($at + $offset) as *const u32) }
    };
}

macro_rules! byte {
    ($at:expr, $offset:expr) => {
        // SAFETY: as above.
        unsafe { read_volatile(($at + $offset) as *const u8) }
    };
}

macro_rules! port {
    ($at:expr, $offset:expr) => {
        // SAFETY: as above.
        unsafe { read_volatile(($at + $offset) as *const u16) }
    };
}

macro_rules! address6 {
    ($at:expr, $offset:expr) => {
        [word!($at, $offset), word!($at, $offset + 4), word!($at, $offset + 8), word!($at, $offset + 12)]
    };
}

/// Where the packet starts and ends, as far as it lies in one piece. Its head does.
#[inline(always)]
fn bounds(ctx: &SkBuffContext) -> (usize, usize) {
    // SAFETY: the context is valid for the whole run.
    unsafe {
        (
            read_volatile(addr_of!((*ctx.skb.skb).data)) as usize,
            read_volatile(addr_of!((*ctx.skb.skb).data_end)) as usize,
        )
    }
}

/// Addresses and ports. `None`: neither IPv4 nor IPv6, or something lies between the addresses and the ports: with a source
/// route the packet does not go where it says.
#[inline(always)]
pub fn tuple(ctx: &SkBuffContext, protocol: u8) -> Option<Tuple> {
    let (at, end) = bounds(ctx);
    if at + HEAD4 + 4 > end {
        return None;
    }
    if byte!(at, 0) == PLAIN4 {
        if byte!(at, 9) != protocol {
            return None;
        }
        return Some(Tuple {
            source: v4(word!(at, 12)),
            destination: v4(word!(at, 16)),
            source_port: port!(at, HEAD4),
            destination_port: port!(at, HEAD4 + 2),
        });
    }
    if at + HEAD6 + 4 > end || byte!(at, 0) >> 4 != 6 || byte!(at, 6) != protocol {
        return None;
    }
    Some(Tuple {
        source: address6!(at, 8),
        destination: address6!(at, 24),
        source_port: port!(at, HEAD6),
        destination_port: port!(at, HEAD6 + 2),
    })
}

/// Where a packet without ports goes. `None`: as above.
#[inline(always)]
pub fn destination(ctx: &SkBuffContext, protocol: u8) -> Option<[u32; 4]> {
    let (at, end) = bounds(ctx);
    if at + HEAD4 > end {
        return None;
    }
    if byte!(at, 0) == PLAIN4 {
        return (byte!(at, 9) == protocol).then(|| v4(word!(at, 16)));
    }
    if at + HEAD6 > end || byte!(at, 0) >> 4 != 6 || byte!(at, 6) != protocol {
        return None;
    }
    Some(address6!(at, 24))
}

/// Whether it goes where its head says: no source route, no options. Of IPv6 a length of its own is none.
#[inline(always)]
pub fn is_plain(ctx: &SkBuffContext, protocol: u8) -> bool {
    let (at, end) = bounds(ctx);
    if at + HEAD4 > end {
        return false;
    }
    let first = byte!(at, 0);
    if first == PLAIN4 {
        return byte!(at, 9) == protocol;
    }
    if at + HEAD6 + 1 > end || first >> 4 != 6 {
        return false;
    }
    let next = byte!(at, 6);
    next == protocol || next == HOP_BY_HOP && byte!(at, HEAD6) == protocol
}
