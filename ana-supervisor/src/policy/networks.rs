//! The examples for connections: what goes with the starter for git, as a file of its own or behind it.

/// Everything may be reached but for a list. A file for `policy.d`, beside [`super::GIT_EXAMPLE`].
pub const NETWORK_APPROVE_EXAMPLE: &str = include_str!("../../policies/network-approve.toml");
/// Nothing may be reached but for a list.
pub const NETWORK_STRICT_EXAMPLE: &str = include_str!("../../policies/network-strict.toml");

/// The rules of an example without its head: the text goes behind that of [`super::starter`].
pub fn network_starter(example: &'static str) -> &'static str {
    example.find("\n# ---- ").map_or("", |head| &example[head..])
}
