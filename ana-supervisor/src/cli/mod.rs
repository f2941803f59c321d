//! The commands of `ana`.

pub mod doctor;
//! cli

pub mod policy;
pub mod passkey;
pub mod audit;
