//! What was let through without a hold has to be what is executed now: the file, the process, every byte of the arguments
//! and of the environment. User space read them while they could still be changed; here they cannot.

use core::hint::black_box;

use ana_common::{BLOCK_BYTES, FileKey, NANOSECONDS_A_TICK};
use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_user};

use crate::{
    kernel_memory::{
        OFFSET_MM_STRUCT_ARG_END, OFFSET_MM_STRUCT_ARG_START, OFFSET_MM_STRUCT_ENV_END,
        OFFSET_MM_STRUCT_ENV_START, OFFSET_TASK_STRUCT_GROUP_LEADER, OFFSET_TASK_STRUCT_MM,
        OFFSET_TASK_STRUCT_START_BOOTTIME, field,
    },
    maps::{BLOCKS, EXPECTED, SCRATCH, ZEROES},
};

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
    let expected = unsafe { *expected };
    // Used once, whatever comes of it. Gone already means that the process is being forgotten.
    let (Ok(()) | Err(_)) = EXPECTED.remove(tgid);
    let same = expected.file == *file
        && started(task) == Some(expected.started)
        && number_of_block(task) == Some(expected.block);
    if same { Comparison::Same } else { Comparison::Different }
}

/// In clock ticks, as /proc shows it. `None`: unreadable.
#[inline(always)]
fn started(task: *const u8) -> Option<u64> {
    let leader: *const u8 = field(task, &OFFSET_TASK_STRUCT_GROUP_LEADER)?;
    let started: u64 = field(leader, &OFFSET_TASK_STRUCT_START_BOOTTIME)?;
    Some(started / NANOSECONDS_A_TICK)
}

/// The number of what lies in the new image's memory as its arguments and environment. `None`: unreadable, or not known.
#[inline(always)]
fn number_of_block(task: *const u8) -> Option<u64> {
    let mm: *const u8 = field(task, &OFFSET_TASK_STRUCT_MM)?;
    let (start, middle): (u64, u64) =
        (field(mm, &OFFSET_MM_STRUCT_ARG_START)?, field(mm, &OFFSET_MM_STRUCT_ARG_END)?);
    let (next, end): (u64, u64) =
        (field(mm, &OFFSET_MM_STRUCT_ENV_START)?, field(mm, &OFFSET_MM_STRUCT_ENV_END)?);
    let (arguments, length) = (middle.wrapping_sub(start), end.wrapping_sub(start));
    if next != middle || arguments > length {
        return None;
    }
    let (block, zeroes) = (SCRATCH.get_ptr_mut(0)?, ZEROES.get_ptr(0)?);
    // SAFETY: the pointer is into this CPU's slot of the map; only this program uses it, and it does not nest.
    let block = unsafe { &mut *block };
    (block.arguments, block.length) = (arguments as u32, length as u32);
    let words = block.words.as_mut_ptr().cast();
    // What an earlier, longer image has left. SAFETY: the helper writes exactly the slot's words.
    if unsafe { bpf_probe_read_kernel(words, BLOCK_BYTES as u32, zeroes.cast()) } != 0 {
        return None;
    }
    // Only now, and hidden from the compiler, which would keep an earlier check and move the number to the stack: Linux 6.1
    // forgets its bounds there.
    let length = black_box(length);
    if length == 0 || length > BLOCK_BYTES as u64 {
        return None;
    }
    // SAFETY: the helper writes at most the slot's size, and fails on an address that cannot be read.
    let read = unsafe { bpf_probe_read_user(words, length as u32, start as *const _) } == 0;
    // The look-up is the comparison: the kernel's own, of every byte. SAFETY: the value is copied at once.
    if read { unsafe { BLOCKS.get(&*block) }.copied() } else { None }
}
