//! The other way to join two sockets, for `cargo xtask bench connect`: what one receives, the kernel sends on the other.
//! No part of ana (ARCHITECTURE D-056 says why).
#![no_std]
#![no_main]

use aya_ebpf::{
    bindings::sk_action,
    macros::{map, stream_verdict},
    maps::SockHash,
    programs::SkBuffContext,
};

/// A socket's own port and its peer's -> the socket that it is joined with.
#[map]
static PEERS: SockHash<[u32; 2]> = SockHash::with_max_entries(64, 0);

#[stream_verdict]
fn pass_on(ctx: SkBuffContext) -> u32 {
    // SAFETY: a program's context is valid while it runs. The peer's port is in network byte order (linux/bpf.h).
    let ports = unsafe { [(*ctx.skb.skb).local_port, u32::from_be((*ctx.skb.skb).remote_port)] };
    // SK_PASS once it is on its way, SK_DROP without a peer (bpf-helpers(7)).
    u32::try_from(PEERS.redirect_skb(&ctx, ports, 0)).unwrap_or(sk_action::SK_DROP)
}

/// No program has a path to a panic: the verifier would refuse the endless loop.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
