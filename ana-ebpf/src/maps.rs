//! All maps. Their names are the contract with the loader.

use ana_common::{
    Armed, BLOCK_WORDS, BLOCKS_MAX, Block, COUNTERS as COUNTERS_LEN, DEVICES_MAX, DeviceKey, EXPECTED_MAX,
    Expected, FileKey, HARMLESS_GROUPS_MAX, HOLDS_MAX, PLACES_MAX, PRIVILEGED_MAX, PROTECTED_MAX, Place,
    RING_BYTES, SESSIONS_MAX, WATCHED_MAX,
};
use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, PerCpuArray, RingBuf},
};

/// Cgroup ids of the sessions.
#[map]
pub static SESSIONS: HashMap<u64, u8> = HashMap::with_max_entries(SESSIONS_MAX, 0);

/// One entry: the depth of the sessions' cgroups below the v2 root. 0: not known, look at every level.
#[map]
pub static SESSION_LEVEL: Array<u32> = Array::with_max_entries(1, 0);

/// Files whose exec must have been held. The capacity is a limit, not a reservation.
#[map]
pub static PROTECTED: HashMap<FileKey, u8> = HashMap::with_max_entries(PROTECTED_MAX, BPF_F_NO_PREALLOC);

/// Cgroup id of a hold -> the one exec that may happen in it. Keyed by cgroup and not by process: a process that
/// leaves, fails its exec or ends takes no permission with it.
#[map]
pub static HOLDS: HashMap<u64, Armed> = HashMap::with_max_entries(HOLDS_MAX, 0);

/// Holds whose one exec has happened. User space forgets one when it disarms the hold.
#[map]
pub static SEEN: HashMap<u64, u8> = HashMap::with_max_entries(HOLDS_MAX, 0);

/// Process -> the one exec of a protected file that it may do without a hold. It is forgotten when it has happened, and
/// with the process.
#[map]
pub static EXPECTED: HashMap<u32, Expected> = HashMap::with_max_entries(EXPECTED_MAX, BPF_F_NO_PREALLOC);

/// Arguments with an environment -> their number. A number is given once: an entry that user space removes to make room
/// never means another block.
#[map]
pub static BLOCKS: HashMap<Block, u64> = HashMap::with_max_entries(BLOCKS_MAX, BPF_F_NO_PREALLOC);

/// Where an image's arguments and environment are copied to.
#[map]
pub static SCRATCH: PerCpuArray<Block> = PerCpuArray::with_max_entries(1, 0);

/// One entry, which nobody writes: what [`SCRATCH`] is cleared with.
#[map]
pub static ZEROES: Array<[u64; BLOCK_WORDS]> = Array::with_max_entries(1, 0);

/// Processes that were approved to gain privilege. What they execute, and what their children do, is theirs.
#[map]
pub static PRIVILEGED: HashMap<u32, u8> = HashMap::with_max_entries(PRIVILEGED_MAX, 0);

/// Groups whose members can do nothing that others cannot.
#[map]
pub static HARMLESS_GROUPS: HashMap<u32, u8> = HashMap::with_max_entries(HARMLESS_GROUPS_MAX, 0);

/// Where the policy's files lie: an unprotected file that is executed from there has just been put there.
#[map]
pub static PLACES: HashMap<Place, u8> = HashMap::with_max_entries(PLACES_MAX, BPF_F_NO_PREALLOC);

/// Processes whose end is reported.
#[map]
pub static WATCHED: HashMap<u32, u8> = HashMap::with_max_entries(WATCHED_MAX, 0);

/// What the session may do with which character device. What is not listed is refused.
#[map]
pub static DEVICES: HashMap<DeviceKey, u32> = HashMap::with_max_entries(DEVICES_MAX, 0);

#[map]
pub static REPORTS: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);

/// `COUNTER_*`.
#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTERS_LEN, 0);
