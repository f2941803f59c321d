//! What can go wrong when a record is written; the answer to each is deny.

use std::path::PathBuf;

use crate::operation::canonical::CanonicalError;
use crate::state::StateError;

#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    #[error("the evidence folder cannot be used")]
    State(#[from] StateError),
    #[error("the signing key {} is not usable", path.display())]
    SigningKey { path: PathBuf, source: SigningKeyError },
    #[error("{} holds several signing keys: keep the one to use", path.display())]
    SeveralKeys { path: PathBuf },
    #[error("the record is inconsistent: {0}")]
    Entry(&'static str),
    #[error("the operation has no canonical form")]
    Canonical(#[from] CanonicalError),
    #[error("the record has no JSON form")]
    Json(#[from] serde_json::Error),
    #[error("the record is {bytes} bytes long, {limit} are allowed")]
    TooLong { bytes: usize, limit: usize },
    #[error("the record cannot be signed")]
    Sign(#[source] jsonwebtoken::errors::Error),
    #[error("the record's signature is malformed")]
    Signature,
    #[error("{}: the record is not on the disk", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{}: the evidence so far cannot be read", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} is damaged ({what}): see `ana audit verify`; move the evidence folder away to start a new log", path.display())]
    Damaged { path: PathBuf, what: &'static str },
    #[error(
        "only {} MiB are free in {}, and {} MiB are kept for the ends of sessions: make room there",
        free >> 20, path.display(), reserve >> 20
    )]
    NoRoom { path: PathBuf, free: u64, reserve: u64 },
    #[error("the note of what was let through cannot be written")]
    Note(#[source] std::io::Error),
    #[error("it was to be written together with others")]
    Together(#[source] std::sync::Arc<EvidenceError>),
    #[error("the writer of the evidence has stopped")]
    Stopped,
    #[error("the host has no name")]
    Host(#[source] nix::errno::Errno),
}

#[derive(Debug, thiserror::Error)]
pub enum SigningKeyError {
    #[error("it is not text")]
    Text(#[from] std::string::FromUtf8Error),
    #[error("it is no PKCS#8 key for ES256")]
    Pkcs8(#[from] p256::pkcs8::Error),
    #[error("its name is not its thumbprint ({0})")]
    Name(String),
}
