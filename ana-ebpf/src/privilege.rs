//! Whether a process has more than its user: what an exec of a set-user-ID or set-group-ID file, or of one with
//! capabilities, leaves behind (execve(2), capabilities(7)).

use aya_ebpf::Global;

use crate::{
    kernel_memory::{
        OFFSET_CRED_CAP_PERMITTED, OFFSET_CRED_EGID, OFFSET_CRED_EUID, OFFSET_CRED_GID, OFFSET_CRED_UID,
        OFFSET_CRED_USER_NS, OFFSET_NS_COMMON_INUM, OFFSET_TASK_STRUCT_CRED, OFFSET_TASK_STRUCT_REAL_PARENT,
        OFFSET_TASK_STRUCT_TGID, OFFSET_USER_NAMESPACE_NS, field, inside_of,
    },
    maps::{HARMLESS_GROUPS, PRIVILEGED},
};

/// The number of the user namespace that the sessions belong to; in another one, privilege reaches nothing of ours.
#[unsafe(no_mangle)]
pub static USER_NAMESPACE: Global<u64> = Global::new(0);

/// How far up an approved process is looked for.
const ANCESTORS: u32 = 16;

/// The effective ids are not the real ones, or there are capabilities that are not root's. `None`: unreadable.
#[inline(always)]
pub fn elevated(task: *const u8) -> Option<bool> {
    let cred: *const u8 = field(task, &OFFSET_TASK_STRUCT_CRED)?;
    let (uid, euid): (u32, u32) = (field(cred, &OFFSET_CRED_UID)?, field(cred, &OFFSET_CRED_EUID)?);
    let (gid, egid): (u32, u32) = (field(cred, &OFFSET_CRED_GID)?, field(cred, &OFFSET_CRED_EGID)?);
    let capabilities: u64 = field(cred, &OFFSET_CRED_CAP_PERMITTED)?;
    // Root that is root by its real id has become it in an exec that was judged.
    let grown = uid != 0 && (uid != euid || (gid != egid && !harmless(egid)) || capabilities != 0);
    if !grown {
        return Some(false);
    }
    let namespace: *const u8 = field(cred, &OFFSET_CRED_USER_NS)?;
    let number: u32 = field(inside_of(namespace, &OFFSET_USER_NAMESPACE_NS), &OFFSET_NS_COMMON_INUM)?;
    Some(u64::from(number) == USER_NAMESPACE.load())
}

#[inline(always)]
fn harmless(group: u32) -> bool {
    // SAFETY: the entry is not read, only its presence counts.
    unsafe { HARMLESS_GROUPS.get(group) }.is_some()
}

/// Whether the process, or one above it, was approved to gain privilege: what it does with it was not asked for again.
#[inline(always)]
pub fn approved(task: *const u8) -> bool {
    let mut task = task;
    for _ in 0..ANCESTORS {
        let Some(tgid) = field::<u32>(task, &OFFSET_TASK_STRUCT_TGID) else { return false };
        // SAFETY: the entry is not read, only its presence counts.
        if unsafe { PRIVILEGED.get(tgid) }.is_some() {
            return true;
        }
        match field::<*const u8>(task, &OFFSET_TASK_STRUCT_REAL_PARENT) {
            Some(parent) if tgid > 1 => task = parent,
            _ => return false,
        }
    }
    false
}
