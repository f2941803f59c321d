//! Connects through io_uring, whose operations pass no system call filter. Arguments: the address, the port.
#![allow(clippy::expect_used, reason = "test code: a panic names what the attack was not given")]
#![allow(unsafe_code, reason = "io_uring has no wrapper")]

use std::{
    net::SocketAddrV4,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    ptr,
    sync::atomic::{AtomicU32, Ordering},
};

use ana_tests::attempt::{argument, tell};
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockType, SockaddrIn, SockaddrLike, recv, send, socket,
    },
};

const IORING_OP_CONNECT: u8 = 16;
const IORING_ENTER_GETEVENTS: u32 = 1;
const IORING_OFF_SQ_RING: i64 = 0;
const IORING_OFF_SQES: i64 = 0x1000_0000;

/// struct io_uring_params of <linux/io_uring.h>.
#[repr(C)]
#[derive(Default)]
struct Parameters {
    sq_entries: u32,
    cq_entries: u32,
    flags: u32,
    sq_thread_cpu: u32,
    sq_thread_idle: u32,
    features: u32,
    wq_fd: u32,
    reserved: [u32; 3],
    /// head, tail, ring_mask, ring_entries, flags, dropped, array, reserved, user address.
    sq: [u32; 10],
    /// head, tail, ring_mask, ring_entries, overflow, cqes, flags, reserved, user address.
    cq: [u32; 10],
}

/// struct io_uring_sqe, of which a connect needs these.
#[repr(C)]
#[derive(Default)]
struct Entry {
    opcode: u8,
    flags: u8,
    ioprio: u16,
    fd: i32,
    off: u64,
    addr: u64,
    rest: [u64; 5],
}

fn main() {
    let (address, port) = (argument(1), argument(2));
    let to: SocketAddrV4 =
        format!("{}:{}", address.display(), port.display()).parse().expect("an IPv4 address and a port");
    tell("uring", attack(to));
}

fn attack(to: SocketAddrV4) -> Result<(), Errno> {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    submit(&socket, &SockaddrIn::from(to))?;
    send(socket.as_raw_fd(), b"attack uring", MsgFlags::MSG_NOSIGNAL)?;
    let mut answer = [0; 64];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    if answer[..length] == *b"attack uring" { Ok(()) } else { Err(Errno::EBADMSG) }
}

fn map(ring: &OwnedFd, length: usize, offset: i64) -> Result<*mut u8, Errno> {
    // SAFETY: a new mapping of the ring's own memory, which stays until the process ends.
    let at = unsafe {
        libc::mmap(
            ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_POPULATE,
            ring.as_raw_fd(),
            offset,
        )
    };
    if at == libc::MAP_FAILED { Err(Errno::last()) } else { Ok(at.cast()) }
}

/// One connect, and its result.
fn submit(socket: &OwnedFd, to: &SockaddrIn) -> Result<(), Errno> {
    let mut parameters = Parameters::default();
    // SAFETY: the kernel writes the parameters, 120 bytes, which live until the call is over.
    let number = Errno::result(unsafe { libc::syscall(libc::SYS_io_uring_setup, 4, &raw mut parameters) })?;
    // SAFETY: the descriptor is new and ours.
    let ring = unsafe { OwnedFd::from_raw_fd(i32::try_from(number).expect("a descriptor")) };
    // Both rings are in one mapping on every kernel since 5.4 (IORING_FEAT_SINGLE_MMAP).
    let rings = map(&ring, 4096, IORING_OFF_SQ_RING)?;
    let entries = map(&ring, 4096, IORING_OFF_SQES)?.cast::<Entry>();
    let word = |offset: u32| {
        // SAFETY: the kernel's offsets lie in the mapping, and are aligned.
        unsafe { &*rings.add(usize::try_from(offset).expect("small")).cast::<AtomicU32>() }
    };
    let entry = Entry {
        opcode: IORING_OP_CONNECT,
        fd: socket.as_raw_fd(),
        off: u64::from(to.len()),
        addr: u64::try_from(to.as_ptr().addr()).expect("64 bits"),
        ..Entry::default()
    };
    // SAFETY: the first of the entries that were mapped; the kernel reads it in the call below.
    unsafe { entries.write(entry) };
    word(parameters.sq[6]).store(0, Ordering::Relaxed);
    word(parameters.sq[1]).store(1, Ordering::Release);
    let no_set = ptr::null::<libc::sigset_t>();
    // SAFETY: submits the entry and waits for its end; entry and address live until then.
    let entered = unsafe {
        libc::syscall(libc::SYS_io_uring_enter, ring.as_raw_fd(), 1, 1, IORING_ENTER_GETEVENTS, no_set, 0)
    };
    Errno::result(entered)?;
    // struct io_uring_cqe: user data, result, flags.
    let result = word(parameters.cq[5] + 8).load(Ordering::Acquire).cast_signed();
    if result < 0 { Err(Errno::from_raw(-result)) } else { Ok(()) }
}
