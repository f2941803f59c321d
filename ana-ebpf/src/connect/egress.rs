//! cgroup_skb/egress: a packet of the session leaves. Looked at closer are the first packet of a connection to this host, and
//! UDP: what other hooks could not know yet. Everything else passes after three loads.

use core::ptr::{addr_of, read_volatile};

use ana_common::network::{Endpoint, Network, ORIGIN_DNS, REFUSED_LISTENER, REFUSED_STALE, Socket};
use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_TCP_SYN_SENT, bpf_sock},
    helpers::generated::bpf_sk_fullsock,
    macros::cgroup_skb,
    programs::SkBuffContext,
};

use crate::{
    answer::network,
    connect::{TCP, UDP},
    destination::is_proxy,
    listener::{Listener, Transport, listener},
    maps::UDP_ORIGINS,
    packet::tuple,
    process::Process,
    publish::publish,
    report::report,
    socket::{known, remote},
};

const PASS: i32 = 1;
const DROP: i32 = 0;
/// Of the loopback device, in every network namespace.
const LOOPBACK: u32 = 1;
/// Of a UDP socket that is connected (`TCP_ESTABLISHED`).
const CONNECTED: u32 = 1;

#[cgroup_skb(egress)]
pub fn egress(ctx: SkBuffContext) -> i32 {
    // SAFETY: the context is valid for the whole run.
    let sk = unsafe { read_volatile(addr_of!((*ctx.skb.skb).__bindgen_anon_2.sk)) };
    if sk.is_null() {
        return PASS;
    }
    // SAFETY: a socket of the context, and not null.
    let sk = unsafe { bpf_sk_fullsock(sk) };
    if sk.is_null() {
        // What is left of a closed connection.
        return PASS;
    }
    // SAFETY: a whole socket.
    let (protocol, state) =
        unsafe { (read_volatile(addr_of!((*sk).protocol)), read_volatile(addr_of!((*sk).state))) };
    match protocol {
        TCP if state == BPF_TCP_SYN_SENT => starts(&ctx, sk),
        UDP => datagram(&ctx, sk, state == CONNECTED),
        _ => PASS,
    }
}

/// Where nobody or a listener of the session was found, nobody else may answer: not one that is bound to a device, not another
/// one of the same group (SO_REUSEPORT), not one that is new, and not a container behind an address translation.
#[inline(always)]
fn starts(ctx: &SkBuffContext, sk: *mut bpf_sock) -> i32 {
    // SAFETY: a whole socket.
    let Some(socket) = (unsafe { known(sk) }) else { return PASS };
    if socket.local == 0 {
        return PASS;
    }
    // SAFETY: the context is valid for the whole run.
    let device = unsafe { read_volatile(addr_of!((*ctx.skb.skb).ifindex)) };
    if device == LOOPBACK
        && let Some(tuple) = tuple(ctx, TCP as u8)
    {
        // SAFETY: the context of the running program.
        match unsafe { listener(ctx.as_ptr(), Transport::Tcp, &tuple) } {
            Listener::Nobody | Listener::Session => return PASS,
            Listener::Outside => {}
        }
    }
    // SAFETY: a whole socket.
    let to = unsafe { remote(sk) };
    drop_packet(socket, to, TCP, REFUSED_LISTENER)
}

#[inline(always)]
fn datagram(ctx: &SkBuffContext, sk: *mut bpf_sock, connected: bool) -> i32 {
    // Whoever sends has been through connect or sendmsg. SAFETY: a whole socket.
    let Some(socket) = (unsafe { known(sk) }) else { return DROP };
    if connected {
        // SAFETY: as above.
        let to = unsafe { remote(sk) };
        if socket.connected != to {
            return drop_packet(socket, to, UDP, REFUSED_STALE);
        }
        if socket.refused != 0 {
            return drop_packet(socket, to, UDP, socket.refused);
        }
    }
    if socket.origin.flags & ORIGIN_DNS != 0
        && let Some(network) = network()
    {
        asks(ctx, network, socket);
    }
    PASS
}

/// Tells the stub resolver which name server this socket asks.
#[inline(always)]
fn asks(ctx: &SkBuffContext, network: Network, socket: &mut Socket) {
    let Some(tuple) = tuple(ctx, UDP as u8) else { return };
    let port = |port: u16| u32::from(u16::from_be(port));
    let to = Endpoint { addr: tuple.destination, port: port(tuple.destination_port) };
    if is_proxy(network, &to) {
        let peer = Endpoint { addr: tuple.source, port: port(tuple.source_port) };
        // Without an entry the stub does not answer.
        publish(&UDP_ORIGINS, socket, peer, 0);
    }
}

/// The process is the one that connected: packets are sent by others as well.
#[inline(always)]
fn drop_packet(socket: &mut Socket, to: Endpoint, protocol: u32, why: u32) -> i32 {
    if socket.told != to {
        socket.told = to;
        let origin = &socket.origin;
        let by = Process { tgid: origin.tgid, started: origin.started, exe: origin.exe };
        report(to, protocol, why, by);
    }
    DROP
}
