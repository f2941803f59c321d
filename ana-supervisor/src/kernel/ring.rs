//! The one way to read what the programs put into a ring.

use aya::maps::{MapData, RingBuf};
use tokio::io::unix::AsyncFd;

use super::KernelError;
use crate::sys;

/// The reader of a ring's records: there is one.
pub struct Ring<T> {
    ring: AsyncFd<RingBuf<MapData>>,
    decode: fn(&[u8]) -> Result<T, KernelError>,
}

impl<T> Ring<T> {
    pub(super) fn new(
        ring: RingBuf<MapData>,
        decode: fn(&[u8]) -> Result<T, KernelError>,
    ) -> Result<Self, KernelError> {
        sys::bpf::poll_ring(ring).map(|ring| Self { ring, decode }).map_err(KernelError::Ring)
    }

    /// The next record; waits for it. Cancelling loses nothing.
    ///
    /// # Errors
    /// The ring cannot be polled, or the record is not of this version (it is consumed).
    pub async fn next(&mut self) -> Result<T, KernelError> {
        loop {
            if let Some(record) = self.try_next()? {
                return Ok(record);
            }
            let mut ready = self.ring.readable_mut().await.map_err(KernelError::Ring)?;
            // Looked at once more before the readiness is cleared: a record that came in between would not wake us.
            let record = ready.get_inner_mut().next().map(|record| (self.decode)(&record));
            match record {
                Some(record) => return record,
                None => ready.clear_ready(),
            }
        }
    }

    /// The next record if there is one. `None` means drained: everything that happened before the call was told.
    ///
    /// # Errors
    /// The record is not of this version (it is consumed).
    pub fn try_next(&mut self) -> Result<Option<T>, KernelError> {
        self.ring.get_mut().next().map(|record| (self.decode)(&record)).transpose()
    }
}
