//! The guard, in the kernel: what protects an exec without ever waiting. One file per hook, under the kernel's name
//! for it.
//!
//! Every error is a refusal (SIGKILL, EPERM), never a pass. Offsets of kernel structures are not compiled in: the
//! loader reads them from the kernel's BTF.
#![no_std]
#![no_main]

mod counters;
mod device;
mod expected;
mod kernel_memory;
mod maps;
mod place;
mod privilege;
mod report;
mod sched_process_exec;
mod sched_process_exit;
mod session;

/// No program has a path to a panic: the verifier would refuse the endless loop.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

// The helpers used here are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
