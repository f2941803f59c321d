//! From the embedded object to programs that guard one session.

use std::{
    fs::File,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use ana_common::{DEVICE_READ, DEVICE_WRITE, DeviceKey, EVERY_MINOR, RING_BYTES};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, MapData, RingBuf},
    programs::{CgroupDevice, RawTracePoint, links::FdLink},
};
use nix::fcntl::Flock;

use super::{
    KernelError, Maps, Report, Reports,
    btf::{Btf, BtfError},
    pins,
};
use crate::sys::{
    self,
    bpf::{CgroupHook, link_cgroup},
};

/// Built by `cargo xtask bpf`; the toolchain is written beside it.
static OBJECT: &[u8] = aya::include_bytes_aligned!("object/ana.bpf.o");

const EXEC: &str = "sched_process_exec";
const EXIT: &str = "sched_process_exit";
const DEVICE: &str = "device";

/// The structures' fields that the programs read, and the globals through which they learn where those lie.
const OFFSETS: [(&str, &str, &str); 34] = [
    ("OFFSET_LINUX_BINPRM_FILE", "linux_binprm", "file"),
    ("OFFSET_FILE_F_INODE", "file", "f_inode"),
    ("OFFSET_FILE_F_PATH", "file", "f_path"),
    ("OFFSET_PATH_DENTRY", "path", "dentry"),
    ("OFFSET_DENTRY_D_PARENT", "dentry", "d_parent"),
    ("OFFSET_DENTRY_D_NAME", "dentry", "d_name"),
    ("OFFSET_DENTRY_D_INODE", "dentry", "d_inode"),
    ("OFFSET_QSTR_NAME", "qstr", "name"),
    ("OFFSET_INODE_I_INO", "inode", "i_ino"),
    ("OFFSET_INODE_I_SB", "inode", "i_sb"),
    ("OFFSET_SUPER_BLOCK_S_DEV", "super_block", "s_dev"),
    ("OFFSET_TASK_STRUCT_TGID", "task_struct", "tgid"),
    ("OFFSET_TASK_STRUCT_REAL_PARENT", "task_struct", "real_parent"),
    ("OFFSET_TASK_STRUCT_START_BOOTTIME", "task_struct", "start_boottime"),
    ("OFFSET_TASK_STRUCT_MM", "task_struct", "mm"),
    ("OFFSET_TASK_STRUCT_CRED", "task_struct", "cred"),
    ("OFFSET_MM_STRUCT_ARG_START", "mm_struct", "arg_start"),
    ("OFFSET_MM_STRUCT_ARG_END", "mm_struct", "arg_end"),
    ("OFFSET_MM_STRUCT_ENV_START", "mm_struct", "env_start"),
    ("OFFSET_MM_STRUCT_ENV_END", "mm_struct", "env_end"),
    ("OFFSET_CRED_UID", "cred", "uid"),
    ("OFFSET_CRED_EUID", "cred", "euid"),
    ("OFFSET_CRED_GID", "cred", "gid"),
    ("OFFSET_CRED_EGID", "cred", "egid"),
    ("OFFSET_CRED_CAP_PERMITTED", "cred", "cap_permitted"),
    ("OFFSET_CRED_USER_NS", "cred", "user_ns"),
    ("OFFSET_USER_NAMESPACE_NS", "user_namespace", "ns"),
    ("OFFSET_NS_COMMON_INUM", "ns_common", "inum"),
    ("OFFSET_TASK_STRUCT_GROUP_LEADER", "task_struct", "group_leader"),
    ("OFFSET_TASK_STRUCT_EXIT_CODE", "task_struct", "exit_code"),
    ("OFFSET_TASK_STRUCT_SIGNAL", "task_struct", "signal"),
    ("OFFSET_SIGNAL_STRUCT_LIVE", "signal_struct", "live"),
    ("OFFSET_SIGNAL_STRUCT_FLAGS", "signal_struct", "flags"),
    ("OFFSET_SIGNAL_STRUCT_GROUP_EXIT_CODE", "signal_struct", "group_exit_code"),
];

