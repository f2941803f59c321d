//! Who listens on this host.

use ana_common::network::Endpoint;
use aya_ebpf::{
    bindings::{BPF_F_CURRENT_NETNS, bpf_sock, bpf_sock_tuple},
    cty::c_void,
    helpers::generated::{bpf_probe_read_kernel, bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_sk_release},
};

use crate::{
    destination::is_v4,
    process::{
        OFFSET_INODE_I_INO, OFFSET_SOCK_REUSEPORT_PROG, OFFSET_SOCK_SK_REUSEPORT_CB, OFFSET_SOCK_SK_SOCKET,
        OFFSET_SOCKET_ALLOC_VFS_INODE, field,
    },
    socket::known,
};

/// Who would get a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    Nobody,
    /// A socket that was made in the session.
    Session,
    /// Another one.
    Outside,
}

/// Who was found. A value of its own for each: one that is not set would not pass the verifier.
#[derive(Clone, Copy)]
pub struct Found {
    pub who: Listener,
    /// Of one outside: its socket's inode number. 0: unreadable.
    pub inode: u64,
}

/// The addresses and ports of a packet. Ports in network byte order.
pub struct Tuple {
    pub source: [u32; 4],
    pub destination: [u32; 4],
    pub source_port: u16,
    pub destination_port: u16,
}

impl Tuple {
    /// Of a packet that is not there yet: where it will come from is not known.
    #[inline(always)]
    pub fn towards(to: &Endpoint) -> Self {
        let destination_port = (to.port as u16).to_be();
        Self { source: [0; 4], destination: to.addr, source_port: 0, destination_port }
    }

    #[inline(always)]
    pub fn from(&self) -> Endpoint {
        Endpoint { addr: self.source, port: u32::from(u16::from_be(self.source_port)) }
    }

    #[inline(always)]
    pub fn to(&self) -> Endpoint {
        Endpoint { addr: self.destination, port: u32::from(u16::from_be(self.destination_port)) }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Udp,
}

#[repr(C)]
struct Tuple4 {
    source: u32,
    destination: u32,
    source_port: u16,
    destination_port: u16,
}

#[repr(C)]
struct Tuple6 {
    source: [u32; 4],
    destination: [u32; 4],
    source_port: u16,
    destination_port: u16,
}

/// Looks a socket up as the kernel does for an incoming packet, in the context's network namespace.
///
/// # Safety
/// `ctx` is the context of the running program.
#[inline(always)]
pub unsafe fn listener(ctx: *mut c_void, transport: Transport, tuple: &Tuple) -> Found {
    let &Tuple { source, destination, source_port, destination_port } = tuple;
    // SAFETY: the tuples are those of the kernel's bpf_sock_tuple, the size says which.
    unsafe {
        if is_v4(&destination) {
            let (source, destination) = (source[3], destination[3]);
            let mut tuple = Tuple4 { source, destination, source_port, destination_port };
            let size = size_of::<Tuple4>() as u32;
            owner(look_up(ctx, transport, (&raw mut tuple).cast(), size))
        } else {
            let mut tuple = Tuple6 { source, destination, source_port, destination_port };
            let size = size_of::<Tuple6>() as u32;
            owner(look_up(ctx, transport, (&raw mut tuple).cast(), size))
        }
    }
}

#[inline(always)]
unsafe fn look_up(
    ctx: *mut c_void,
    transport: Transport,
    tuple: *mut bpf_sock_tuple,
    size: u32,
) -> *mut bpf_sock {
    let here = BPF_F_CURRENT_NETNS as i64 as u64;
    // SAFETY: the caller's promise.
    unsafe {
        match transport {
            Transport::Tcp => bpf_sk_lookup_tcp(ctx, tuple, size, here, 0),
            Transport::Udp => bpf_sk_lookup_udp(ctx, tuple, size, here, 0),
        }
    }
}

#[inline(always)]
unsafe fn owner(sk: *mut bpf_sock) -> Found {
    if sk.is_null() {
        return Found { who: Listener::Nobody, inode: 0 };
    }
    // SAFETY: a socket that the look-up has given; it is not used after its release.
    unsafe {
        let found = match known(sk) {
            Some(_) if !is_chosen_by_program(sk) => Found { who: Listener::Session, inode: 0 },
            Some(_) | None => Found { who: Listener::Outside, inode: inode(sk) },
        };
        bpf_sk_release(sk.cast());
        found
    }
}

/// The number by which user space knows a socket. (Its cookie is none: most sockets have none until somebody asks.)
#[inline(always)]
fn inode(sk: *mut bpf_sock) -> u64 {
    let socket: u64 = field(address(sk), &OFFSET_SOCK_SK_SOCKET);
    if socket == 0 {
        return 0;
    }
    field(socket.wrapping_add(OFFSET_SOCKET_ALLOC_VFS_INODE.load()), &OFFSET_INODE_I_INO)
}

/// Of a group (SO_REUSEPORT) whose members have attached a program (SO_ATTACH_REUSEPORT_CBPF): that chooses by the packet,
/// which a look-up does not have, and another member may get it than the one that was found.
#[inline(always)]
fn is_chosen_by_program(sk: *mut bpf_sock) -> bool {
    let group: u64 = field(address(sk), &OFFSET_SOCK_SK_REUSEPORT_CB);
    if group == 0 {
        return false;
    }
    let program: u64 = field(group, &OFFSET_SOCK_REUSEPORT_PROG);
    program != 0
}

/// The verifier lets nobody count from a socket's address; read from the stack it is a number.
#[inline(always)]
fn address(sk: *mut bpf_sock) -> u64 {
    let mut address = 0u64;
    // SAFETY: both are variables of eight bytes.
    unsafe {
        let from = (&raw const sk).cast();
        bpf_probe_read_kernel((&raw mut address).cast(), size_of::<u64>() as u32, from);
    }
    address
}
