//! The programs in the running kernel. These tests need root: without it they fail and say so.
#![allow(clippy::wildcard_enum_match_arm, reason = "a test names the one report that it expects")]

mod device;
mod exec;
mod exit;
mod expected;
mod full;
mod identity;
mod network;
mod pins;
mod privilege;
mod stage;
