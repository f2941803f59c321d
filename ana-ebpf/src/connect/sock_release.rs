//! cgroup/sock_release: the last descriptor of a socket is closed. Of TCP sockets sock_ops knows better: they may have something
//! to send still.

use core::ptr::{addr_of, read_volatile};

use aya_ebpf::{macros::cgroup_sock, programs::SockContext};

use crate::{answer::ALLOW, connect::UDP, maps::UDP_ORIGINS, publish::withdraw, socket::known};

#[cgroup_sock(sock_release)]
pub fn sock_release(ctx: SockContext) -> i32 {
    // SAFETY: the context is valid for the whole run.
    if unsafe { read_volatile(addr_of!((*ctx.sock).protocol)) } != UDP {
        return ALLOW;
    }
    // SAFETY: the context is a socket.
    if let Some(socket) = unsafe { known(ctx.sock) } {
        withdraw(&UDP_ORIGINS, socket);
    }
    ALLOW
}
