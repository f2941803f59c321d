//! The connect gate's half in the kernel: programs on the session's cgroup that redirect connections to the hold proxy,
//! refuse what cannot be held, and show the session the addresses that it asked for.
//!
//! An object of its own, which is loaded only if the policy says something about connections.

use std::{os::fd::AsFd, path::Path};

use aya::{
    Ebpf,
    maps::{MapData, RingBuf},
};

use super::{
    KernelError, SessionCgroup,
    btf::Btf,
    load::{loader, offsets_of, take},
    pins,
};
use crate::sys::bpf::{CgroupHook, link_cgroup};

mod maps;
mod refusals;

pub use maps::NetworkMaps;
pub use refusals::{Refusal, RefusalReason, Refusals};

/// Built by `cargo xtask bpf`; the toolchain is written beside it.
static OBJECT: &[u8] = aya::include_bytes_aligned!("object/connect.bpf.o");

/// Every program, and the hook it belongs to. Attached in this order: what makes a socket known comes first.
const PROGRAMS: [(&str, CgroupHook); 14] = [
    ("sock_create", CgroupHook::SockCreate),
    ("sock_release", CgroupHook::SockRelease),
    ("post_bind4", CgroupHook::PostBind4),
    ("post_bind6", CgroupHook::PostBind6),
    ("sock_ops", CgroupHook::SockOps),
    ("egress", CgroupHook::Egress),
    ("getpeername4", CgroupHook::GetPeerName4),
    ("getpeername6", CgroupHook::GetPeerName6),
    ("recvmsg4", CgroupHook::RecvMsg4),
    ("recvmsg6", CgroupHook::RecvMsg6),
    ("sendmsg4", CgroupHook::SendMsg4),
    ("sendmsg6", CgroupHook::SendMsg6),
    ("connect4", CgroupHook::Connect4),
    ("connect6", CgroupHook::Connect6),
];

/// The structures' fields that the programs read, and the globals through which they learn where those lie.
pub(super) const OFFSETS: [(&str, &str, &str); 13] = [
    ("OFFSET_TASK_STRUCT_TGID", "task_struct", "tgid"),
    ("OFFSET_TASK_STRUCT_GROUP_LEADER", "task_struct", "group_leader"),
    ("OFFSET_TASK_STRUCT_START_BOOTTIME", "task_struct", "start_boottime"),
    ("OFFSET_TASK_STRUCT_MM", "task_struct", "mm"),
    ("OFFSET_MM_STRUCT_EXE_FILE", "mm_struct", "exe_file"),
    ("OFFSET_FILE_F_INODE", "file", "f_inode"),
    ("OFFSET_INODE_I_INO", "inode", "i_ino"),
    ("OFFSET_INODE_I_SB", "inode", "i_sb"),
    ("OFFSET_SUPER_BLOCK_S_DEV", "super_block", "s_dev"),
    ("OFFSET_SOCK_SK_SOCKET", "sock", "sk_socket"),
    ("OFFSET_SOCKET_ALLOC_VFS_INODE", "socket_alloc", "vfs_inode"),
    ("OFFSET_SOCK_SK_REUSEPORT_CB", "sock", "sk_reuseport_cb"),
    ("OFFSET_SOCK_REUSEPORT_PROG", "sock_reuseport", "prog"),
];

/// The loaded programs of one session's connect gate. What is attached stays attached after this value is gone, and after the
/// process is gone, until the pins are removed ([`pins::unpin`]).
pub struct NetworkPrograms {
    ebpf: Ebpf,
    maps: NetworkMaps,
    ring: Option<RingBuf<MapData>>,
}

impl NetworkPrograms {
    /// Loads the object and has every program verified. Nothing is attached yet, and nothing is configured: until
    /// [`NetworkMaps::configure`] every connection that would be redirected is refused.
    ///
    /// # Errors
    /// No BTF, no privilege, or a kernel that does not accept a program.
    pub fn load() -> Result<Self, KernelError> {
        Self::load_with(&[])
    }