/// The cgroup that is a session; its children (`work`, the holds) belong to it.
#[derive(Clone, Copy, Debug)]
pub struct SessionCgroup<'a> {
    /// The open directory.
    pub fd: BorrowedFd<'a>,
    /// The cgroup's id (its inode number).
    pub id: u64,
    /// Its depth below the root of the v2 hierarchy as the kernel counts it: 1 for a child of the root. 0 where a
    /// cgroup namespace hides the depth; that costs some nanoseconds an exec.
    pub level: u32,
}

/// One entry of the device allow-list. Only character devices can be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    pub major: u32,
    /// `None`: all of the major's.
    pub minor: Option<u32>,
    /// A sum of [`DEVICE_READ`], [`DEVICE_WRITE`] and [`DEVICE_MKNOD`](super::DEVICE_MKNOD).
    pub access: u32,
}

const fn device(major: u32, minor: Option<u32>) -> DeviceRule {
    DeviceRule { major, minor, access: DEVICE_READ | DEVICE_WRITE }
}

/// null, zero, full, random, urandom, tty, ptmx, and the pts of the session's own devpts instance.
pub const STANDARD_DEVICES: [DeviceRule; 8] = [
    device(1, Some(3)),
    device(1, Some(5)),
    device(1, Some(7)),
    device(1, Some(8)),
    device(1, Some(9)),
    device(5, Some(0)),
    device(5, Some(2)),
    device(136, None),
];

/// The loaded programs of one session. What is attached stays attached after this value is gone, and after the process
/// is gone, until the pins are removed ([`pins::unpin`]).
pub struct Kernel {
    ebpf: Ebpf,
    maps: Maps,
    ring: Option<RingBuf<MapData>>,
    sessions: HashMap<MapData, u64, u8>,
    session_level: Array<MapData, u32>,
    devices: HashMap<MapData, DeviceKey, u32>,
}

impl Kernel {
    /// Finds the kernel's structures, loads the object and has every program verified. Nothing is attached yet.
    ///
    /// # Errors
    /// No BTF, no privilege, or a kernel that does not accept a program.
    pub fn load() -> Result<Self, KernelError> {
        Self::load_with(&[("REPORTS", RING_BYTES)])
    }

