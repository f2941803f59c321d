//! The commands of `ana` and `ana-run`: what people and scripts type, and what they read.

pub mod answer;
mod asking;
pub mod audit;
pub mod ceremony;
pub mod checks;
pub mod dialog;
pub mod doctor;
pub mod inline;
pub mod keys;
pub mod passkey;
pub mod policy;
pub mod question;
pub mod run;
pub mod schema;
pub mod sessions;
pub mod terminal;
