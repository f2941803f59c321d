//! What a hook answers, and what it notes before it does.

use core::ffi::c_int;

use ana_common::network::{Endpoint, Network, Origin, REFUSED_DEVICE, REFUSED_FULL, Socket};
use aya_ebpf::{
    EbpfContext,
    helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_set_retval},
    programs::SockAddrContext,
};

use crate::{
    address::{self, Family},
    destination::proxy,
    maps::NETWORK,
    process::current,
    report::{now, report},
    socket::is_on_device,
};

pub const ALLOW: i32 = 1;
/// EPERM.
pub const REFUSE: i32 = 0;

/// How connections are judged now.
#[inline(always)]
pub fn network() -> Option<Network> {
    NETWORK.get(0).copied()
}

/// Refuses with EPERM, and says so, once for each destination in a row.
#[inline(always)]
pub fn refuse(ctx: &SockAddrContext, socket: &mut Socket, to: Endpoint, why: u32) -> i32 {
    if socket.told != to {
        socket.told = to;
        report(to, address::protocol(ctx), why, current());
    }
    REFUSE
}

/// Refuses what nothing can be noted about.
#[inline(always)]
pub fn refuse_unknown(ctx: &SockAddrContext, to: Endpoint) -> i32 {
    report(to, address::protocol(ctx), REFUSED_FULL, current());
    REFUSE
}

/// Refuses with this error.
#[inline(always)]
pub fn fail(error: c_int) -> i32 {
    // SAFETY: the helper only notes the number.
    unsafe { bpf_set_retval(-error) };
    REFUSE
}

/// Notes who wants to go where.
#[inline(always)]
pub fn note(ctx: &SockAddrContext, socket: &mut Socket, to: Endpoint, flags: u32) {
    let by = current();
    // SAFETY: the context of the running program.
    let (cookie, netns) =
        unsafe { (bpf_get_socket_cookie(ctx.as_ptr()), bpf_get_netns_cookie(ctx.as_ptr())) };
    socket.origin = Origin {
        destination: to,
        tgid: by.tgid,
        started: by.started,
        exe: by.exe,
        boot_ns: now(),
        cookie,
        netns,
        listener: 0,
        flags,
        pad: 0,
    };
}

/// Sends it to the proxy instead. `Err`: it is refused.
///
/// The proxy is reached through the loopback device alone. Two sockets that are bound to different devices may have the same
/// address and port, by which the proxy knows one's origin.
#[inline(always)]
pub fn redirect(
    ctx: &SockAddrContext,
    family: Family,
    network: Network,
    socket: &mut Socket,
    to: Endpoint,
    flags: u32,
) -> Result<(), i32> {
    if network.proxy_port == 0 {
        return Err(refuse(ctx, socket, to, REFUSED_FULL));
    }
    // SAFETY: the socket of the context.
    if unsafe { is_on_device(address::socket(ctx)) } {
        return Err(refuse(ctx, socket, to, REFUSED_DEVICE));
    }
    note(ctx, socket, to, flags);
    address::write(ctx, family, proxy(network, &to.addr));
    Ok(())
}
