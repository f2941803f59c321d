//! The end of the log: where the next record goes and what it has to name as `prev`.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use nix::fcntl::OFlag;
use serde::Deserialize;

use super::super::LINE_BYTES_MAX;
use super::super::chain::{self, Line};
use super::super::error::EvidenceError;
use crate::state::{Folder, StateError};

/// The end of the log as it was when the lock was last held.
pub(super) struct Tail {
    /// The last segment.
    pub(super) file: File,
    pub(super) number: u32,
    /// Its length up to the last whole line.
    pub(super) len: u64,
    /// The last record's; 0 when there is none.
    pub(super) seq: u64,
    /// The last line's hash.
    pub(super) prev: String,
}

const GONE: &str = "records that were written are gone";

/// Bytes after the last newline.
type Torn = u64;

impl Tail {
    /// Finds the end of the log; makes the first segment when there is none.
    pub(super) fn find(folder: &Folder) -> Result<(Self, Option<Torn>), EvidenceError> {
        let numbers = chain::segments(folder)?.map_err(|name| EvidenceError::Damaged {
            path: folder.path().join(name),
            what: "this file does not belong here",
        })?;
        let Some((&number, earlier)) = numbers.split_last() else {
            let file = create(folder, 1)?;
            return Ok((Self { file, number: 1, len: 0, seq: 0, prev: chain::link(b"") }, None));
        };
        let name = chain::segment_name(number);
        let path = folder.path().join(&name);
        let file = folder.open_file(&name, OFlag::O_RDWR | OFlag::O_APPEND, 0o600)?;
        let end = End::of(&file).map_err(|source| EvidenceError::Read { path: path.clone(), source })?;
        let (seq, prev) = match (&end.line, earlier.last()) {
            (Some(line), _) => (sequence(line, path)?, chain::link(line)),
            (None, None) => (0, chain::link(b"")),
            (None, Some(&before)) => last_of(folder, before)?,
        };
        Ok((Self { file, number, len: end.len, seq, prev }, (end.torn > 0).then_some(end.torn)))
    }

    /// Brings `known` up to date: nothing is read when nobody else has appended. A log that has become shorter is
    /// an error for as long as this process lives: to go on would hide what is gone.
    pub(super) fn refresh<'a>(
        known: &'a mut Option<Self>,
        folder: &Folder,
    ) -> Result<(&'a mut Self, Option<Torn>), EvidenceError> {
        let mut torn = None;
        let tail = match known.take() {
            None => {
                let (found, bytes) = Self::find(folder)?;
                torn = bytes;
                found
            }
            Some(tail) => match tail.unchanged(folder) {
                Ok(true) => tail,
                Ok(false) => match Self::find(folder) {
                    Ok((found, bytes)) if found.seq >= tail.seq => {
                        torn = bytes;
                        found
                    }
                    Ok(_) => {
                        let path = known.insert(tail).path(folder);
                        return Err(EvidenceError::Damaged { path, what: GONE });
                    }
                    Err(error) => {
                        *known = Some(tail);
                        return Err(error);
                    }
                },
                Err(error) => {
                    *known = Some(tail);
                    return Err(error);
                }
            },
        };
        Ok((known.insert(tail), torn))
    }

    fn unchanged(&self, folder: &Folder) -> Result<bool, EvidenceError> {
        let path = || self.path(folder);
        let metadata = self.file.metadata().map_err(|source| EvidenceError::Read { path: path(), source })?;
        if metadata.nlink() == 0 || metadata.len() < self.len {
            return Err(EvidenceError::Damaged { path: path(), what: GONE });
        }
        let next = chain::segment_name(self.number.saturating_add(1));
        Ok(metadata.len() == self.len && !exists(folder, &next)?)
    }

    /// Cuts off what comes after the last whole line.
    pub(super) fn cut(&self, folder: &Folder) -> Result<(), EvidenceError> {
        let cut = self.file.set_len(self.len).and_then(|()| self.file.sync_all());
        cut.map_err(|source| EvidenceError::Write { path: self.path(folder), source })
    }

    /// Begins the next segment.
    pub(super) fn rotate(&mut self, folder: &Folder) -> Result<(), EvidenceError> {
        let number = self.number.checked_add(1).filter(|number| *number <= 999_999);
        let number = number.ok_or_else(|| EvidenceError::Damaged {
            path: self.path(folder),
            what: "there are no more segment numbers",
        })?;
        self.file = create(folder, number)?;
        self.number = number;
        self.len = 0;
        Ok(())
    }

    pub(super) fn path(&self, folder: &Folder) -> PathBuf {
        folder.path().join(chain::segment_name(self.number))
    }
}

