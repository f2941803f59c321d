//! Starting the agent: its cgroup, its own mount namespace and terminal, the seal, the base filter, and the warden that
//! outlives the supervisor.
//!
//! Takes what `ana-run` asks for ([`spec::Spec`]); gives a running agent inside the fences, or an error and nothing
//! started. Never runs an instruction of the agent outside of them.

pub mod cgroup;
pub mod child;
pub mod filter;
pub mod leader;
pub mod pids;
pub mod pulse;
pub mod remains;
pub mod seal;
pub mod spec;
pub mod terminal;
pub mod user;
pub mod warden;
