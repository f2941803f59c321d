//! The sockets between `ana-run`, `ana` and the supervisor: what may be said, how long it may be, and who may say it.

pub mod client;
pub mod frame;
pub mod peer;
pub mod server;
pub mod wire;
