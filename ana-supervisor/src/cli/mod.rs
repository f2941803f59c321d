//! The commands of `ana` and `ana-run`: what people and scripts type, and what they read.

pub mod answer;
pub mod audit;
pub mod ceremony;
pub mod checks;
pub mod doctor;
pub mod passkey;
pub mod policy;
pub mod question;
pub mod run;
pub mod schema;
pub mod sessions;
