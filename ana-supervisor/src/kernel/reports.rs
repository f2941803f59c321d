//! What the programs saw, in order.

use super::{KernelError, ring::Ring};
use ana_common::{
    FileKey, KILLED_HOLD_USED, KILLED_NOT_EXPECTED, KILLED_NOT_HELD, KILLED_OTHER_FILE, KILLED_PRIVILEGE,
    KILLED_UNMARKED, KILLED_UNREADABLE, KILLED_UNREPORTED, REPORT_EXEC_HELD, REPORT_EXIT, REPORT_KILLED,
    STILL_ALIVE,
};

/// Something that a program saw. Times are nanoseconds of CLOCK_BOOTTIME; a `tgid` is a pid of the initial namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// The one exec of an armed hold is complete; the freezer stops it before its first instruction.
    ExecHeld {
        /// The hold's cgroup id.
        hold: u64,
        tgid: u32,
        /// The executable; for a script its interpreter.
        file: FileKey,
        boot_ns: u64,
    },
    /// The guard killed an exec before its first instruction.
    Killed {
        tgid: u32,
        /// Zero when it could not be read.
        file: FileKey,
        /// The id of the cgroup it was in.
        cgroup: u64,
        reason: KillReason,
        /// The signal could not be sent: the process runs, somebody must act.
        still_alive: bool,
        boot_ns: u64,
    },
    /// A watched process is over.
    Exited {
        tgid: u32,
        /// As wait(2) gives it.
        status: i32,
        boot_ns: u64,
    },
}

/// Why the guard killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillReason {
    /// A protected file was executed outside of any hold.
    NotHeld,
    /// Another file than the held one was executed.
    OtherFile,
    /// What was executed could not be read from the kernel's memory.
    Unreadable,
    /// A second exec in a hold that had seen its one.
    HoldUsed,
    /// The exec of a hold could not be reported.
    Unreported,
    /// Let through for other arguments or another environment.
    NotExpected,
    /// It gained privilege outside of any hold.
    Privilege,
    /// The file has just been put where a protected one is expected.
    Unmarked,
    /// Of another version.
    Unknown(u32),
}

impl KillReason {
    fn decode(value: u64) -> Self {
        match value & !STILL_ALIVE {
            KILLED_NOT_HELD => Self::NotHeld,
            KILLED_OTHER_FILE => Self::OtherFile,
            KILLED_UNREADABLE => Self::Unreadable,
            KILLED_HOLD_USED => Self::HoldUsed,
            KILLED_UNREPORTED => Self::Unreported,
            KILLED_NOT_EXPECTED => Self::NotExpected,
            KILLED_PRIVILEGE => Self::Privilege,
            KILLED_UNMARKED => Self::Unmarked,
            other => Self::Unknown(u32::try_from(other).unwrap_or(u32::MAX)),
        }
    }

    /// For people and for records.
    pub fn text(self) -> &'static str {
        match self {
            Self::NotHeld => "a protected file was executed outside of any hold",
            Self::OtherFile => "another file than the held one was executed",
            Self::Unreadable => "what was executed could not be read",
            Self::HoldUsed => "a second exec followed in the same hold",
            Self::Unreported => "the exec could not be reported: too many reports at once",
            Self::NotExpected => {
                "a protected file was executed with other arguments than it was let through for"
            }
            Self::Privilege => "an exec gained privilege outside of any hold",
            Self::Unmarked => "a file was executed that had just been put into the place of a protected one",
            Self::Unknown(_) => "the guard refused for an unknown reason",
        }
    }
}

impl Report {
    pub(super) fn decode(record: &[u8]) -> Result<Self, KernelError> {
        let raw = ana_common::Report::decode(record).ok_or(KernelError::MalformedReport(record.len(), 0))?;
        let ana_common::Report { kind, tgid, cgroup, file, value, boot_ns } = raw;
        match kind {
            REPORT_EXEC_HELD => Ok(Self::ExecHeld { hold: cgroup, tgid, file, boot_ns }),
            REPORT_KILLED => {
                let (reason, still_alive) = (KillReason::decode(value), value & STILL_ALIVE != 0);
                Ok(Self::Killed { tgid, file, cgroup, reason, still_alive, boot_ns })
            }
            REPORT_EXIT => match u32::try_from(value) {
                Ok(status) => Ok(Self::Exited { tgid, status: status.cast_signed(), boot_ns }),
                Err(_too_wide) => Err(KernelError::MalformedReport(record.len(), kind)),
            },
            _ => Err(KernelError::MalformedReport(record.len(), kind)),
        }
    }
}

/// The reader of the reports.
pub type Reports = Ring<Report>;
