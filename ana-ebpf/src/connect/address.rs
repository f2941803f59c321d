//! Addresses in a `bpf_sock_addr`: the kernel's own copy, which the process cannot change any more. Read and written word by
//! word: the verifier accepts no memcpy of a context.

use core::ptr::{addr_of, addr_of_mut, read_volatile, write_volatile};

use ana_common::network::Endpoint;
use aya_ebpf::{bindings::bpf_sock, programs::SockAddrContext};

use crate::destination::v4;

/// Of an address family's fields in the context.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

/// The address and port of the context.
#[inline(always)]
pub fn read(ctx: &SockAddrContext, family: Family) -> Endpoint {
    let context = ctx.sock_addr;
    // SAFETY: the context is valid for the whole run.
    let (port, addr) = unsafe {
        let port = read_volatile(addr_of!((*context).user_port));
        let addr = match family {
            Family::V4 => v4(read_volatile(addr_of!((*context).user_ip4))),
            Family::V6 => [
                read_volatile(addr_of!((*context).user_ip6[0])),
                read_volatile(addr_of!((*context).user_ip6[1])),
                read_volatile(addr_of!((*context).user_ip6[2])),
                read_volatile(addr_of!((*context).user_ip6[3])),
            ],
        };
        (port, addr)
    };
    Endpoint { addr, port: u32::from((port as u16).swap_bytes()) }
}

/// Replaces them. Of an IPv4 address in an IPv4 context only the last word counts.
#[inline(always)]
pub fn write(ctx: &SockAddrContext, family: Family, to: Endpoint) {
    let context = ctx.sock_addr;
    // SAFETY: as above; these are the fields that this kind of program may write.
    unsafe {
        match family {
            Family::V4 => write_volatile(addr_of_mut!((*context).user_ip4), to.addr[3]),
            Family::V6 => {
                write_volatile(addr_of_mut!((*context).user_ip6[0]), to.addr[0]);
                write_volatile(addr_of_mut!((*context).user_ip6[1]), to.addr[1]);
                write_volatile(addr_of_mut!((*context).user_ip6[2]), to.addr[2]);
                write_volatile(addr_of_mut!((*context).user_ip6[3]), to.addr[3]);
            }
        }
        write_volatile(addr_of_mut!((*context).user_port), u32::from((to.port as u16).swap_bytes()));
    }
}

/// The socket of the call.
#[inline(always)]
pub fn socket(ctx: &SockAddrContext) -> *mut bpf_sock {
    // SAFETY: as above.
    unsafe { read_volatile(addr_of!((*ctx.sock_addr).__bindgen_anon_1.sk)) }
}

/// `IPPROTO_*`.
#[inline(always)]
pub fn protocol(ctx: &SockAddrContext) -> u32 {
    // SAFETY: as above.
    unsafe { read_volatile(addr_of!((*ctx.sock_addr).protocol)) }
}
