//! cgroup/getpeername4, cgroup/getpeername6: who is at the other end, as the process is told: who it asked for.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

use crate::{
    address::{self, Family},
    answer::{ALLOW, network},
    destination::is_proxy,
    socket::known,
};

#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(ctx: SockAddrContext) -> i32 {
    unveil(&ctx, Family::V4)
}

#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(ctx: SockAddrContext) -> i32 {
    unveil(&ctx, Family::V6)
}

/// Shows what was asked for instead of the proxy. It protects nothing: where it fails, the process sees the proxy.
#[inline(always)]
pub fn unveil(ctx: &SockAddrContext, family: Family) -> i32 {
    let Some(network) = network() else { return ALLOW };
    if !is_proxy(network, &address::read(ctx, family)) {
        return ALLOW;
    }
    // SAFETY: the socket of the context.
    if let Some(socket) = unsafe { known(address::socket(ctx)) } {
        let asked = socket.origin.destination;
        if asked.port != 0 {
            address::write(ctx, family, asked);
        }
    }
    ALLOW
}
