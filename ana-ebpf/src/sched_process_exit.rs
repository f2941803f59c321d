//! raw_tp/sched_process_exit(task): a thread ends.
//!
//! Forgets what a process that is over was permitted, because its pid will be used again, and reports, once per watched
//! process, how it ended.

use ana_common::{COUNTER_MISSES, FileKey, REPORT_EXIT};
use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};

use crate::{
    counters::count,
    kernel_memory::{Ending, ending},
    maps::{EXPECTED, PRIVILEGED, WATCHED},
    report::{Lost, report},
    session::{inside, tgid},
};

#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn sched_process_exit(ctx: RawTracePointContext) -> i32 {
    if !inside() {
        return 0;
    }
    let tgid = tgid();
    // SAFETY: the entries are not read, only their presence counts.
    let known = unsafe {
        WATCHED.get(tgid).is_some() || EXPECTED.get(tgid).is_some() || PRIVILEGED.get(tgid).is_some()
    };
    if !known {
        return 0;
    }
    match ending(ctx.arg(0)) {
        Ending::NotYet => {}
        Ending::Status(status) => over(tgid, status),
        Ending::Unreadable => count(COUNTER_MISSES),
    }
    0
}

/// Two last threads may both see that none is left: who removes the entry reports.
#[inline(always)]
fn over(tgid: u32, status: u32) {
    // Most have neither.
    let (Ok(()) | Err(_)) = EXPECTED.remove(tgid);
    let (Ok(()) | Err(_)) = PRIVILEGED.remove(tgid);
    if WATCHED.remove(tgid).is_ok() {
        // A full ring was counted there: user space asks the pidfds when the counter grew.
        let (Ok(()) | Err(Lost)) = report(REPORT_EXIT, FileKey::default(), status.into());
    }
}
