//! The head of the log: how many records there are, and the last line's hash, signed. It is told at the end of every
//! session, to the system's journal where there is one and to a file beside the evidence, so that a log whose tail is cut
//! off later has fewer records than its heads say. Whoever can change all of them, and no head was kept elsewhere, is not
//! found out.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};

use super::chain::{self, Line};
use super::error::EvidenceError;
use super::read::{Lines, Next};
use super::sign::{self, Signer};
use super::store::Receipt;
use super::trust::Trust;
use crate::state::Folder;

/// The file of heads, in the state's own folder (0600), one a line.
pub const FILE: &str = "heads.jsonl";
/// Where journald listens (its native protocol).
pub const SOCKET: &str = "/run/systemd/journal/socket";
/// The name that a head has in the journal.
pub const JOURNAL_IDENTIFIER: &str = "ana";
/// The journal's field that holds a head.
pub const JOURNAL_FIELD: &str = "ANA_EVIDENCE_HEAD";
/// The `typ` of a head: it can never pass for a record.
const TYPE: &str = "ana-evidence-head+jwt";
/// More bytes of heads than this are not read.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// What a head says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    pub v: u32,
    /// How many records there were.
    pub seq: u64,
    /// SHA-256 of the last line, base64url.
    pub hash: String,
    /// SHA-256 of the first line: which log it is the head of.
    pub log: String,
    /// Seconds since 1970, UTC.
    pub iat: i64,
    pub host: String,
}

/// A head, and who told it, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub head: Head,
    pub by: String,
}

impl Head {
    /// Reads a head that one of the trusted record keys has signed.
    pub fn parse(text: &str, trust: &Trust) -> Option<Self> {
        #[derive(Deserialize)]
        struct Header {
            kid: String,
        }
        let line = Line::parse(text.trim().as_bytes()).ok()?;
        let header: Header = serde_json::from_slice(&line.header).ok()?;
        let key = trust.key(&header.kid)?;
        let expected = sign::header(TYPE, key.algorithm(), key.kid());
        let signed = line.header == expected.as_bytes() && key.verifies(line.signed, &line.signature);
        let head: Self = serde_json::from_slice(&line.payload).ok()?;
        (signed && head.v == super::VERSION).then_some(head)
    }

    fn sign(&self, signer: &Signer) -> Result<String, EvidenceError> {
        signer.sign_as(TYPE, &serde_json::to_vec(self)?)
    }
}

/// The heads in a file, and how many of its lines are none of a trusted key.
///
/// # Errors
/// The file cannot be read.
pub fn read(path: &Path, trust: &Trust) -> io::Result<(Vec<Told>, usize)> {
    let mut text = String::new();
    File::open(path)?.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let heads: Vec<Told> = lines
        .iter()
        .filter_map(|line| Some(Told { head: Head::parse(line, trust)?, by: path.display().to_string() }))
        .collect();
    let strange = lines.len() - heads.len();
    Ok((heads, strange))
}

/// Where heads are told.
pub(super) struct Heralds<'a> {
    pub(super) journal: &'a Path,
    pub(super) base: &'a Folder,
    pub(super) evidence: &'a Folder,
}

impl Heralds<'_> {
    /// Tells the head. The record itself is on the disk already, so each of the two may fail.
    ///
    /// # Errors
    /// There is no first line, or the head cannot be signed.
    pub(super) fn tell(&self, signer: &Signer, host: &str, receipt: &Receipt) -> Result<(), EvidenceError> {
        let Receipt { seq, hash } = receipt.clone();
        let iat = jiff::Timestamp::now().as_second();
        let head = Head { v: super::VERSION, seq, hash, log: self.log()?, iat, host: host.into() };
        let signed = head.sign(signer)?;
        if let Err(error) = self.keep(&signed) {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the head of the evidence cannot be kept"
            );
        }
        // A container has no journal.
        self.tell_journal(&head, &signed).ok();
        Ok(())
    }

    /// The first line's hash.
    fn log(&self) -> Result<String, EvidenceError> {
        let name = chain::segment_name(1);
        let path = self.evidence.path().join(&name);
        let file = self.evidence.open_file(&name, OFlag::O_RDONLY, 0)?;
        let mut lines = Lines::new(file);
        match lines.next().map_err(|source| EvidenceError::Read { path: path.clone(), source })? {
            Next::Line(line) => Ok(chain::link(line)),
            Next::Torn | Next::TooLong | Next::End => {
                Err(EvidenceError::Damaged { path, what: "it has no first line" })
            }
        }
    }

    fn keep(&self, signed: &str) -> Result<(), EvidenceError> {
        let flags = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT;
        let mut file = self.base.open_file(FILE, flags, 0o600)?;
        let written = file.write_all(format!("{signed}\n").as_bytes()).and_then(|()| file.sync_data());
        written.map_err(|source| EvidenceError::Write { path: self.base.path().join(FILE), source })
    }

    fn tell_journal(&self, head: &Head, signed: &str) -> io::Result<()> {
        let Head { seq, hash, .. } = head;
        let message = format!(
            "MESSAGE=evidence has {seq} records, the last line's hash is {hash}\nPRIORITY=5\n\
             SYSLOG_IDENTIFIER={JOURNAL_IDENTIFIER}\nANA_EVIDENCE_SEQ={seq}\nANA_EVIDENCE_HASH={hash}\n\
             {JOURNAL_FIELD}={signed}\n"
        );
        let journal = UnixDatagram::unbound()?;
        // A journal that does not read must not keep anybody waiting.
        journal.set_nonblocking(true)?;
        journal.send_to(message.as_bytes(), self.journal).map(drop)
    }
}
