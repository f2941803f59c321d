//! cgroup_skb/egress: a packet of the session leaves. Looked at closer are the first packet of a connection to this host, and
//! every one of UDP and every echo request: a socket's address can change between the call that was judged and its packet (connect(2) to AF_UNSPEC
//! has no hook, UDP_CORK keeps packets back). Everything else passes if it is plain to see where it goes.

use core::ptr::{addr_of, read_volatile};

use ana_common::network::{
    Endpoint, ORIGIN_DNS, Origin, REFUSED_ECHO, REFUSED_FULL, REFUSED_LISTENER, REFUSED_PACKET,
    REFUSED_PROXY, Socket,
};
use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_TCP_SYN_SENT, bpf_sock},
    helpers::generated::bpf_sk_fullsock,
    macros::cgroup_skb,
    programs::SkBuffContext,
};

use crate::{
    answer::network,
    connect::{ICMP, ICMP6, TCP, UDP},
    destination::is_proxy,
    judge::{What, is_refused_echo, judge_udp},
    listener::{Listener, Transport, Tuple, listener},
    maps::UDP_ORIGINS,
    packet::{destination, is_plain, tuple},
    process::{Process, current},
    publish::publish,
    report::report,
    socket::{known, made, remote},
};

const PASS: i32 = 1;
const DROP: i32 = 0;
/// Of the loopback device, in every network namespace.
const LOOPBACK: u32 = 1;

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
        TCP if !is_plain(&ctx, TCP as u8) => hidden(sk),
        TCP if state == BPF_TCP_SYN_SENT => starts(&ctx, sk),
        UDP => datagram(&ctx, sk),
        ICMP | ICMP6 => echo(&ctx, sk, protocol),
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
        match unsafe { listener(ctx.as_ptr(), Transport::Tcp, &tuple) }.who {
            Listener::Nobody | Listener::Session => return PASS,
            Listener::Outside => {}
        }
    }
    // SAFETY: a whole socket.
    let to = unsafe { remote(sk) };
    drop_segment(socket, to, REFUSED_LISTENER)
}

/// A connection whose packets take another way than to whom it was judged for.
#[inline(always)]
fn hidden(sk: *mut bpf_sock) -> i32 {
    // SAFETY: a whole socket.
    let (socket, to) = unsafe { (made(sk), remote(sk)) };
    let Some(socket) = socket else { return DROP };
    drop_segment(socket, to, REFUSED_PACKET)
}

#[inline(always)]
fn datagram(ctx: &SkBuffContext, sk: *mut bpf_sock) -> i32 {
    // Whoever sends has been through connect or sendmsg. SAFETY: a whole socket.
    let Some(socket) = (unsafe { known(sk) }) else { return DROP };
    let Some(network) = network() else { return DROP };
    let Some(tuple) = tuple(ctx, UDP as u8) else {
        // SAFETY: as above.
        let to = unsafe { remote(sk) };
        return drop_now(socket, &to, UDP, REFUSED_PACKET);
    };
    // SAFETY: the context is valid for the whole run.
    let device = unsafe { read_volatile(addr_of!((*ctx.skb.skb).ifindex)) };
    let to = tuple.to();
    if is_proxy(network, &to) {
        if device != LOOPBACK || socket.origin.flags & ORIGIN_DNS == 0 {
            return drop_now(socket, &to, UDP, REFUSED_PROXY);
        }
        asks(socket, &tuple);
        return PASS;
    }
    let verdict = judge_udp(ctx.as_ptr(), network, &tuple);
    match verdict.what {
        What::Pass => PASS,
        What::PassLocal if device == LOOPBACK => PASS,
        What::PassLocal => drop_now(socket, &to, UDP, REFUSED_LISTENER),
        What::Refuse => drop_now(socket, &to, UDP, verdict.value),
        // To a name server that the socket was not connected to.
        What::Redirect | What::NoRoute => drop_now(socket, &to, UDP, REFUSED_FULL),
    }
}

/// Tells the stub resolver which name server this socket asks. Without an entry the stub does not answer.
#[inline(always)]
fn asks(socket: &mut Socket, tuple: &Tuple) {
    publish(&UDP_ORIGINS, socket, tuple.from(), 0);
}

/// Of sockets for echo requests, which are there where the system lets everybody have them.
#[inline(always)]
fn echo(ctx: &SkBuffContext, sk: *mut bpf_sock, protocol: u32) -> i32 {
    let Some(network) = network() else { return DROP };
    let addr = destination(ctx, protocol as u8);
    if let Some(addr) = &addr
        && !is_refused_echo(network, addr)
    {
        return PASS;
    }
    // SAFETY: a whole socket.
    let Some(socket) = (unsafe { made(sk) }) else { return DROP };
    drop_now(socket, &Endpoint { addr: addr.unwrap_or_default(), port: 0 }, protocol, REFUSED_ECHO)
}

/// Packets of UDP and echo requests are sent by the process that runs.
#[inline(always)]
fn drop_now(socket: &mut Socket, to: &Endpoint, protocol: u32, why: u32) -> i32 {
    if socket.told != *to {
        socket.told = *to;
        report(*to, protocol, why, current());
    }
    DROP
}

/// TCP's are sent by others as well: it was who connected.
#[inline(always)]
fn drop_segment(socket: &mut Socket, to: Endpoint, why: u32) -> i32 {
    if socket.told != to {
        socket.told = to;
        let Origin { tgid, started, exe, .. } = socket.origin;
        report(to, TCP, why, Process { tgid, started, exe });
    }
    DROP
}
