//! What becomes of a connection or a datagram: a few look-ups, no waiting.

use ana_common::network::{
    Endpoint, NETWORK_CAPTURE_ALL, NETWORK_DNS, NETWORK_DOT_REFUSED, NETWORK_LOOPBACK_ANY, NETWORK_NO_ROUTE4,
    NETWORK_NO_ROUTE6, NETWORK_QUIC_ALLOWED, Network, ORIGIN_DNS, ORIGIN_LOCAL, ORIGIN_UDP, REFUSED_DOT,
    REFUSED_PROXY, REFUSED_QUIC, REFUSED_UDP_DEFAULT, REFUSED_UDP_LOCAL, REFUSED_UDP_PROTECTED,
};
use aya_ebpf::{EbpfContext, programs::SockAddrContext};

use crate::{
    destination::{is_inspected, is_local, is_protected, is_proxy, is_v4},
    listener::{Listener, Transport, Tuple, listener},
};

const DNS: u32 = 53;
const DNS_OVER_TLS: u32 = 853;

pub enum Verdict {
    Pass,
    /// To this host, where a listener of the session or nobody was found: to be looked at again when the packet leaves.
    PassLocal,
    /// To the proxy; the flags of the origin.
    Redirect(u32),
    /// `REFUSED_*`
    Refuse(u32),
    /// As the kernel would say.
    NoRoute,
}

#[inline(always)]
pub fn judge_tcp(ctx: &SockAddrContext, network: Network, to: &Endpoint) -> Verdict {
    if is_proxy(network, to) {
        return Verdict::Refuse(REFUSED_PROXY);
    }
    let set = |flag| network.flags & flag != 0;
    if to.port == DNS && set(NETWORK_DNS) {
        return Verdict::Redirect(ORIGIN_DNS);
    }
    if to.port == DNS_OVER_TLS && set(NETWORK_DOT_REFUSED) {
        return Verdict::Refuse(REFUSED_DOT);
    }
    if is_local(&to.addr) {
        if set(NETWORK_LOOPBACK_ANY) {
            return Verdict::Pass;
        }
        return match at_home(ctx, Transport::Tcp, to) {
            Listener::Nobody | Listener::Session => Verdict::PassLocal,
            Listener::Outside => Verdict::Redirect(ORIGIN_LOCAL),
        };
    }
    if !(set(NETWORK_CAPTURE_ALL) || is_inspected(to.port) || is_protected(to)) {
        return Verdict::Pass;
    }
    let no_route = if is_v4(&to.addr) { NETWORK_NO_ROUTE4 } else { NETWORK_NO_ROUTE6 };
    if set(no_route) { Verdict::NoRoute } else { Verdict::Redirect(0) }
}

#[inline(always)]
pub fn judge_udp(ctx: &SockAddrContext, network: Network, to: &Endpoint) -> Verdict {
    if is_proxy(network, to) {
        return Verdict::Refuse(REFUSED_PROXY);
    }
    let set = |flag| network.flags & flag != 0;
    if to.port == DNS && set(NETWORK_DNS) {
        return Verdict::Redirect(ORIGIN_DNS | ORIGIN_UDP);
    }
    if to.port == DNS_OVER_TLS && set(NETWORK_DOT_REFUSED) {
        return Verdict::Refuse(REFUSED_DOT);
    }
    if is_local(&to.addr) {
        if set(NETWORK_LOOPBACK_ANY) {
            return Verdict::Pass;
        }
        return match at_home(ctx, Transport::Udp, to) {
            Listener::Nobody | Listener::Session => Verdict::Pass,
            Listener::Outside => Verdict::Refuse(REFUSED_UDP_LOCAL),
        };
    }
    if is_protected(to) {
        return Verdict::Refuse(REFUSED_UDP_PROTECTED);
    }
    if is_inspected(to.port) && !set(NETWORK_QUIC_ALLOWED) {
        return Verdict::Refuse(REFUSED_QUIC);
    }
    if set(NETWORK_CAPTURE_ALL) { Verdict::Refuse(REFUSED_UDP_DEFAULT) } else { Verdict::Pass }
}

/// Who on this host would answer. Where the packet comes from is not known yet.
#[inline(always)]
fn at_home(ctx: &SockAddrContext, transport: Transport, to: &Endpoint) -> Listener {
    let (source, destination) = ([0; 4], to.addr);
    let tuple = Tuple { source, destination, source_port: 0, destination_port: (to.port as u16).to_be() };
    // SAFETY: the context of the running program.
    unsafe { listener(ctx.as_ptr(), transport, &tuple) }
}