    /// [`Self::load`] with this many entries in these maps; of a ring the bytes (a power of two, at least a page).
    pub(super) fn load_with(sizes: &[(&'static str, u32)]) -> Result<Self, KernelError> {
        let types = Btf::of_the_kernel()?;
        let offsets = offsets(&types)?;
        let mut loader = loader();
        for (map, entries) in sizes {
            loader.map_max_entries(map, *entries);
        }
        let namespace = user_namespace()?;
        loader.override_global("USER_NAMESPACE", &namespace, true);
        for (global, offset) in &offsets {
            loader.override_global(global, offset, true);
        }
        let mut ebpf = loader.load(OBJECT).map_err(KernelError::Object)?;
        verify(&mut ebpf)?;
        Ok(Self {
            ring: Some(take(&mut ebpf, "REPORTS")?),
            sessions: take(&mut ebpf, "SESSIONS")?,
            session_level: take(&mut ebpf, "SESSION_LEVEL")?,
            devices: take(&mut ebpf, "DEVICES")?,
            maps: Maps::take(&mut ebpf)?,
            ebpf,
        })
    }

    /// The handle to the maps: cloneable, for every thread.
    pub fn maps(&self) -> Maps {
        self.maps.clone()
    }

    /// Guards `session` from now on: device list, exit reports, exec guard. Every link is pinned in the new directory
    /// `pins` (0700, on bpffs, which is mounted when it is not), so that the guard outlives this process. Gives the lock of
    /// that directory: see [`pins::is_kept`].
    ///
    /// # Errors
    /// Nothing stays attached then.
    pub fn attach(
        &mut self,
        session: &SessionCgroup<'_>,
        devices: &[DeviceRule],
        pins: &Path,
    ) -> Result<Flock<File>, KernelError> {
        self.session_level
            .set(0, session.level, 0)
            .map_err(|source| KernelError::Map { map: "SESSION_LEVEL", source })?;
        self.sessions
            .insert(session.id, 1, 0)
            .map_err(|source| KernelError::Map { map: "SESSIONS", source })?;
        for rule in devices {
            let key = DeviceKey { major: rule.major, minor: rule.minor.unwrap_or(EVERY_MINOR) };
            self.devices
                .insert(key, rule.access, 0)
                .map_err(|source| KernelError::Map { map: "DEVICES", source })?;
        }
        let lock = pins::create(pins)?;
        match self.attach_pinned(session, pins) {
            Ok(()) => Ok(lock),
            Err(error) => {
                if let Err(error) = pins::unpin(pins) {
                    tracing::error!(%error, pins = %pins.display(), "cannot undo a failed attach");
                }
                Err(error)
            }
        }
    }

    /// Reports of the programs. Only once, and only inside a tokio runtime.
    ///
    /// # Errors
    /// Taken before, or the ring cannot be polled.
    pub fn take_reports(&mut self) -> Result<Reports, KernelError> {
        Reports::new(self.ring.take().ok_or(KernelError::ReportsTaken)?, Report::decode)
    }

    fn attach_pinned(&mut self, session: &SessionCgroup<'_>, pins: &Path) -> Result<(), KernelError> {
        let program: &CgroupDevice = self
            .ebpf
            .program(DEVICE)
            .and_then(|program| program.try_into().ok())
            .ok_or(KernelError::Missing(DEVICE))?;
        let fd = program
            .fd()
            .map_err(|source| KernelError::Attach { program: DEVICE, source: Box::new(source) })?;
        let link = link_cgroup(fd.as_fd(), session.fd, CgroupHook::Device)
            .map_err(|source| KernelError::AttachCgroup { program: DEVICE, source })?;
        pins::pin(&link, &pins.join(DEVICE))?;
        for name in [EXIT, EXEC] {
            let failed = |source| KernelError::Attach { program: name, source: Box::new(source) };
            let program = tracepoint(&mut self.ebpf, name)?;
            let id = program.attach(name).map_err(failed)?;
            let link: FdLink = program.take_link(id).map_err(failed)?.into();
            let path = pins.join(name);
            link.pin(&path)
                .map_err(|source| pins::PinsError::Pin { path, source: std::io::Error::other(source) })?;
        }
        Ok(())
    }
}

/// The number of our own user namespace, which is the sessions' as well: the inode of /proc/self/ns/user.
fn user_namespace() -> Result<u64, KernelError> {
    let namespace = std::fs::metadata("/proc/self/ns/user").map_err(KernelError::UserNamespace)?;
    Ok(std::os::unix::fs::MetadataExt::ino(&namespace))
}

/// The globals of the programs, with the running kernel's offsets.
pub(super) fn offsets(btf: &Btf) -> Result<Vec<(&'static str, u64)>, BtfError> {
    offsets_of(btf, &OFFSETS)
}

/// The same for any list of (global, structure, field).
pub(super) fn offsets_of(
    btf: &Btf,
    fields: &[(&'static str, &'static str, &'static str)],
) -> Result<Vec<(&'static str, u64)>, BtfError> {
    fields.iter().map(|&(global, structure, field)| Ok((global, btf.offset(structure, field)?))).collect()
}

/// The library's loader, for an object without relocations against the kernel's types. To make one reads all of those
/// types, 30 ms of each start, unless they cannot be found: it is made by a thread that sees none.
pub(super) fn loader() -> EbpfLoader<'static> {
    let made = std::thread::spawn(|| {
        // Where this fails, it only takes longer.
        sys::thread::without_files().ok();
        EbpfLoader::new()
    });
    made.join().unwrap_or_default()
}

/// Has the kernel verify every program.
fn verify(ebpf: &mut Ebpf) -> Result<(), KernelError> {
    for name in [EXEC, EXIT] {
        tracepoint(ebpf, name)?
            .load()
            .map_err(|source| KernelError::Refused { program: name, source: Box::new(source) })?;
    }
    let program: &mut CgroupDevice = ebpf
        .program_mut(DEVICE)
        .and_then(|program| program.try_into().ok())
        .ok_or(KernelError::Missing(DEVICE))?;
    program.load().map_err(|source| KernelError::Refused { program: DEVICE, source: Box::new(source) })
}

fn tracepoint<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut RawTracePoint, KernelError> {
    ebpf.program_mut(name).and_then(|program| program.try_into().ok()).ok_or(KernelError::Missing(name))
}

/// Takes a map out of the object, as its type.
pub(super) fn take<T: TryFrom<aya::maps::Map>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<T, KernelError> {
    ebpf.take_map(name).and_then(|map| T::try_from(map).ok()).ok_or(KernelError::Missing(name))
}
