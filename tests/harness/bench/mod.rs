//! What the measuring programs share: processes that work on demand, the questions that a session asks, and the table.

#![allow(clippy::cast_possible_truncation, reason = "an index from a fraction of a length")]

mod desk;
mod table;
mod worker;

use nix::time::{ClockId, clock_gettime};

pub use desk::{ask_for, key, pending, pending_all, sign, socket, supervisor};
pub use table::{Compared, Row, print, quantiles, time};
pub use worker::{Worker, in_turns, serve, times};

/// CLOCK_MONOTONIC, in nanoseconds: the same clock in every process.
pub fn now() -> f64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a clock");
    time.tv_sec() as f64 * 1e9 + time.tv_nsec() as f64
}