fn create(folder: &Folder, number: u32) -> Result<File, EvidenceError> {
    let flags = OFlag::O_RDWR | OFlag::O_APPEND | OFlag::O_CREAT | OFlag::O_EXCL;
    let name = chain::segment_name(number);
    let file = folder.open_file(&name, flags, 0o600)?;
    file.sync_all().map_err(|source| EvidenceError::Write { path: folder.path().join(name), source })?;
    folder.sync()?;
    Ok(file)
}

fn exists(folder: &Folder, name: &str) -> Result<bool, StateError> {
    match folder.open_file(name, OFlag::O_RDONLY, 0) {
        Ok(_) => Ok(true),
        Err(error) if error.is_missing() => Ok(false),
        Err(error) => Err(error),
    }
}

/// The last record of a segment that is finished.
fn last_of(folder: &Folder, number: u32) -> Result<(u64, String), EvidenceError> {
    let name = chain::segment_name(number);
    let path = folder.path().join(&name);
    let file = folder.open_file(&name, OFlag::O_RDONLY, 0)?;
    let end = End::of(&file).map_err(|source| EvidenceError::Read { path: path.clone(), source })?;
    match end.line {
        Some(line) if end.torn == 0 => Ok((sequence(&line, path)?, chain::link(&line))),
        _ => Err(EvidenceError::Damaged { path, what: "a segment before the last one has no last line" }),
    }
}

fn sequence(line: &[u8], path: PathBuf) -> Result<u64, EvidenceError> {
    #[derive(Deserialize)]
    struct Sequence {
        seq: u64,
    }
    let damaged = |what| EvidenceError::Damaged { path: path.clone(), what };
    let line = Line::parse(line).map_err(damaged)?;
    let payload: Result<Sequence, _> = serde_json::from_slice(&line.payload);
    payload.map(|payload| payload.seq).ok().ok_or_else(|| damaged("the last line is not a record"))
}

/// How a segment ends.
pub(super) struct End {
    /// Length up to and with the last newline.
    len: u64,
    /// Bytes after it.
    pub(super) torn: u64,
    /// The last whole line without its newline.
    pub(super) line: Option<Vec<u8>>,
}

impl End {
    fn of(file: &File) -> io::Result<Self> {
        Self::read(file, file.metadata()?.len())
    }

    /// Of the file's first `size` bytes.
    pub(super) fn read(file: &File, size: u64) -> io::Result<Self> {
        // Two lines at most: a torn one, and the last whole one before it.
        let limit = 2 * (LINE_BYTES_MAX as u64 + 1) + 1;
        let mut window = 16 << 10;
        loop {
            let take = size.min(window).min(limit);
            let mut bytes = vec![0; usize::try_from(take).map_err(io::Error::other)?];
            file.read_exact_at(&mut bytes, size - take)?;
            let whole = take == size;
            let end = bytes.iter().rposition(|byte| *byte == b'\n');
            let start = end.and_then(|end| bytes.iter().take(end).rposition(|byte| *byte == b'\n'));
            match (end, start) {
                (Some(end), Some(start)) => return Ok(Self::new(size, take, end, bytes.get(start + 1..end))),
                (Some(end), None) if whole => return Ok(Self::new(size, take, end, bytes.get(..end))),
                (None, _) if whole => return Ok(Self { len: 0, torn: size, line: None }),
                _ if take == limit => return Err(io::Error::other("a line is longer than allowed")),
                _ => window *= 8,
            }
        }
    }

    fn new(size: u64, take: u64, end: usize, line: Option<&[u8]>) -> Self {
        let len = size - take + end as u64 + 1;
        Self { len, torn: size - len, line: line.map(<[u8]>::to_vec) }
    }
}
