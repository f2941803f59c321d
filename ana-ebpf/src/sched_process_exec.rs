//! raw_tp/sched_process_exec(task, old_pid, bprm): the exec is complete, no instruction of the new image has run.
//!
//! The exec guard: in a session, a protected file runs only in a hold that is armed for it, once per arming, or with
//! exactly the arguments and the environment that were let through. What gains privilege runs only in a hold, and what
//! has just been put where a protected file is expected does not run.

use ana_common::{
    Armed, COUNTER_MISSES, FileKey, KILLED_HOLD_USED, KILLED_NOT_EXPECTED, KILLED_NOT_HELD,
    KILLED_OTHER_FILE, KILLED_PRIVILEGE, KILLED_UNMARKED, KILLED_UNREADABLE, KILLED_UNREPORTED,
    REPORT_EXEC_HELD, REPORT_KILLED, STILL_ALIVE,
};
use aya_ebpf::{
    bindings::BPF_NOEXIST, helpers::generated::bpf_send_signal, macros::raw_tracepoint,
    programs::RawTracePointContext,
};

use crate::{
    counters::count,
    expected::{Comparison, compare},
    kernel_memory::executable,
    maps::{HOLDS, PROTECTED, SEEN},
    place, privilege,
    report::{Lost, report},
    session::{cgroup, inside, tgid},
};

/// A `KILLED_*`.
type Reason = u64;

#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn sched_process_exec(ctx: RawTracePointContext) -> i32 {
    if !inside() {
        return 0;
    }
    let (task, bprm) = (ctx.arg(0), ctx.arg(2));
    let Some(file) = executable(bprm) else {
        count(COUNTER_MISSES);
        kill(FileKey::default(), KILLED_UNREADABLE);
        return 0;
    };
    if let Err(reason) = judge(task, bprm, &file) {
        kill(file, reason);
    }
    0
}

/// The hold comes first: whoever is in an armed hold is frozen, and must be reported or killed whatever it runs.
#[inline(always)]
fn judge(task: *const u8, bprm: *const u8, file: &FileKey) -> Result<(), Reason> {
    let hold = cgroup();
    // SAFETY: user space replaces an entry as a whole, it never changes one in place.
    if let Some(armed) = unsafe { HOLDS.get(hold) } {
        return held(hold, armed, file);
    }
    // SAFETY: the entry is not read, only its presence counts.
    let protected = unsafe { PROTECTED.get(file) }.is_some();
    // Whatever is executed: a file that names the expected one as its interpreter (PT_INTERP, binfmt_misc) is another one.
    match compare(tgid(), task, file) {
        Comparison::Nothing if protected => return Err(KILLED_NOT_HELD),
        Comparison::Different => return Err(KILLED_NOT_EXPECTED),
        Comparison::Nothing | Comparison::Same => {}
    }
    match privilege::elevated(task) {
        Some(false) => {}
        Some(true) if privilege::approved(task) => {}
        Some(true) => return Err(KILLED_PRIVILEGE),
        None => return Err(KILLED_UNREADABLE),
    }
    match protected || !place::listed(bprm).ok_or(KILLED_UNREADABLE)? {
        true => Ok(()),
        false => Err(KILLED_UNMARKED),
    }
}

/// The one exec of a hold. The entry stays until user space disarms, so that there is no moment in which a second
/// exec would be an exec outside of any hold.
#[inline(always)]
fn held(hold: u64, armed: &Armed, file: &FileKey) -> Result<(), Reason> {
    // Only one of several can be the first to insert. Full means "not known", so it is a refusal as well.
    if SEEN.insert(hold, 1, BPF_NOEXIST.into()).is_err() {
        return Err(KILLED_HOLD_USED);
    }
    if armed.script == 0 && armed.file != *file {
        return Err(KILLED_OTHER_FILE);
    }
    report(REPORT_EXEC_HELD, *file, 0).map_err(|Lost| KILLED_UNREPORTED)
}

/// SIGKILL comes before the return to user space, so no instruction of the new image runs.
#[inline(always)]
fn kill(file: FileKey, reason: Reason) {
    // SAFETY: the helper signals the current process, which is the one that execs.
    let sent = unsafe { bpf_send_signal(9) } == 0;
    if !sent {
        count(COUNTER_MISSES);
    }
    let value = if sent { reason } else { reason | STILL_ALIVE };
    // A full ring was counted there, and the process is dead all the same.
    let (Ok(()) | Err(Lost)) = report(REPORT_KILLED, file, value);
}
