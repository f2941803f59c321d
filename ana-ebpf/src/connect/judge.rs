//! What becomes of a connection or a datagram: a few look-ups, no waiting.

use ana_common::network::{
    Endpoint, NETWORK_CAPTURE_ALL, NETWORK_DNS, NETWORK_DOT_REFUSED, NETWORK_LOOPBACK_ANY, NETWORK_NO_ROUTE4,
    NETWORK_NO_ROUTE6, NETWORK_QUIC_ALLOWED, Network, ORIGIN_DNS, ORIGIN_LOCAL, ORIGIN_UDP, REFUSED_DOT,
    REFUSED_PROXY, REFUSED_QUIC, REFUSED_UDP_DEFAULT, REFUSED_UDP_LOCAL, REFUSED_UDP_PROTECTED,
};
use aya_ebpf::{EbpfContext, cty::c_void, programs::SockAddrContext};

use crate::{
    destination::{Place, is_inspected, is_protected, is_protected_somewhere, is_proxy, is_v4, place},
    listener::{Listener, Transport, Tuple, listener},
};

const DNS: u32 = 53;
const DNS_OVER_TLS: u32 = 853;

/// A value of its own and not in the variants: one that is not set would not pass the verifier.
#[derive(Clone, Copy)]
pub struct Verdict {
    pub what: What,
    /// Of a redirection the flags of its origin, of a refusal the reason (`REFUSED_*`).
    pub value: u32,
    /// Of a redirection the listener that would have answered: [`Found::inode`].
    pub listener: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum What {
    Pass,
    /// To this host, where a listener of the session or nobody was found: to be looked at again when the packet leaves.
    PassLocal,
    /// To the proxy.
    Redirect,
    Refuse,
    /// As the kernel would say.
    NoRoute,
}

const PASS: Verdict = Verdict { what: What::Pass, value: 0, listener: 0 };
const PASS_LOCAL: Verdict = Verdict { what: What::PassLocal, value: 0, listener: 0 };
const NO_ROUTE: Verdict = Verdict { what: What::NoRoute, value: 0, listener: 0 };

#[inline(always)]
const fn redirect(flags: u32) -> Verdict {
    Verdict { what: What::Redirect, value: flags, listener: 0 }
}

#[inline(always)]
const fn refuse(why: u32) -> Verdict {
    Verdict { what: What::Refuse, value: why, listener: 0 }
}

#[inline(always)]
pub fn judge_tcp(ctx: &SockAddrContext, network: Network, to: &Endpoint) -> Verdict {
    if is_proxy(network, to) {
        return refuse(REFUSED_PROXY);
    }
    let set = |flag| network.flags & flag != 0;
    if is_question(network, to) {
        return redirect(ORIGIN_DNS);
    }
    if to.port == DNS_OVER_TLS && set(NETWORK_DOT_REFUSED) {
        return refuse(REFUSED_DOT);
    }
    // (Nothing of TCP goes to everybody: the kernel refuses.)
    if place(&to.addr) == Place::Here {
        if set(NETWORK_LOOPBACK_ANY) {
            return PASS;
        }
        // SAFETY: the context of the running program.
        let found = unsafe { listener(ctx.as_ptr(), Transport::Tcp, &Tuple::towards(to)) };
        return match found.who {
            Listener::Nobody | Listener::Session => PASS_LOCAL,
            Listener::Outside => Verdict { listener: found.inode, ..redirect(ORIGIN_LOCAL) },
        };
    }
    if !(set(NETWORK_CAPTURE_ALL) || is_inspected(to.port) || is_protected(to)) {
        return PASS;
    }
    let no_route = if is_v4(&to.addr) { NETWORK_NO_ROUTE4 } else { NETWORK_NO_ROUTE6 };
    if set(no_route) { NO_ROUTE } else { redirect(0) }
}

/// Asks the name server that is redirected.
#[inline(always)]
pub fn is_question(network: Network, to: &Endpoint) -> bool {
    to.port == DNS && network.flags & NETWORK_DNS != 0
}

/// Broadcast or multicast, and local services are protected: whoever listens at 0.0.0.0 or :: hears it.
#[inline(always)]
pub fn is_for_everybody(network: Network, to: &Endpoint) -> bool {
    network.flags & NETWORK_LOOPBACK_ANY == 0 && place(&to.addr) == Place::Everybody
}

/// `ctx` is the context of the running program. Where the packet comes from may be unknown yet.
#[inline(always)]
pub fn judge_udp(ctx: *mut c_void, network: Network, tuple: &Tuple) -> Verdict {
    let to = &tuple.to();
    if is_proxy(network, to) {
        return refuse(REFUSED_PROXY);
    }
    let set = |flag| network.flags & flag != 0;
    if is_question(network, to) {
        return redirect(ORIGIN_DNS | ORIGIN_UDP);
    }
    if to.port == DNS_OVER_TLS && set(NETWORK_DOT_REFUSED) {
        return refuse(REFUSED_DOT);
    }
    let any = set(NETWORK_LOOPBACK_ANY);
    match place(&to.addr) {
        Place::Here if any => return PASS,
        Place::Here => {
            // SAFETY: the caller's context is that of the running program.
            return match unsafe { listener(ctx, Transport::Udp, tuple) }.who {
                Listener::Nobody | Listener::Session => PASS_LOCAL,
                Listener::Outside => refuse(REFUSED_UDP_LOCAL),
            };
        }
        // Whoever else may hear it: that only the session does cannot be told.
        Place::Everybody if !any => return refuse(REFUSED_UDP_LOCAL),
        Place::Everybody | Place::Elsewhere => {}
    }
    if is_protected(to) {
        return refuse(REFUSED_UDP_PROTECTED);
    }
    if is_inspected(to.port) && !set(NETWORK_QUIC_ALLOWED) {
        return refuse(REFUSED_QUIC);
    }
    if set(NETWORK_CAPTURE_ALL) { refuse(REFUSED_UDP_DEFAULT) } else { PASS }
}

/// Echo requests carry bytes, and their answers as well.
#[inline(always)]
pub fn is_refused_echo(network: Network, addr: &[u32; 4]) -> bool {
    let set = |flag| network.flags & flag != 0;
    let near = place(addr) != Place::Elsewhere && !set(NETWORK_LOOPBACK_ANY);
    set(NETWORK_CAPTURE_ALL) || near || is_protected_somewhere(addr)
}
