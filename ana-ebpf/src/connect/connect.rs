//! cgroup/connect4, cgroup/connect6: connect(2), and sendmsg(2) with MSG_FASTOPEN, of TCP and UDP, after the address was copied
//! into the kernel. IPv4-mapped addresses of TCP come to connect6.

use ana_common::network::{
    Endpoint, Network, ORIGIN_DNS, ORIGIN_UDP, Origin, REFUSED_PROXY, REFUSED_UDP_LOCAL,
};
use aya_ebpf::{bindings::bpf_sock, macros::cgroup_sock_addr, programs::SockAddrContext};

use crate::{
    address::{self, Family, protocol},
    answer::{ALLOW, REFUSE, fail, network, note, redirect, refuse, refuse_unknown},
    destination::{is_proxy, normalised},
    judge::{What, is_for_everybody, is_question, judge_tcp},
    socket::{is_bound_to_v4, known, made},
};

pub const TCP: u32 = 6;
pub const UDP: u32 = 17;
pub const ICMP: u32 = 1;
pub const ICMP6: u32 = 58;
const ENETUNREACH: i32 = 101;

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    connect(&ctx, Family::V4)
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    connect(&ctx, Family::V6)
}

#[inline(always)]
fn connect(ctx: &SockAddrContext, family: Family) -> i32 {
    let Some(network) = network() else { return REFUSE };
    let sk = address::socket(ctx);
    // SAFETY: the socket of the context.
    let bound_to_v4 = family == Family::V6 && unsafe { is_bound_to_v4(sk) };
    let to = normalised(address::read(ctx, family), bound_to_v4);
    match protocol(ctx) {
        TCP => connect_tcp(ctx, family, network, sk, to),
        UDP => connect_udp(ctx, family, network, sk, to),
        // An echo request.
        ICMP | ICMP6 => ALLOW,
        // Such a socket cannot be made in a session.
        _ => REFUSE,
    }
}

/// What passes costs no more than the look-ups: nothing is kept with its socket.
#[inline(always)]
fn connect_tcp(
    ctx: &SockAddrContext,
    family: Family,
    network: Network,
    sk: *mut bpf_sock,
    to: Endpoint,
) -> i32 {
    // SAFETY: the socket of the context.
    if let Some(socket) = unsafe { known(sk) } {
        // Of an earlier connection.
        socket.local = 0;
        socket.origin = Origin::default();
    }
    let verdict = judge_tcp(ctx, network, &to);
    match verdict.what {
        What::Pass => return ALLOW,
        What::NoRoute => return fail(ENETUNREACH),
        What::PassLocal | What::Redirect | What::Refuse => {}
    }
    // SAFETY: as above.
    let Some(socket) = (unsafe { made(sk) }) else { return refuse_unknown(ctx, to) };
    match verdict.what {
        What::PassLocal => {
            // Who asked, should another one answer.
            note(ctx, socket, Endpoint::default(), 0);
            socket.local = 1;
            ALLOW
        }
        What::Redirect => match redirect(ctx, family, network, socket, to, verdict.value) {
            Ok(()) => {
                socket.origin.listener = verdict.listener;
                ALLOW
            }
            Err(refused) => refused,
        },
        What::Refuse => refuse(ctx, socket, to, verdict.value),
        What::Pass | What::NoRoute => REFUSE,
    }
}

/// To connect sends nothing, and resolvers do it to every address that they find, to sort them: what is refused are packets
/// (egress).
#[inline(always)]
fn connect_udp(
    ctx: &SockAddrContext,
    family: Family,
    network: Network,
    sk: *mut bpf_sock,
    to: Endpoint,
) -> i32 {
    // SAFETY: the socket of the context.
    let Some(socket) = (unsafe { made(sk) }) else { return refuse_unknown(ctx, to) };
    if is_proxy(network, &to) {
        return refuse(ctx, socket, to, REFUSED_PROXY);
    }
    if !is_question(network, &to) {
        // Of what is sent to everybody this host gets a copy, which does not come by when it leaves.
        if is_for_everybody(network, &to) {
            return refuse(ctx, socket, to, REFUSED_UDP_LOCAL);
        }
        socket.origin.flags = 0;
        socket.origin.destination = Endpoint::default();
        return ALLOW;
    }
    match redirect(ctx, family, network, socket, to, ORIGIN_DNS | ORIGIN_UDP) {
        Ok(()) => ALLOW,
        Err(refused) => refused,
    }
}
