//! The engine of ana. The modules are listed in the order in which an operation flows through them:
//! launch → gate → policy → approval → evidence → ticket → resume.
//!
//! A module may use what stands above it in "the nouns" and what stands before it in "the flow"; only
//! [`pipeline`] sees the whole.
#![deny(unsafe_code)]

// The nouns everybody talks about.
pub mod operation;
pub mod state;
#[allow(unsafe_code, reason = "the one room of raw system calls")]
pub mod sys;

// The flow.
pub mod approval;
pub mod evidence;
pub mod gate;
pub mod kernel;
pub mod launch;
pub mod pipeline;
pub mod policy;

// Around it.
pub mod api;
pub mod supervisor;

// The people's side.
pub mod cli;

// Only for those who attack the parsers with random bytes.
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
