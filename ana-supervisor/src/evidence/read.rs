//! Reading the log without judging it: for lists and exports. What it says is proven by [`super::verify()`] only.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Take};
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;

use nix::fcntl::OFlag;

use super::chain::{self, Line};
use super::error::EvidenceError;
use super::record::Payload;
use super::{LINE_BYTES_MAX, store};
use crate::state::Folder;

/// One segment as it was when the log was looked at.
pub(crate) struct Segment {
    pub(crate) number: u32,
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(super) file: File,
}

impl Segment {
    pub(crate) fn lines(self) -> Lines<Take<File>> {
        Lines::new(self.file.take(self.bytes))
    }
}

/// The segments in order, of a moment at which no record is half written. The outer error: the log cannot be read.
/// The inner one: the name of a file that does not belong to it.
pub(crate) fn segments(folder: &Folder) -> Result<Result<Vec<Segment>, String>, EvidenceError> {
    let _lock = store::lock_shared(folder)?;
    segments_locked(folder)
}

/// The same, by a caller that holds the lock.
pub(crate) fn segments_locked(folder: &Folder) -> Result<Result<Vec<Segment>, String>, EvidenceError> {
    let numbers = match chain::segments(folder)? {
        Ok(numbers) => numbers,
        Err(name) => return Ok(Err(name)),
    };
    let mut segments = Vec::new();
    for number in numbers {
        let name = chain::segment_name(number);
        let file = folder.open_file(&name, OFlag::O_RDONLY, 0)?;
        let metadata = file.metadata();
        let metadata =
            metadata.map_err(|source| EvidenceError::Read { path: folder.path().join(&name), source })?;
        segments.push(Segment { number, name, bytes: metadata.size(), file });
    }
    Ok(Ok(segments))
}

/// The lines of a segment, each with its limit.
pub(crate) struct Lines<R: Read> {
    reader: BufReader<R>,
    buffer: Vec<u8>,
}

/// One line of a segment.
pub(crate) enum Next<'a> {
    /// Without its newline.
    Line(&'a [u8]),
    /// The file ends in the middle of a line.
    Torn,
    /// Longer than a record can be.
    TooLong,
    End,
}

impl<R: Read> Lines<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader: BufReader::with_capacity(1 << 16, reader), buffer: Vec::new() }
    }

    pub(crate) fn next(&mut self) -> io::Result<Next<'_>> {
        self.buffer.clear();
        let limit = LINE_BYTES_MAX as u64 + 1;
        (&mut self.reader).take(limit).read_until(b'\n', &mut self.buffer)?;
        Ok(match self.buffer.as_slice() {
            [] => Next::End,
            [line @ .., b'\n'] => Next::Line(line),
            rest if rest.len() as u64 == limit => Next::TooLong,
            _ => Next::Torn,
        })
    }
}

/// Calls `each` with every record's payload, oldest first, until it breaks. Signatures are not checked; an unfinished
/// last line is left out.
///
/// # Errors
/// The log cannot be read, or holds a line that is not a record.
pub fn payloads(
    folder: &Folder,
    mut each: impl FnMut(Payload) -> ControlFlow<()>,
) -> Result<(), EvidenceError> {
    let segments = segments(folder)?.map_err(|name| EvidenceError::Damaged {
        path: folder.path().join(name),
        what: "this file does not belong here",
    })?;
    for segment in segments {
        let path = folder.path().join(&segment.name);
        let damaged = |what| EvidenceError::Damaged { path: path.clone(), what };
        let mut lines = segment.lines();
        loop {
            let next = lines.next().map_err(|source| EvidenceError::Read { path: path.clone(), source })?;
            let line = match next {
                Next::Line(line) => Line::parse(line).map_err(damaged)?,
                Next::TooLong => return Err(damaged("a line is longer than a record can be")),
                Next::Torn | Next::End => break,
            };
            let payload = serde_json::from_slice(&line.payload).ok();
            if each(payload.ok_or_else(|| damaged("a line is not a record"))?).is_break() {
                return Ok(());
            }
        }
    }
    Ok(())
}
