//! The room on the disk: what is kept free, so that a session that must end can still say so.

use nix::sys::statvfs::fstatvfs;

use super::super::error::EvidenceError;
use super::Store;

/// What is kept free in the file system of the evidence; a sixteenth of one that is smaller than 1 GiB.
pub(super) const RESERVE_BYTES: u64 = 64 << 20;

impl Store {
    /// Whether a decision may still be recorded. Below the reserve none is, and everything is denied: what is left is
    /// for outcomes, losses and ends. Asks the file system (fstatvfs(3)), about a microsecond.
    ///
    /// # Errors
    /// There is too little room, or the file system does not say.
    pub fn room(&self) -> Result<(), EvidenceError> {
        let path = || self.folder.path().to_path_buf();
        let stat = fstatvfs(&self.folder)
            .map_err(|errno| EvidenceError::Read { path: path(), source: errno.into() })?;
        let (free, total) = (stat.blocks_available(), stat.blocks());
        let bytes = |blocks: u64| blocks.saturating_mul(stat.fragment_size());
        let (free, reserve) = (bytes(free), self.reserve_bytes.min(bytes(total) / 16));
        if free < reserve { Err(EvidenceError::NoRoom { path: path(), free, reserve }) } else { Ok(()) }
    }
}
