//! Who asks: the current process, as far as a record needs it. Read by bpf_probe_read_kernel: what cannot be read is zero, and
//! decides nothing here.

use ana_common::{FileKey, NANOSECONDS_A_TICK};
use aya_ebpf::{
    Global,
    cty::c_void,
    helpers::generated::{bpf_get_current_task, bpf_probe_read_kernel},
};

macro_rules! offsets {
    ($($name:ident),* $(,)?) => {
        $(#[unsafe(no_mangle)] pub static $name: Global<u64> = Global::new(0);)*
    };
}

offsets! {
    OFFSET_TASK_STRUCT_TGID,
    OFFSET_TASK_STRUCT_GROUP_LEADER,
    OFFSET_TASK_STRUCT_START_BOOTTIME,
    OFFSET_TASK_STRUCT_MM,
    OFFSET_MM_STRUCT_EXE_FILE,
    OFFSET_FILE_F_INODE,
    OFFSET_INODE_I_INO,
    OFFSET_INODE_I_SB,
    OFFSET_SUPER_BLOCK_S_DEV,
    OFFSET_SOCK_SK_SOCKET,
    OFFSET_SOCKET_ALLOC_VFS_INODE,
    OFFSET_SOCK_SK_REUSEPORT_CB,
    OFFSET_SOCK_REUSEPORT_PROG,
}

/// The current process.
#[derive(Clone, Copy)]
pub struct Process {
    pub tgid: u32,
    pub started: u64,
    pub exe: FileKey,
}

#[inline(always)]
pub fn current() -> Process {
    // SAFETY: the helper takes nothing.
    let task = unsafe { bpf_get_current_task() };
    let leader: u64 = field(task, &OFFSET_TASK_STRUCT_GROUP_LEADER);
    let started: u64 = field(leader, &OFFSET_TASK_STRUCT_START_BOOTTIME);
    let mm: u64 = field(task, &OFFSET_TASK_STRUCT_MM);
    let file: u64 = field(mm, &OFFSET_MM_STRUCT_EXE_FILE);
    let inode: u64 = field(file, &OFFSET_FILE_F_INODE);
    let super_block: u64 = field(inode, &OFFSET_INODE_I_SB);
    let ino: u64 = field(inode, &OFFSET_INODE_I_INO);
    let dev: u32 = field(super_block, &OFFSET_SUPER_BLOCK_S_DEV);
    // Not by bpf_get_current_pid_tgid: before 6.10 packets' programs have none.
    let tgid: u32 = field(task, &OFFSET_TASK_STRUCT_TGID);
    Process { tgid, started: started / NANOSECONDS_A_TICK, exe: FileKey { ino, dev, pad: 0 } }
}

/// The field at `offset` of the structure at `base`. What cannot be read is zero, the helper sees to that; so is every field
/// of a structure at zero.
#[inline(always)]
pub fn field<T: Copy + Default>(base: u64, offset: &Global<u64>) -> T {
    let mut value = T::default();
    let source = base.wrapping_add(offset.load()) as *const c_void;
    // SAFETY: the helper checks the address itself; T is an integer, for which every bit pattern is a value.
    unsafe { bpf_probe_read_kernel((&raw mut value).cast(), size_of::<T>() as u32, source) };
    value
}
