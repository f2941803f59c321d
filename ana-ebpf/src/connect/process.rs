//! Who asks: the current process, as far as a record needs it. Read by bpf_probe_read_kernel: what cannot be read is zero, and
//! decides nothing here.

use ana_common::FileKey;
use aya_ebpf::{
    Global,
    helpers::{bpf_get_current_pid_tgid, bpf_probe_read_kernel, generated::bpf_get_current_task},
};

macro_rules! offsets {
    ($($name:ident),* $(,)?) => {
        $(#[unsafe(no_mangle)] pub static $name: Global<u64> = Global::new(0);)*
    };
}

offsets! {
    OFFSET_TASK_STRUCT_GROUP_LEADER,
    OFFSET_TASK_STRUCT_START_BOOTTIME,
    OFFSET_TASK_STRUCT_MM,
    OFFSET_MM_STRUCT_EXE_FILE,
    OFFSET_FILE_F_INODE,
    OFFSET_INODE_I_INO,
    OFFSET_INODE_I_SB,
    OFFSET_SUPER_BLOCK_S_DEV,
}

/// /proc counts a process's start in 1/100 s.
const NANOSECONDS_A_TICK: u64 = 10_000_000;

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
    let task = unsafe { bpf_get_current_task() } as *const u8;
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    Process { tgid, started: started(task).unwrap_or(0), exe: executable(task).unwrap_or_default() }
}

#[inline(always)]
fn started(task: *const u8) -> Option<u64> {
    let leader: *const u8 = field(task, &OFFSET_TASK_STRUCT_GROUP_LEADER)?;
    let started: u64 = field(leader, &OFFSET_TASK_STRUCT_START_BOOTTIME)?;
    Some(started / NANOSECONDS_A_TICK)
}

#[inline(always)]
fn executable(task: *const u8) -> Option<FileKey> {
    let mm: *const u8 = field(task, &OFFSET_TASK_STRUCT_MM)?;
    let file: *const u8 = field(mm, &OFFSET_MM_STRUCT_EXE_FILE)?;
    let inode: *const u8 = field(file, &OFFSET_FILE_F_INODE)?;
    let super_block: *const u8 = field(inode, &OFFSET_INODE_I_SB)?;
    let (ino, dev) = (field(inode, &OFFSET_INODE_I_INO)?, field(super_block, &OFFSET_SUPER_BLOCK_S_DEV)?);
    Some(FileKey { ino, dev, pad: 0 })
}

/// The field at `offset` of the structure at `base`. `None`: unreadable.
#[inline(always)]
fn field<T>(base: *const u8, offset: &Global<u64>) -> Option<T> {
    let source = base.wrapping_add(offset.load() as usize);
    // SAFETY: the helper checks the address itself and fails on one that cannot be read; T is an integer or a raw
    // pointer here, for which every bit pattern is a value.
    unsafe { bpf_probe_read_kernel(source.cast()).ok() }
}
