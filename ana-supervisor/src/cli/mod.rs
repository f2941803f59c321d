//! The commands of `ana`.

pub mod doctor;
