//! The connect gate, in the kernel: what redirects a session's connections to the hold proxy, refuses what cannot be held,
//! and shows the session the addresses that it asked for. One file per hook, under the kernel's name for it.
//!
//! Every error is a refusal (EPERM), never a pass. Offsets of kernel structures are not compiled in: the loader reads them
//! from the kernel's BTF.
#![no_std]
#![no_main]

mod address;
mod answer;
mod connect;
mod destination;
mod egress;
mod getpeername;
mod judge;
mod listener;
mod maps;
mod packet;
mod post_bind;
mod process;
mod publish;
mod recvmsg;
mod report;
mod sendmsg;
mod sock_create;
mod sock_ops;
mod sock_release;
mod socket;

/// No program has a path to a panic: the verifier would refuse the endless loop.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

// The helpers used here are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
