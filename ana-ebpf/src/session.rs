//! Who is asked about: processes below a session's cgroup, whatever they do to get out of sight.

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid,
    generated::{bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id},
};

use crate::maps::{SESSION_LEVEL, SESSIONS};

/// How deep is searched where the sessions' level is not known.
const LEVELS: u32 = 32;

/// The current process, in the initial pid namespace.
#[inline(always)]
pub fn tgid() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// The id of the cgroup that the current process is in.
#[inline(always)]
pub fn cgroup() -> u64 {
    // SAFETY: the helper takes nothing and only reads the current task.
    unsafe { bpf_get_current_cgroup_id() }
}

/// Is the current process in a session: in its cgroup or below it?
#[inline(always)]
pub fn inside() -> bool {
    let level = SESSION_LEVEL.get(0).copied().unwrap_or(0);
    if level != 0 {
        return is_session(ancestor(level));
    }
    for level in 1..LEVELS {
        match ancestor(level) {
            0 => return false, // deeper than the process's own cgroup
            id if is_session(id) => return true,
            _ => {}
        }
    }
    true // too deep to tell: guarded rather than missed
}

#[inline(always)]
fn ancestor(level: u32) -> u64 {
    // SAFETY: the helper only reads the current task, and gives 0 for a level that it does not have.
    unsafe { bpf_get_current_ancestor_cgroup_id(level as i32) }
}

#[inline(always)]
fn is_session(id: u64) -> bool {
    // SAFETY: the entry is not read, only its presence counts.
    unsafe { SESSIONS.get(id) }.is_some()
}
