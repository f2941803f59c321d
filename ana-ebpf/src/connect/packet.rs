//! The head of a packet that leaves.

use aya_ebpf::programs::SkBuffContext;

use crate::{destination::v4, listener::Tuple};

/// Addresses and ports. `None`: neither IPv4 nor IPv6, or something lies between the addresses and the ports.
#[inline(always)]
pub fn tuple(ctx: &SkBuffContext, protocol: u8) -> Option<Tuple> {
    let first: u8 = ctx.load(0).ok()?;
    match first >> 4 {
        4 => {
            let fields: [u32; 5] = ctx.load(0).ok()?;
            if fields[2].to_ne_bytes()[1] != protocol {
                return None;
            }
            let ports: [u16; 2] = ctx.load(usize::from(first & 0xf) * 4).ok()?;
            Some(Tuple {
                source: v4(fields[3]),
                destination: v4(fields[4]),
                source_port: ports[0],
                destination_port: ports[1],
            })
        }
        6 => {
            let next: u8 = ctx.load(6).ok()?;
            if next != protocol {
                return None;
            }
            let (source, destination) = (ctx.load(8).ok()?, ctx.load(24).ok()?);
            let ports: [u16; 2] = ctx.load(40).ok()?;
            Some(Tuple { source, destination, source_port: ports[0], destination_port: ports[1] })
        }
        _ => None,
    }
}
