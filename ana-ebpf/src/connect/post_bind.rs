//! cgroup/post_bind4, cgroup/post_bind6: bind(2). Who may listen soon is known from here on as the session's own. (A TCP socket
//! that listens without: sock_ops. A UDP socket that sends without: connect, sendmsg.)

use aya_ebpf::{macros::cgroup_sock, programs::SockContext};

use crate::{answer::ALLOW, socket::made};

#[cgroup_sock(post_bind4)]
pub fn post_bind4(ctx: SockContext) -> i32 {
    bound(&ctx)
}

#[cgroup_sock(post_bind6)]
pub fn post_bind6(ctx: SockContext) -> i32 {
    bound(&ctx)
}

#[inline(always)]
fn bound(ctx: &SockContext) -> i32 {
    // Without memory it is like one from outside: protected. SAFETY: the context is a socket.
    let _known = unsafe { made(ctx.sock) };
    ALLOW
}
