//! Telling user space.

use ana_common::{COUNTER_LOST, FileKey, Report};
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;

use crate::{
    counters::count,
    maps::REPORTS,
    session::{cgroup, tgid},
};

/// The ring was full: what was to be told is lost (and counted).
pub struct Lost;

/// Reports about the current process. `kind` is a `REPORT_*`.
#[inline(always)]
pub fn report(kind: u32, file: FileKey, value: u64) -> Result<(), Lost> {
    let Some(mut record) = REPORTS.reserve::<Report>(0) else {
        count(COUNTER_LOST);
        return Err(Lost);
    };
    // SAFETY: the helper takes nothing and reads a clock.
    let boot_ns = unsafe { bpf_ktime_get_boot_ns() };
    record.write(Report { kind, tgid: tgid(), cgroup: cgroup(), file, value, boot_ns });
    record.submit(0);
    Ok(())
}
