//! What the eBPF programs and user space share: the keys and values of maps, the reports, the limits.
//!
//! Everything here crosses the border byte for byte: every type is `repr(C)` without implicit padding (asserted below),
//! padding words are named and zero, and nothing is a `bool` or an `enum`: what was not meant is decoded, never assumed.
#![no_std]

#[cfg(feature = "user")]
mod pod;
mod expected;
pub mod network;
mod report;

pub use expected::{BLOCK_BYTES, BLOCK_WORDS, Block, Expected};
pub use report::{
    KILLED_HOLD_USED, KILLED_NOT_EXPECTED, KILLED_NOT_HELD, KILLED_OTHER_FILE, KILLED_PRIVILEGE,
    KILLED_UNMARKED, KILLED_UNREADABLE, KILLED_UNREPORTED,
};
pub use report::{REPORT_EXEC_HELD, REPORT_EXIT, REPORT_KILLED, Report, STILL_ALIVE};

/// Protected files of one session (`PROTECTED`); one more is an error, never an unprotected file.
pub const PROTECTED_MAX: u32 = 65_536;
/// Armed holds of one session at a time (`HOLDS`).
pub const HOLDS_MAX: u32 = 1024;
/// Execs that were let through without a hold, and have not happened yet (`EXPECTED`).
pub const EXPECTED_MAX: u32 = 1024;
/// Different arguments with their environments that are known at a time (`BLOCKS`).
pub const BLOCKS_MAX: u32 = 256;
/// Processes that were approved to gain privilege and live (`PRIVILEGED`).
pub const PRIVILEGED_MAX: u32 = 1024;
/// Groups that give no power (`HARMLESS_GROUPS`).
pub const HARMLESS_GROUPS_MAX: u32 = 16;
/// Listed places (`PLACES`).
pub const PLACES_MAX: u32 = 65_536;
/// Processes whose end is reported at a time (`WATCHED`).
pub const WATCHED_MAX: u32 = 4096;
/// Entries of the device allow-list (`DEVICES`).
pub const DEVICES_MAX: u32 = 256;
/// Cgroups that are sessions (`SESSIONS`).
pub const SESSIONS_MAX: u32 = 64;
/// Bytes of the report ring: room for about 4,000 reports.
pub const RING_BYTES: u32 = 256 * 1024;
/// /proc counts a process's start in clock ticks of 1/100 s (proc_pid_stat(5), field 22); the kernel in nanoseconds.
pub const NANOSECONDS_A_TICK: u64 = 10_000_000;

/// The identity of a file as the kernel has it: `inode.i_ino` and `super_block.s_dev`. The latter is not always what
/// stat(2) calls the device: overlayfs and btrfs show another number there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileKey {
    pub ino: u64,
    /// In the kernel's own encoding: `major << 20 | minor`.
    pub dev: u32,
    /// Zero.
    pub pad: u32,
}

impl FileKey {
    /// `major` and `minor` as /proc/self/mountinfo shows them.
    pub const fn new(ino: u64, major: u32, minor: u32) -> Self {
        Self { ino, dev: major << 20 | minor & 0xf_ffff, pad: 0 }
    }

    pub const fn major(&self) -> u32 {
        self.dev >> 20
    }

    pub const fn minor(&self) -> u32 {
        self.dev & 0xf_ffff
    }
}

/// The value of `HOLDS`: which single exec may happen in a hold's cgroup.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Armed {
    pub file: FileKey,
    /// Not 0: `file` is a script. The kernel reports its interpreter, so the guard lets any executable through to
    /// the judge.
    pub script: u32,
    /// Zero.
    pub pad: u32,
}

impl Armed {
    /// The hold of an executable.
    pub const fn executable(file: FileKey) -> Self {
        Self { file, script: 0, pad: 0 }
    }

    /// The hold of a script that is executed: the image will be its interpreter's.
    pub const fn script(file: FileKey) -> Self {
        Self { file, script: 1, pad: 0 }
    }
}

/// Bytes of a file's name that a place tells apart.
pub const PLACE_NAME: usize = 64;

/// The key of `PLACES`: a name in a folder. What is executed from there must be protected.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    pub folder: FileKey,
    /// The name's first [`PLACE_NAME`] − 1 bytes, zeroes after it.
    pub name: [u8; PLACE_NAME],
}

impl Place {
    /// A longer name stands for all that start alike: the guard refuses one too many rather than one too few.
    pub fn new(folder: FileKey, name: &[u8]) -> Self {
        let mut place = Self { folder, name: [0; PLACE_NAME] };
        for (to, from) in place.name[..PLACE_NAME - 1].iter_mut().zip(name) {
            *to = *from;
        }
        place
    }
}

/// The key of `DEVICES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeviceKey {
    pub major: u32,
    /// [`EVERY_MINOR`]: all of them.
    pub minor: u32,
}

/// [`DeviceKey::minor`] that stands for all of a major's devices.
pub const EVERY_MINOR: u32 = u32::MAX;

/// Access to a device, as the kernel's `BPF_DEVCG_ACC_*`: the values of `DEVICES` are sums of these.
pub const DEVICE_MKNOD: u32 = 1;
pub const DEVICE_READ: u32 = 2;
pub const DEVICE_WRITE: u32 = 4;

/// `COUNTERS`: reports that found the ring full.
pub const COUNTER_LOST: u32 = 0;
/// `COUNTERS`: refusals and reports that did not go as they should (a kill that failed, kernel memory unreadable).
pub const COUNTER_MISSES: u32 = 1;
/// How many counters there are.
pub const COUNTERS: u32 = 2;

const _: () = {
    assert!(size_of::<FileKey>() == 16 && align_of::<FileKey>() == 8);
    assert!(size_of::<Armed>() == 24 && align_of::<Armed>() == 8);
    assert!(size_of::<DeviceKey>() == 8);
    assert!(size_of::<Place>() == 80 && align_of::<Place>() == 8);
    assert!(size_of::<Expected>() == 32 && align_of::<Expected>() == 8);
    assert!(size_of::<Block>() == 8 + BLOCK_BYTES && align_of::<Block>() == 8);
    assert!(size_of::<Report>() == 48 && align_of::<Report>() == 8);
    assert!(RING_BYTES.is_power_of_two());
};
