//! The head of the log, told to the system's journal at the end of a session: a log whose tail was cut off later
//! has fewer records than the journal says.

use std::os::unix::net::UnixDatagram;
use std::path::Path;

use serde::Serialize;

use super::error::EvidenceError;
use super::sign::Signer;
use super::store::Receipt;

/// Where journald listens (its native protocol).
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";
/// The `typ` of a head: it can never pass for a record.
const TYPE: &str = "ana-evidence-head+jwt";

#[derive(Serialize)]
struct Head<'a> {
    v: u32,
    /// How many records there are.
    seq: u64,
    /// SHA-256 of the last line, base64url.
    hash: &'a str,
    iat: i64,
    host: &'a str,
}

/// Tells the journal, if there is one: the record itself is on the disk already, so this may fail.
pub(super) fn tell(
    socket: &Path,
    signer: &Signer,
    host: &str,
    receipt: &Receipt,
) -> Result<(), EvidenceError> {
    let iat = jiff::Timestamp::now().as_second();
    let head = Head { v: super::VERSION, seq: receipt.seq, hash: &receipt.hash, iat, host };
    let signed = signer.sign_as(TYPE, &serde_json::to_vec(&head)?)?;
    let Receipt { seq, hash } = receipt;
    let message = format!(
        "MESSAGE=evidence has {seq} records, the last line's hash is {hash}\nPRIORITY=5\nSYSLOG_IDENTIFIER=ana\n\
         ANA_EVIDENCE_SEQ={seq}\nANA_EVIDENCE_HASH={hash}\nANA_EVIDENCE_HEAD={signed}\n"
    );
    let failed = |source| EvidenceError::Write { path: socket.to_path_buf(), source };
    let journal = UnixDatagram::unbound().map_err(failed)?;
    // A journal that does not read must not keep anybody waiting.
    journal.set_nonblocking(true).map_err(failed)?;
    journal.send_to(message.as_bytes(), socket).map(drop).map_err(failed)
}
