//! Telling user space what was refused.

use ana_common::{
    COUNTER_LOST, COUNTER_MISSES,
    network::{Endpoint, Refused},
};
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;

use crate::{
    maps::{COUNTERS, NETWORK_REPORTS},
    process::Process,
};

/// Reports a refusal. One that finds the ring full is counted; it was refused all the same.
#[inline(always)]
pub fn report(destination: Endpoint, protocol: u32, why: u32, by: Process) {
    let Some(mut record) = NETWORK_REPORTS.reserve::<Refused>(0) else {
        count(COUNTER_LOST);
        return;
    };
    let Process { tgid, started, exe } = by;
    record.write(Refused { destination, protocol, why, tgid, started, exe, boot_ns: now() });
    record.submit(0);
}

/// Something that is not expected ever.
#[inline(always)]
pub fn miss() {
    count(COUNTER_MISSES);
}

/// Nanoseconds of CLOCK_BOOTTIME.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper takes nothing and reads a clock.
    unsafe { bpf_ktime_get_boot_ns() }
}

#[inline(always)]
fn count(which: u32) {
    if let Some(counter) = COUNTERS.get_ptr_mut(which) {
        // SAFETY: the pointer is into this CPU's slot of the map. A program that interrupts this one on the same CPU
        // could lose an increment: the counter still is not zero then, which is all that is asked of it.
        unsafe { *counter += 1 };
    }
}
