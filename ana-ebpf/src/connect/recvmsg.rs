//! cgroup/recvmsg4, cgroup/recvmsg6: where a datagram came from, as the process is told. An answer of the proxy is one of the
//! name server that was asked.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

use crate::{address::Family, getpeername::unveil};

#[cgroup_sock_addr(recvmsg4)]
pub fn recvmsg4(ctx: SockAddrContext) -> i32 {
    unveil(&ctx, Family::V4)
}

/// Also of IPv4 datagrams that a socket of IPv6 gets.
#[cgroup_sock_addr(recvmsg6)]
pub fn recvmsg6(ctx: SockAddrContext) -> i32 {
    unveil(&ctx, Family::V6)
}
