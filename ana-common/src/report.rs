//! What the programs tell user space, in the order in which it happened.

use crate::FileKey;

/// One record of the ring.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// One of `REPORT_*`.
    pub kind: u32,
    /// The process (thread group), in the initial pid namespace.
    pub tgid: u32,
    /// The id of the cgroup that the process is in: for an exec that is held, the hold's.
    pub cgroup: u64,
    /// The executable; for a script its interpreter. Zero where it could not be read, and for an exit.
    pub file: FileKey,
    /// Killed: a `KILLED_*` reason, perhaps with [`STILL_ALIVE`]. Exit: the wait status.
    pub value: u64,
    /// Nanoseconds of CLOCK_BOOTTIME.
    pub boot_ns: u64,
}

/// An armed hold's one exec is complete; the freezer stops the new image before its first instruction.
pub const REPORT_EXEC_HELD: u32 = 1;
/// The guard killed an exec before its first instruction.
pub const REPORT_KILLED: u32 = 2;
/// The last thread of a watched process is gone.
pub const REPORT_EXIT: u32 = 3;

/// A protected file was executed outside of any hold.
pub const KILLED_NOT_HELD: u64 = 1;
/// Another file than the held one was executed.
pub const KILLED_OTHER_FILE: u64 = 2;
/// The kernel's own structures could not be read: what was executed is not known.
pub const KILLED_UNREADABLE: u64 = 3;
/// A second exec in a hold that had seen its one.
pub const KILLED_HOLD_USED: u64 = 4;
/// The exec of a hold could not be reported: the ring was full.
pub const KILLED_UNREPORTED: u64 = 5;
/// The exec was let through for other arguments or another environment than it came with.
pub const KILLED_NOT_EXPECTED: u64 = 6;
/// The exec gained privilege without being held.
pub const KILLED_PRIVILEGE: u64 = 7;
/// The file lies where the policy protects one, and is not protected yet: it has just been put there.
pub const KILLED_UNMARKED: u64 = 8;
/// Added to a reason when the signal could not be sent (the global init): the process runs on, somebody must act.
pub const STILL_ALIVE: u64 = 1 << 32;

impl Report {
    /// Bytes of a report in the ring.
    pub const SIZE: usize = size_of::<Self>();

    /// Reads a ring record. `None`: it is not of the size that this version writes.
    pub fn decode(record: &[u8]) -> Option<Self> {
        if record.len() != Self::SIZE {
            return None;
        }
        Some(Self {
            kind: word(record, 0)?,
            tgid: word(record, 4)?,
            cgroup: long(record, 8)?,
            file: FileKey { ino: long(record, 16)?, dev: word(record, 24)?, pad: word(record, 28)? },
            value: long(record, 32)?,
            boot_ns: long(record, 40)?,
        })
    }
}

fn word(record: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*record.get(at..)?.first_chunk()?))
}

fn long(record: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*record.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_decoded_field_by_field() {
        let mut record = [0u8; Report::SIZE];
        for (at, byte) in (0u8..).zip(record.iter_mut()) {
            *byte = at;
        }
        let long = |at: u8| u64::from_ne_bytes(core::array::from_fn(|i| at + u8::try_from(i).unwrap()));
        let word = |at: u8| u32::from_ne_bytes(core::array::from_fn(|i| at + u8::try_from(i).unwrap()));
        let expected = Report {
            kind: word(0),
            tgid: word(4),
            cgroup: long(8),
            file: FileKey { ino: long(16), dev: word(24), pad: word(28) },
            value: long(32),
            boot_ns: long(40),
        };
        assert_eq!(Report::decode(&record), Some(expected));
    }

    #[test]
    fn another_size_is_no_report() {
        assert_eq!(Report::decode(&[0; Report::SIZE - 1]), None);
        assert_eq!(Report::decode(&[0; Report::SIZE + 8]), None);
        assert_eq!(Report::decode(&[]), None);
    }
}
