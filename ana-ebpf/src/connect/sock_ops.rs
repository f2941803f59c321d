//! sock_ops: a TCP socket is about to send its SYN (its address and port are known now, and the proxy cannot accept it yet), or
//! changes its state, or listens.

use core::ptr::{addr_of, read_volatile};

use ana_common::network::{Endpoint, Network};
use aya_ebpf::{
    bindings::{
        BPF_NOEXIST, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB,
        BPF_SOCK_OPS_TCP_LISTEN_CB, BPF_TCP_CLOSE, bpf_sock,
    },
    helpers::generated::bpf_sock_ops_cb_flags_set,
    macros::sock_ops,
    programs::SockOpsContext,
};

use crate::{
    answer::network,
    destination::{is_proxy, v4},
    maps::ORIGINS,
    publish::{publish, withdraw},
    report::miss,
    socket::{known, made, remote},
};

const AF_INET: u32 = 2;
const DONE: u32 = 1;

#[sock_ops]
pub fn sock_ops(ctx: SockOpsContext) -> u32 {
    match ctx.op() {
        BPF_SOCK_OPS_TCP_CONNECT_CB => {
            if let Some(network) = network() {
                connects(&ctx, network);
            }
        }
        BPF_SOCK_OPS_TCP_LISTEN_CB => listens(&ctx),
        BPF_SOCK_OPS_STATE_CB if ctx.arg(1) == BPF_TCP_CLOSE => closes(&ctx),
        _ => {}
    }
    DONE
}

/// What does not go to the proxy is of no interest. If it does, the session was sent there: it cannot go by itself.
#[inline(always)]
fn connects(ctx: &SockOpsContext, network: Network) {
    let sk = socket(ctx);
    if sk.is_null() {
        return;
    }
    // SAFETY: a socket of the context, and not null.
    if !is_proxy(network, &unsafe { remote(sk) }) {
        return;
    }
    // SAFETY: as above.
    let Some(socket) = (unsafe { known(sk) }) else { return miss() };
    if socket.origin.destination.port == 0 {
        return miss();
    }
    // SAFETY: the helper takes the running program's context.
    let told = unsafe { bpf_sock_ops_cb_flags_set(ctx.ops, BPF_SOCK_OPS_STATE_CB_FLAG as i32) } == 0;
    // An entry that nobody takes back must not be made.
    if !(told && publish(&ORIGINS, socket, local(ctx), u64::from(BPF_NOEXIST))) {
        miss();
    }
}

/// Without bind(2): on a port that the kernel chose.
#[inline(always)]
fn listens(ctx: &SockOpsContext) {
    let sk = socket(ctx);
    if !sk.is_null() {
        // Without memory it is like one from outside: protected. SAFETY: a socket of the context, and not null.
        let _known = unsafe { made(sk) };
    }
}

#[inline(always)]
fn closes(ctx: &SockOpsContext) {
    let sk = socket(ctx);
    if sk.is_null() {
        return;
    }
    // SAFETY: a socket of the context, and not null.
    if let Some(socket) = unsafe { known(sk) } {
        withdraw(&ORIGINS, socket);
    }
}

#[inline(always)]
fn socket(ctx: &SockOpsContext) -> *mut bpf_sock {
    // SAFETY: the context is valid for the whole run.
    unsafe { read_volatile(addr_of!((*ctx.ops).__bindgen_anon_2.sk)) }
}

/// The peer as the proxy will see it.
#[inline(always)]
fn local(ctx: &SockOpsContext) -> Endpoint {
    let ops = ctx.ops;
    // SAFETY: as above. One 32-bit word at a time: the verifier accepts nothing else.
    let (family, ip, addr) = unsafe {
        (
            read_volatile(addr_of!((*ops).family)),
            read_volatile(addr_of!((*ops).local_ip4)),
            [
                read_volatile(addr_of!((*ops).local_ip6[0])),
                read_volatile(addr_of!((*ops).local_ip6[1])),
                read_volatile(addr_of!((*ops).local_ip6[2])),
                read_volatile(addr_of!((*ops).local_ip6[3])),
            ],
        )
    };
    Endpoint { addr: if family == AF_INET { v4(ip) } else { addr }, port: ctx.local_port() }
}
