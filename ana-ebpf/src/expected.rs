//! What was let through without a hold has to be what is executed now: the file, the process, every byte of the arguments
//! and of the environment. User space read them while they could still be changed; here they cannot.

use ana_common::{EXPECTED_BYTES, EXPECTED_WORDS, Expected, FileKey};
use aya_ebpf::helpers::generated::bpf_probe_read_user;

use crate::{
    kernel_memory::{
        OFFSET_MM_STRUCT_ARG_END, OFFSET_MM_STRUCT_ARG_START, OFFSET_MM_STRUCT_ENV_END,
        OFFSET_MM_STRUCT_ENV_START, OFFSET_TASK_STRUCT_GROUP_LEADER, OFFSET_TASK_STRUCT_MM,
        OFFSET_TASK_STRUCT_START_BOOTTIME, field,
    },
    maps::{EXPECTED, SCRATCH},
};

/// /proc counts a process's start in 1/100 s.
const NANOSECONDS_A_TICK: u64 = 10_000_000;

/// How an exec compares with what was let through.
pub enum Comparison {
    /// Nothing was let through.
    Nothing,
    Same,
    Different,
}

/// Compares, and uses up what was let through.
#[inline(always)]
pub fn compare(tgid: u32, task: *const u8, file: &FileKey) -> Comparison {
    let Some(expected) = EXPECTED.get_ptr(tgid) else { return Comparison::Nothing };
    // SAFETY: user space replaces an entry as a whole, never in place, and removes none of a process that executes.
    let expected = unsafe { &*expected };
    let same = expected.file == *file && same(task, expected).unwrap_or(false);
    // Used once, whatever came of it. Gone already means that the process is being forgotten.
    let (Ok(()) | Err(_)) = EXPECTED.remove(tgid);
    if same { Comparison::Same } else { Comparison::Different }
}

/// `None`: unreadable.
#[inline(always)]
fn same(task: *const u8, expected: &Expected) -> Option<bool> {
    let leader: *const u8 = field(task, &OFFSET_TASK_STRUCT_GROUP_LEADER)?;
    let started: u64 = field(leader, &OFFSET_TASK_STRUCT_START_BOOTTIME)?;
    let mm: *const u8 = field(task, &OFFSET_TASK_STRUCT_MM)?;
    let (start, middle): (u64, u64) =
        (field(mm, &OFFSET_MM_STRUCT_ARG_START)?, field(mm, &OFFSET_MM_STRUCT_ARG_END)?);
    let (next, end): (u64, u64) =
        (field(mm, &OFFSET_MM_STRUCT_ENV_START)?, field(mm, &OFFSET_MM_STRUCT_ENV_END)?);
    let length = end.wrapping_sub(start);
    if started / NANOSECONDS_A_TICK != expected.started
        || middle.wrapping_sub(start) != u64::from(expected.arguments)
        || next != middle
        || length != u64::from(expected.length)
        || length == 0
        || length > EXPECTED_BYTES as u64
    {
        return Some(false);
    }
    let found = SCRATCH.get_ptr_mut(0)?;
    // SAFETY: the pointer is into this CPU's slot of the map; only this program uses it, and it does not nest.
    let found = unsafe { &mut *found };
    // The word that holds the tail: an earlier image may have left bytes there.
    found[(length >> 3) as usize] = 0;
    // SAFETY: the helper writes at most `length` bytes, which is not more than the slot has, and fails on an address
    // that cannot be read.
    if unsafe { bpf_probe_read_user(found.as_mut_ptr().cast(), length as u32, start as *const _) } != 0 {
        return None;
    }
    // Constant bounds: the compiler drops its checks and the verifier can follow.
    for word in 0..EXPECTED_WORDS {
        if (word * 8) as u64 >= length {
            break;
        }
        if found[word] != expected.words[word] {
            return Some(false);
        }
    }
    Some(true)
}
