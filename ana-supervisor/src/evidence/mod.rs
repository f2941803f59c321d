//! The evidence: what was decided, by whom, on which operation; signed, chained, on disk before anything goes on.
//!
//! Takes an [`approval::Decided`](crate::approval::Decided) and gives a [`Recorded`], which nothing else can make:
//! only what was recorded can become a ticket. Also takes every other [`Entry`]. A record that is not on the disk
//! is an error, and the caller's answer to an error is deny; this room never says "recorded" on a guess.
//!
//! The log is a folder of segments `000001.jsonl`, `000002.jsonl`, …; each line is a compact JWS whose payload
//! names the hash of the line before ([`record`]). [`verify()`] reads it back and finds every change.

mod chain;
mod decision;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub mod head;
pub mod human;
mod key;
pub mod notes;
pub mod read;
pub mod record;
pub mod sign;
pub mod store;
#[cfg(test)]
pub(crate) mod tests;
pub mod trust;
pub mod verify;
pub mod writer;

pub use decision::Recorded;
pub use error::EvidenceError;
pub use head::{Head, Told};
pub use key::{KeyError, RecordKey};
pub use notes::Notes;
pub use record::{AssertionRecord, Entry, Event, Payload, RecordedVerdict};
pub use store::{Receipt, Store};
pub use trust::{Trust, TrustError};
pub use verify::{BadRecord, Report, VerifyError, verify};
pub use writer::Writer;

/// The longest line that is written or read, in bytes. An exec with as many arguments as Linux allows (6 MiB)
/// still fits, escaped and encoded.
pub const LINE_BYTES_MAX: usize = 64 << 20;
/// A segment that would grow beyond this ends, and the next one begins.
pub const SEGMENT_BYTES_MAX: u64 = 16 << 20;
/// The schema version of [`Payload`].
pub const VERSION: u32 = 1;
/// The file whose lock orders the writers.
pub(crate) const LOCK: &str = "lock";
