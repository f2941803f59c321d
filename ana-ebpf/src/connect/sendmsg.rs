//! cgroup/sendmsg4, cgroup/sendmsg6: a datagram with an address of its own. A connected socket of IPv6 whose peer is an
//! IPv4-mapped address comes here with every datagram.

use ana_common::network::{Endpoint, ORIGIN_DNS, Socket};
use aya_ebpf::{EbpfContext, bindings::bpf_sock, macros::cgroup_sock_addr, programs::SockAddrContext};

use crate::{
    address::{self, Family, protocol},
    answer::{ALLOW, REFUSE, network, redirect, refuse, refuse_unknown},
    connect::UDP,
    destination::{is_proxy, normalised},
    judge::{What, judge_udp},
    listener::Tuple,
    socket::{is_bound_to_v4, made, remote},
};

#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    sendmsg(&ctx, Family::V4)
}

#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    sendmsg(&ctx, Family::V6)
}

#[inline(always)]
fn sendmsg(ctx: &SockAddrContext, family: Family) -> i32 {
    let Some(network) = network() else { return REFUSE };
    let sk = address::socket(ctx);
    // SAFETY: the socket of the context.
    let bound_to_v4 = family == Family::V6 && unsafe { is_bound_to_v4(sk) };
    let to = normalised(address::read(ctx, family), bound_to_v4);
    // SAFETY: as above.
    let Some(socket) = (unsafe { made(sk) }) else { return refuse_unknown(ctx, to) };
    if protocol(ctx) != UDP {
        return REFUSE;
    }
    if is_proxy(network, &to) && asks_again(socket, sk, &to) {
        return ALLOW;
    }
    // Judged again as a packet (egress); here it is known who sends.
    let verdict = judge_udp(ctx.as_ptr(), network, &Tuple::towards(&to));
    match verdict.what {
        What::Pass | What::PassLocal | What::NoRoute => ALLOW,
        What::Redirect => match redirect(ctx, family, network, socket, to, verdict.value) {
            Ok(()) => ALLOW,
            Err(refused) => refused,
        },
        What::Refuse => refuse(ctx, socket, to, verdict.value),
    }
}

/// Connected to a name server, which is: to the proxy.
#[inline(always)]
fn asks_again(socket: &Socket, sk: *mut bpf_sock, to: &Endpoint) -> bool {
    // SAFETY: the socket of the context.
    socket.origin.flags & ORIGIN_DNS != 0 && unsafe { remote(sk) } == *to
}
