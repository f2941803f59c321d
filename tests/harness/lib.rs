//! What the tests of ana stand on: an unprivileged user, a state folder per test, the real binaries, a protected
//! program that leaves a mark whenever it runs, and the evidence read by code that is not ana's.
//!
//! Everything here panics with what was awaited and what was there instead: a test has no better answer.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "test code: a panic names the broken promise and keeps the stack trace"
)]

pub mod answers;
pub mod attempt;
pub mod bench;
pub mod claude;
pub mod fuse;
pub mod ground;
pub mod keys;
pub mod machine;
pub mod model;
pub mod net;
pub mod processes;
pub mod records;
pub mod session;
pub mod skip;
pub mod sudoers;
pub mod terminal;
pub mod wait;
pub mod webauthn;

pub use ground::{Ground, Marker};
pub use net::Net;
pub use session::{Finished, Session};
