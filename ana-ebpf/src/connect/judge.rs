//! What becomes of a connection or a datagram: a few look-ups, no waiting.

use ana_common::network::{
    Endpoint, NETWORK_CAPTURE_ALL, NETWORK_DNS, NETWORK_DOT_REFUSED, NETWORK_LOOPBACK_ANY, NETWORK_NO_ROUTE4,
    NETWORK_NO_ROUTE6, NETWORK_QUIC_ALLOWED, Network, ORIGIN_DNS, ORIGIN_LOCAL, ORIGIN_UDP, REFUSED_DOT,
    REFUSED_PROXY, REFUSED_QUIC, REFUSED_UDP_DEFAULT, REFUSED_UDP_LOCAL, REFUSED_UDP_PROTECTED,
};
use aya_ebpf::{EbpfContext, cty::c_void, programs::SockAddrContext};

use crate::{
    destination::{is_inspected, is_local, is_protected, is_proxy, is_v4},
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

const PASS: Verdict = Verdict { what: What::Pass, value: 0 };
const PASS_LOCAL: Verdict = Verdict { what: What::PassLocal, value: 0 };
const NO_ROUTE: Verdict = Verdict { what: What::NoRoute, value: 0 };

#[inline(always)]
const fn redirect(flags: u32) -> Verdict {
    Verdict { what: What::Redirect, value: flags }
}

#[inline(always)]
const fn refuse(why: u32) -> Verdict {
    Verdict { what: What::Refuse, value: why }
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
    if is_local(&to.addr) {
        if set(NETWORK_LOOPBACK_ANY) {
            return PASS;
        }
        // SAFETY: the context of the running program.
        return match unsafe { listener(ctx.as_ptr(), Transport::Tcp, &Tuple::towards(to)) } {
            Listener::Nobody | Listener::Session => PASS_LOCAL,
            Listener::Outside => redirect(ORIGIN_LOCAL),
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
    if is_local(&to.addr) {
        if set(NETWORK_LOOPBACK_ANY) {
            return PASS;
        }
        // SAFETY: the caller's context is that of the running program.
        return match unsafe { listener(ctx, Transport::Udp, tuple) } {
            Listener::Nobody | Listener::Session => PASS_LOCAL,
            Listener::Outside => refuse(REFUSED_UDP_LOCAL),
        };
    }
    if is_protected(to) {
        return refuse(REFUSED_UDP_PROTECTED);
    }
    if is_inspected(to.port) && !set(NETWORK_QUIC_ALLOWED) {
        return refuse(REFUSED_QUIC);
    }
    if set(NETWORK_CAPTURE_ALL) { refuse(REFUSED_UDP_DEFAULT) } else { PASS }
}
