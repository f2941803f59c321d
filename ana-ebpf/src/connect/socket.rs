//! What is kept with a socket: with those that were redirected, that use UDP, or that may listen. To make it is the dearest thing
//! that happens here (1 µs).

use core::ptr::{addr_of, null_mut, read_volatile};

use ana_common::network::{Endpoint, Socket};
use aya_ebpf::{
    bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock},
    cty::c_void,
    helpers::generated::bpf_sk_storage_get,
};

use crate::{
    destination::{is_v4, v4},
    maps::SOCKETS,
};

#[inline(always)]
fn map() -> *mut c_void {
    addr_of!(SOCKETS).cast_mut().cast()
}

/// `None`: the socket was not made in this session, or nothing was to be kept.
///
/// # Safety
/// `sk` must be a socket that the verifier knows as one; the result is used before it is released.
#[inline(always)]
pub unsafe fn known<'a>(sk: *mut bpf_sock) -> Option<&'a mut Socket> {
    // SAFETY: the kernel gives a value of the map's type, or null. Programs that run at the same time may see half of a change;
    // what they decide by is written under the socket's own lock.
    unsafe { bpf_sk_storage_get(map(), sk.cast(), null_mut(), 0).cast::<Socket>().as_mut() }
}

/// As [`known`], and makes it known. `None`: there is no memory.
///
/// # Safety
/// As there; the context of a cgroup/sock program is a socket, too.
#[inline(always)]
pub unsafe fn made<'a>(sk: *mut bpf_sock) -> Option<&'a mut Socket> {
    let flags = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
    // SAFETY: as above. A new value is all zeroes.
    unsafe { bpf_sk_storage_get(map(), sk.cast(), null_mut(), flags).cast::<Socket>().as_mut() }
}

/// Bound to a network device.
///
/// # Safety
/// As for [`known`].
#[inline(always)]
pub unsafe fn is_on_device(sk: *mut bpf_sock) -> bool {
    // SAFETY: the caller's promise.
    unsafe { read_volatile(addr_of!((*sk).bound_dev_if)) != 0 }
}

/// Bound to an IPv4-mapped address.
///
/// # Safety
/// As for [`known`].
#[inline(always)]
pub unsafe fn is_bound_to_v4(sk: *mut bpf_sock) -> bool {
    // SAFETY: the caller's promise.
    let addr = unsafe {
        [
            read_volatile(addr_of!((*sk).src_ip6[0])),
            read_volatile(addr_of!((*sk).src_ip6[1])),
            read_volatile(addr_of!((*sk).src_ip6[2])),
            0,
        ]
    };
    is_v4(&addr)
}

/// What the socket is connected to.
///
/// # Safety
/// As for [`known`].
#[inline(always)]
pub unsafe fn remote(sk: *mut bpf_sock) -> Endpoint {
    const AF_INET: u32 = 2;
    // All are read and then chosen from: the verifier accepts no pointer to a socket that was computed. SAFETY: the caller's
    // promise.
    let (port, family, ip, addr) = unsafe {
        (
            read_volatile(addr_of!((*sk).dst_port)),
            read_volatile(addr_of!((*sk).family)),
            read_volatile(addr_of!((*sk).dst_ip4)),
            [
                read_volatile(addr_of!((*sk).dst_ip6[0])),
                read_volatile(addr_of!((*sk).dst_ip6[1])),
                read_volatile(addr_of!((*sk).dst_ip6[2])),
                read_volatile(addr_of!((*sk).dst_ip6[3])),
            ],
        )
    };
    let addr = if family == AF_INET { v4(ip) } else { addr };
    Endpoint { addr, port: u32::from(u16::from_be(port)) }
}