    /// [`Self::load`] with this many entries in these maps; of a ring the bytes.
    pub(super) fn load_with(sizes: &[(&'static str, u32)]) -> Result<Self, KernelError> {
        let offsets = offsets_of(&Btf::of_the_kernel()?, &OFFSETS)?;
        let mut loader = loader();
        for (map, entries) in sizes {
            loader.map_max_entries(map, *entries);
        }
        for (global, offset) in &offsets {
            loader.override_global(global, offset, true);
        }
        let mut ebpf = loader.load(OBJECT).map_err(KernelError::Object)?;
        for (name, hook) in PROGRAMS {
            verify(&mut ebpf, name, hook)?;
        }
        Ok(Self {
            ring: Some(take(&mut ebpf, "NETWORK_REPORTS")?),
            maps: NetworkMaps::take(&mut ebpf)?,
            ebpf,
        })
    }

    /// Gates `session` from now on. Every link is pinned as `net-…` in the directory `pins`, which
    /// [`Kernel::attach`](super::Kernel::attach) has made, so that the gate outlives this process.
    ///
    /// Sockets that are in the cgroup already are unknown to the programs: attach before the first process of the session.
    ///
    /// # Errors
    /// What was attached is pinned, and goes with the pins.
    pub fn attach(&mut self, session: &SessionCgroup<'_>, pins: &Path) -> Result<(), KernelError> {
        for (name, hook) in PROGRAMS {
            let program = self.ebpf.program(name).ok_or(KernelError::Missing(name))?;
            let fd = program
                .fd()
                .map_err(|source| KernelError::Attach { program: name, source: Box::new(source) })?;
            let link = link_cgroup(fd.as_fd(), session.fd, hook)
                .map_err(|source| KernelError::AttachCgroup { program: name, source })?;
            pins::pin(&link, &pins.join(format!("net-{name}")))?;
        }
        Ok(())
    }

    /// The handle to the maps: cloneable, for every thread.
    pub fn maps(&self) -> NetworkMaps {
        self.maps.clone()
    }

    /// What each program has cost so far: runs and nanoseconds, where kernel.bpf_stats_enabled is set.
    #[cfg(test)]
    pub(super) fn costs(&self) -> Vec<(&'static str, crate::sys::bpf::ProgramCounts)> {
        let cost = |name| {
            let fd = self.ebpf.program(name)?.fd().ok()?;
            Some((name, crate::sys::bpf::program_counts(fd.as_fd()).ok()?))
        };
        PROGRAMS.iter().filter_map(|(name, _)| cost(*name)).collect()
    }

    /// What the programs refused. Only once, and only inside a tokio runtime.
    ///
    /// # Errors
    /// Taken before, or the ring cannot be polled.
    pub fn take_refusals(&mut self) -> Result<Refusals, KernelError> {
        Refusals::new(self.ring.take().ok_or(KernelError::ReportsTaken)?, Refusal::decode)
    }
}

/// Has the kernel verify one program.
fn verify(ebpf: &mut Ebpf, name: &'static str, hook: CgroupHook) -> Result<(), KernelError> {
    use aya::programs::{CgroupSkb, CgroupSock, CgroupSockAddr, SockOps};
    let program = ebpf.program_mut(name).ok_or(KernelError::Missing(name))?;
    let missing = |_other_kind| KernelError::Missing(name);
    let loaded = match hook {
        CgroupHook::SockCreate | CgroupHook::SockRelease | CgroupHook::PostBind4 | CgroupHook::PostBind6 => {
            <&mut CgroupSock>::try_from(program).map_err(missing)?.load()
        }
        CgroupHook::SockOps => <&mut SockOps>::try_from(program).map_err(missing)?.load(),
        CgroupHook::Egress => <&mut CgroupSkb>::try_from(program).map_err(missing)?.load(),
        CgroupHook::Connect4
        | CgroupHook::Connect6
        | CgroupHook::SendMsg4
        | CgroupHook::SendMsg6
        | CgroupHook::RecvMsg4
        | CgroupHook::RecvMsg6
        | CgroupHook::GetPeerName4
        | CgroupHook::GetPeerName6 => <&mut CgroupSockAddr>::try_from(program).map_err(missing)?.load(),
        CgroupHook::Device => return Err(KernelError::Missing(name)),
    };
    loaded.map_err(|source| KernelError::Refused { program: name, source: Box::new(source) })
}
