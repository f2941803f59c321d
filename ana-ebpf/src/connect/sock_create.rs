//! cgroup/sock_create: socket(2) of IPv4 and IPv6. What has no hooks of its own is not for sessions.

use core::ptr::{addr_of, read_volatile};

use ana_common::network::{Endpoint, NETWORK_CAPTURE_ALL, REFUSED_PROTOCOL};
use aya_ebpf::{macros::cgroup_sock, programs::SockContext};

use crate::{
    answer::{ALLOW, fail, network},
    connect::{ICMP, ICMP6, TCP, UDP},
    process::current,
    report::report,
};

const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;
/// As if the kernel had none: programs that would like MPTCP or SCTP fall back to TCP.
const EPROTONOSUPPORT: i32 = 93;

#[cgroup_sock(sock_create)]
pub fn sock_create(ctx: SockContext) -> i32 {
    // SAFETY: the context is valid for the whole run.
    let (kind, protocol) = unsafe {
        (read_volatile(addr_of!((*ctx.sock).type_)), read_volatile(addr_of!((*ctx.sock).protocol)))
    };
    match (kind, protocol) {
        (SOCK_STREAM, TCP) | (SOCK_DGRAM, UDP) => ALLOW,
        // Where every destination is judged echo requests go nowhere; elsewhere packets are looked at (egress).
        (SOCK_DGRAM, ICMP | ICMP6) if !captures_all() => ALLOW,
        _ => {
            report(Endpoint::default(), protocol, REFUSED_PROTOCOL, current());
            fail(EPROTONOSUPPORT)
        }
    }
}

#[inline(always)]
fn captures_all() -> bool {
    network().is_none_or(|network| network.flags & NETWORK_CAPTURE_ALL != 0)
}
