//! bpf(2), where the loader crate has nothing: a link of a cgroup device program that can be pinned, the counter of
//! skipped runs, and probes.

use std::{
    ffi::CString,
    io,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use aya::{
    Pod,
    maps::{HashMap, IterableMap, MapData, RingBuf},
};
use tokio::io::{Interest, unix::AsyncFd};

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_MAP_LOOKUP_AND_DELETE_ELEM: libc::c_int = 21;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_CGROUP_DEVICE: u32 = 6;

/// # Safety
/// `attribute` must be laid out as the kernel's `union bpf_attr` for `command`, and every address in it must be valid
/// for what the command does with it.
unsafe fn bpf<T>(command: libc::c_int, attribute: &mut T) -> io::Result<libc::c_long> {
    let (attribute, size): (*mut T, usize) = (attribute, size_of::<T>());
    // SAFETY: the pointer and the size are one live object's; the rest is the caller's promise.
    match unsafe { libc::syscall(libc::SYS_bpf, command, attribute, size) } {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(result),
    }
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// # Safety
/// `result` must be a descriptor that nobody else owns.
unsafe fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = i32::try_from(result).map_err(io::Error::other)?;
    // SAFETY: the caller's promise.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Where a program can be attached to a cgroup (`enum bpf_attach_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum CgroupHook {
    Egress = 1,
    SockCreate = 2,
    SockOps = 3,
    Device = BPF_CGROUP_DEVICE,
    Connect4 = 10,
    Connect6 = 11,
    PostBind4 = 12,
    PostBind6 = 13,
    SendMsg4 = 14,
    SendMsg6 = 15,
    RecvMsg4 = 19,
    RecvMsg6 = 20,
    GetPeerName4 = 29,
    GetPeerName6 = 30,
    SockRelease = 34,
}

/// Attaches a program to `cgroup`, for as long as the link or a pin of it lives. Beside what is attached there already.
pub fn link_cgroup(program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>, hook: CgroupHook) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct LinkCreate {
        program: u32,
        target: u32,
        attach_type: u32,
        flags: u32,
    }
    let (program, target) = (raw(program), raw(cgroup));
    let mut attribute = LinkCreate { program, target, attach_type: hook as u32, flags: 0 };
    // SAFETY: laid out as bpf_attr.link_create, no addresses; the result is a new descriptor.
    unsafe { owned(bpf(BPF_LINK_CREATE, &mut attribute)?) }
}

/// Looks an element of a hash map up and removes it, in one step: of two callers one gets it. `None`: there is none with
/// this key.
///
/// # Errors
/// A kernel before 5.14.
pub fn take_element<K: Pod, V: Pod>(map: &HashMap<MapData, K, V>, key: &K) -> io::Result<Option<V>> {
    #[repr(C)]
    struct Element {
        map: u32,
        pad: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    let mut value = MaybeUninit::<V>::uninit();
    let mut attribute = Element {
        map: raw(map.map().fd().as_fd()),
        pad: 0,
        key: (&raw const *key).expose_provenance() as u64,
        value: value.as_mut_ptr().expose_provenance() as u64,
        flags: 0,
    };
    // SAFETY: laid out as the members of bpf_attr for BPF_MAP_*_ELEM; the kernel reads a key and writes a value, and the library
    // made sure that the types are of the map's sizes.
    match unsafe { bpf(BPF_MAP_LOOKUP_AND_DELETE_ELEM, &mut attribute) } {
        // SAFETY: the kernel has written all of it, and every bit pattern is a value of a Pod.
        Ok(_zero) => Ok(Some(unsafe { value.assume_init() })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The number that the kernel gave the network namespace of a socket (SO_NETNS_COOKIE, Linux 5.14): what the programs of the
/// connect gate know it by.
pub fn netns_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = 0u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).map_err(io::Error::other)?;
    // SAFETY: the kernel writes at most `length` = 8 bytes into `cookie`.
    let got = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    super::check(got.into()).map(|_zero| cookie)
}

/// Pins a program, map or link at `path`, which must be on a bpffs.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    #[repr(C)]
    struct ObjPin {
        path: u64,
        object: u32,
        flags: u32,
    }
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attribute =
        ObjPin { path: path.as_ptr().expose_provenance() as u64, object: raw(object), flags: 0 };
    // SAFETY: laid out as the first members of bpf_attr for BPF_OBJ_PIN; `path` is a C string that outlives the call.
    unsafe { bpf(BPF_OBJ_PIN, &mut attribute) }.map(|_zero| ())
}

/// What the kernel counts about a loaded program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgramCounts {
    /// Runs that were skipped because the program was already running on that CPU: misses of a guard. `None`: a kernel
    /// before 5.12 does not say.
    pub recursion_misses: Option<u64>,
    /// Nanoseconds and runs since `kernel.bpf_stats_enabled` was set.
    pub run_ns: u64,
    /// See `run_ns`.
    pub runs: u64,
}

