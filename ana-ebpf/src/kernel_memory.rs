//! Fields of kernel structures, read by offsets that the loader found in the running kernel's BTF.
//!
//! Always by bpf_probe_read_kernel: a direct load that faults gives 0 silently, and inode 0 is not protected.

use ana_common::FileKey;
use aya_ebpf::{Global, helpers::bpf_probe_read_kernel};

macro_rules! offsets {
    ($($name:ident),* $(,)?) => {
        $(#[unsafe(no_mangle)] pub static $name: Global<u64> = Global::new(0);)*
    };
}

offsets! {
    OFFSET_LINUX_BINPRM_FILE,
    OFFSET_FILE_F_INODE,
    OFFSET_FILE_F_PATH,
    OFFSET_PATH_DENTRY,
    OFFSET_DENTRY_D_PARENT,
    OFFSET_DENTRY_D_NAME,
    OFFSET_DENTRY_D_INODE,
    OFFSET_QSTR_NAME,
    OFFSET_INODE_I_INO,
    OFFSET_INODE_I_SB,
    OFFSET_SUPER_BLOCK_S_DEV,
    OFFSET_TASK_STRUCT_TGID,
    OFFSET_TASK_STRUCT_REAL_PARENT,
    OFFSET_TASK_STRUCT_START_BOOTTIME,
    OFFSET_TASK_STRUCT_MM,
    OFFSET_TASK_STRUCT_CRED,
    OFFSET_MM_STRUCT_ARG_START,
    OFFSET_MM_STRUCT_ARG_END,
    OFFSET_MM_STRUCT_ENV_START,
    OFFSET_MM_STRUCT_ENV_END,
    OFFSET_CRED_UID,
    OFFSET_CRED_EUID,
    OFFSET_CRED_GID,
    OFFSET_CRED_EGID,
    OFFSET_CRED_CAP_PERMITTED,
    OFFSET_CRED_USER_NS,
    OFFSET_USER_NAMESPACE_NS,
    OFFSET_NS_COMMON_INUM,
    OFFSET_TASK_STRUCT_GROUP_LEADER,
    OFFSET_TASK_STRUCT_EXIT_CODE,
    OFFSET_TASK_STRUCT_SIGNAL,
    OFFSET_SIGNAL_STRUCT_LIVE,
    OFFSET_SIGNAL_STRUCT_FLAGS,
    OFFSET_SIGNAL_STRUCT_GROUP_EXIT_CODE,
}

/// The field at `offset` of the structure at `base`. `None`: unreadable.
#[inline(always)]
pub fn field<T>(base: *const u8, offset: &Global<u64>) -> Option<T> {
    let source = base.wrapping_add(offset.load() as usize);
    // SAFETY: the helper checks the address itself and fails on one that cannot be read; T is an integer or a raw
    // pointer here, for which every bit pattern is a value.
    unsafe { bpf_probe_read_kernel(source.cast()).ok() }
}

/// What is being executed. For a script this is its interpreter: `bprm->file` has been replaced by then.
#[inline(always)]
pub fn executable(bprm: *const u8) -> Option<FileKey> {
    let file: *const u8 = field(bprm, &OFFSET_LINUX_BINPRM_FILE)?;
    key(field(file, &OFFSET_FILE_F_INODE)?)
}

/// The identity of an inode.
#[inline(always)]
pub fn key(inode: *const u8) -> Option<FileKey> {
    let super_block: *const u8 = field(inode, &OFFSET_INODE_I_SB)?;
    let (ino, dev) = (field(inode, &OFFSET_INODE_I_INO)?, field(super_block, &OFFSET_SUPER_BLOCK_S_DEV)?);
    Some(FileKey { ino, dev, pad: 0 })
}

/// `base` plus `offset`, for a structure that lies inside of another.
#[inline(always)]
pub fn inside_of(base: *const u8, offset: &Global<u64>) -> *const u8 {
    base.wrapping_add(offset.load() as usize)
}

/// What the end of a thread means for its process.
pub enum Ending {
    /// Other threads live on.
    NotYet,
    /// The process is over, with this wait status.
    Status(u32),
    /// The kernel's memory could not be read.
    Unreadable,
}

/// Is the process of `task`, a thread that is ending, over? As the kernel's wait_task_zombie() sees it.
///
/// "The leader ends" would be wrong both ways: main() may call pthread_exit(), and when another thread execs, the old
/// leader ends while the process lives on.
#[inline(always)]
pub fn ending(task: *const u8) -> Ending {
    let Some(signal) = field::<*const u8>(task, &OFFSET_TASK_STRUCT_SIGNAL) else {
        return Ending::Unreadable;
    };
    match field::<i32>(signal, &OFFSET_SIGNAL_STRUCT_LIVE) {
        Some(0) => {}
        Some(_) => return Ending::NotYet,
        None => return Ending::Unreadable,
    }
    match status(task, signal) {
        Some(status) => Ending::Status(status),
        None => Ending::Unreadable,
    }
}

#[inline(always)]
fn status(task: *const u8, signal: *const u8) -> Option<u32> {
    const SIGNAL_GROUP_EXIT: u32 = 4;
    if field::<u32>(signal, &OFFSET_SIGNAL_STRUCT_FLAGS)? & SIGNAL_GROUP_EXIT != 0 {
        return field(signal, &OFFSET_SIGNAL_STRUCT_GROUP_EXIT_CODE);
    }
    let leader: *const u8 = field(task, &OFFSET_TASK_STRUCT_GROUP_LEADER)?;
    field(leader, &OFFSET_TASK_STRUCT_EXIT_CODE)
}
