//! The kernel half of the guard: loading the eBPF programs, attaching them to a session, telling them what is
//! protected and what is held, and hearing what they saw. The only user of the loader crate.
//!
//! Takes a session's cgroup, files by [`FileKey`] and holds by cgroup id; gives [`Report`]s. It decides nothing, and
//! it never resolves a path.

mod blocks;
pub mod btf;
mod counters;
pub mod features;
pub mod identity;
mod load;
mod maps;
pub mod network;
pub mod pins;
mod reports;
mod ring;
#[cfg(test)]
mod tests;

use std::io;

pub use ana_common::{Armed, BLOCK_BYTES, Block, DEVICE_MKNOD, DEVICE_READ, DEVICE_WRITE, FileKey};
pub use counters::Health;
pub use load::{DeviceRule, Kernel, STANDARD_DEVICES, SessionCgroup};
pub use maps::Maps;
pub use reports::{KillReason, Report, Reports};
pub use ring::Ring;

/// Why the kernel half cannot do what it was asked for. Every one of these means: do not start, or deny.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The kernel's types are not what the programs need.
    #[error("cannot find the kernel's structures")]
    Btf(#[from] btf::BtfError),
    /// /proc is not there, or not the one we need.
    #[error("cannot look at our own user namespace")]
    UserNamespace(#[source] io::Error),
    /// The embedded object was not accepted; usually a missing privilege.
    #[error("cannot load the eBPF object (it takes root, or CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN)")]
    Object(#[source] aya::EbpfError),
    /// The kernel's verifier said no.
    #[error("the kernel refused the eBPF program {program}")]
    Refused {
        /// The program's name: the hook's.
        program: &'static str,
        #[source]
        source: Box<aya::programs::ProgramError>,
    },
    /// The embedded object is not the one that this version was built for.
    #[error("the eBPF object has no {0} of the right kind")]
    Missing(&'static str),
    /// The program was loaded but not attached.
    #[error("cannot attach the eBPF program {program}")]
    Attach {
        program: &'static str,
        #[source]
        source: Box<aya::programs::ProgramError>,
    },
    /// The program was loaded but not attached to the session's cgroup.
    #[error("cannot attach the eBPF program {program} to the session's cgroup")]
    AttachCgroup {
        program: &'static str,
        #[source]
        source: io::Error,
    },
    /// Pinning.
    #[error(transparent)]
    Pins(#[from] pins::PinsError),
    /// A map is full, or the entry is there already, or it is gone.
    #[error("cannot change the eBPF map {map}")]
    Map {
        map: &'static str,
        #[source]
        source: aya::maps::MapError,
    },
    /// An entry could not be looked up and removed.
    #[error("cannot take an entry out of the eBPF map {map}")]
    TakeOut {
        map: &'static str,
        #[source]
        source: io::Error,
    },
    /// No network.
    #[error("{0} has no prefix of {1} bits")]
    Prefix(std::net::IpAddr, u32),
    /// The ring cannot be polled.
    #[error("cannot wait for reports of the eBPF programs")]
    Ring(#[source] io::Error),
    /// The reports are read in one place only.
    #[error("the reports of the eBPF programs have been taken already")]
    ReportsTaken,
    /// The programs write something that this version does not know.
    #[error("a report of the eBPF programs is malformed ({0} bytes, kind {1})")]
    MalformedReport(usize, u32),
    /// The counters of a program cannot be read.
    #[error("cannot read the kernel's counters of the eBPF programs")]
    Counters(#[source] io::Error),
}