/// Reads a program's counters (`struct bpf_prog_info`).
pub fn program_counts(program: BorrowedFd<'_>) -> io::Result<ProgramCounts> {
    #[repr(C)]
    struct ObjInfo {
        object: u32,
        length: u32,
        info: u64,
    }
    // run_time_ns, run_cnt and recursion_misses are the words 24, 25 and 26 of bpf_prog_info.
    let mut info = [0u64; 32];
    let length = u32::try_from(size_of_val(&info)).map_err(io::Error::other)?;
    let mut attribute =
        ObjInfo { object: raw(program), length, info: info.as_mut_ptr().expose_provenance() as u64 };
    // SAFETY: laid out as bpf_attr.info; the kernel writes at most `length` bytes to `info`, which is that long, and
    // all zeroes, so that it finds no further addresses there.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attribute) }?;
    let recursion_misses = (attribute.length >= 27 * 8).then_some(info[26]);
    Ok(ProgramCounts { recursion_misses, run_ns: info[24], runs: info[25] })
}

/// The kinds of programs that are probed: type and expected attach type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// raw_tp, of any tracepoint.
    Tracepoint,
    /// An LSM program for the hook function with this BTF id.
    Lsm(u32),
    /// cgroup/dev.
    CgroupDevice,
}

/// Loads `return 0` as a program of this kind and throws it away: does the kernel accept such programs from us?
pub fn probe_program(kind: ProbeKind) -> io::Result<()> {
    /// The head of bpf_attr for BPF_PROG_LOAD, up to attach_btf_id.
    #[repr(C)]
    #[derive(Default)]
    struct ProgLoad {
        program_type: u32,
        instruction_count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
        name: [u8; 16],
        interface: u32,
        expected_attach_type: u32,
        btf: u32,
        func_info_size: u32,
        func_info: u64,
        func_info_count: u32,
        line_info_size: u32,
        line_info: u64,
        line_info_count: u32,
        attach_btf_id: u32,
    }
    const PROGRAM_TYPE_RAW_TRACEPOINT: u32 = 17;
    const PROGRAM_TYPE_LSM: u32 = 29;
    const PROGRAM_TYPE_CGROUP_DEVICE: u32 = 15;
    const ATTACH_LSM_MAC: u32 = 27;
    // r0 = 0; exit
    let instructions: [u64; 2] = [0xb7, 0x95];
    let license = c"GPL";
    let (program_type, expected_attach_type, attach_btf_id) = match kind {
        ProbeKind::Tracepoint => (PROGRAM_TYPE_RAW_TRACEPOINT, 0, 0),
        ProbeKind::Lsm(id) => (PROGRAM_TYPE_LSM, ATTACH_LSM_MAC, id),
        ProbeKind::CgroupDevice => (PROGRAM_TYPE_CGROUP_DEVICE, BPF_CGROUP_DEVICE, 0),
    };
    let mut attribute = ProgLoad {
        program_type,
        instruction_count: 2,
        instructions: instructions.as_ptr().expose_provenance() as u64,
        license: license.as_ptr().expose_provenance() as u64,
        expected_attach_type,
        attach_btf_id,
        ..ProgLoad::default()
    };
    // SAFETY: laid out as the head of bpf_attr for BPF_PROG_LOAD (asserted by offset below); both addresses are of
    // objects that outlive the call; the result is a new descriptor.
    drop(unsafe { owned(bpf(BPF_PROG_LOAD, &mut attribute)?) }?);
    const { assert!(size_of::<ProgLoad>() == 112 && std::mem::offset_of!(ProgLoad, attach_btf_id) == 108) };
    Ok(())
}

/// Registers a ring of reports with the current tokio runtime.
pub fn poll_ring(ring: RingBuf<MapData>) -> io::Result<AsyncFd<RingBuf<MapData>>> {
    // SAFETY: a RingBuf owns its map's descriptor and returns that same one as long as it lives.
    Ok(unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }?)
}
