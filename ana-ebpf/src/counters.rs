//! What went wrong, counted; user space reads it and treats a number that grew as a loss.

use crate::maps::COUNTERS;

/// Adds one to the counter `which` (`COUNTER_*`).
#[inline(always)]
pub fn count(which: u32) {
    if let Some(counter) = COUNTERS.get_ptr_mut(which) {
        // SAFETY: the pointer is into this CPU's slot of the map. A program that interrupts this one on the same CPU
        // could lose an increment: the counter still is not zero then, which is all that is asked of it.
        unsafe { *counter += 1 };
    }
}
