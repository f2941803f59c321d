//! cgroup/sock_create: socket(2) of IPv4 and IPv6. What has no hooks of its own is not for sessions.

use core::ptr::{addr_of, read_volatile};

use ana_common::network::{Endpoint, REFUSED_PROTOCOL};
use aya_ebpf::{macros::cgroup_sock, programs::SockContext};

use crate::{
    answer::{ALLOW, fail},
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
        (SOCK_STREAM, TCP) | (SOCK_DGRAM, UDP | ICMP | ICMP6) => ALLOW,
        _ => {
            report(Endpoint::default(), protocol, REFUSED_PROTOCOL, current());
            fail(EPROTONOSUPPORT)
        }
    }
}
