//! The policy from its text to its verdicts. Error messages are in [`golden`].

mod agents;
mod connect;
mod connect_golden;
mod connect_model;
mod git;
mod golden;
mod judging;
mod model;
mod network;

use std::path::Path;

use super::{Policy, PolicyErrors, Source};

fn sources(texts: &[&str]) -> Vec<Source> {
    let name = |at: usize| if at == 0 { "policy.toml".into() } else { format!("policy.d/{at}.toml") };
    texts.iter().enumerate().map(|(at, text)| Source { name: name(at), text: (*text).to_owned() }).collect()
}

fn try_parse(texts: &[&str]) -> Result<Policy, PolicyErrors> {
    Policy::parse(&sources(texts), Path::new("/home/alice"))
}

fn parse(text: &str) -> Policy {
    try_parse(&[text]).unwrap_or_else(|errors| panic!("{errors}"))
}
