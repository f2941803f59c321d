//! The sessions that have a start and no end. Every start asks for them, and a log grows for years: what was found is
//! kept in a file beside the log, and the next time only what came after it is read.
//!
//! The file is a short cut and never believed alone: it names the line up to which the log was read, and where another
//! line is there, or none, the whole log is read again.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};

use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};

use super::super::chain::{self, Line};
use super::super::error::EvidenceError;
use super::super::read::{Next, Segment};
use super::super::record::Event;
use super::tail::End;
use crate::state::Folder;

/// The file, in the state's own folder (0600).
pub(in super::super) const FILE: &str = "open-sessions.json";

/// Thousands of sessions.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What is known of the log up to one of its lines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Open {
    /// The segment with that line; 0 while there is none.
    segment: u32,
    /// Where that line ends in it, its newline included.
    bytes: u64,
    /// That line's hash.
    line: String,
    /// In the order of their start.
    pub(super) sessions: Vec<String>,
}

impl Open {
    /// The open sessions of the log in `evidence`, of which these are the segments at a moment when nobody writes.
    ///
    /// # Errors
    /// The log cannot be read, or holds a line that is not a record.
    pub(super) fn find(
        base: &Folder,
        evidence: &Folder,
        segments: Result<Vec<Segment>, String>,
    ) -> Result<Self, EvidenceError> {
        let segments = segments.map_err(|name| EvidenceError::Damaged {
            path: evidence.path().join(name),
            what: "this file does not belong here",
        })?;
        let kept = Self::kept(base).filter(|kept| kept.is_of(evidence)).unwrap_or_default();
        let mut open = kept.clone();
        for segment in segments {
            if segment.number >= kept.segment {
                open.read(evidence, segment)?;
            }
        }
        // The next start can do it, too.
        if open != kept
            && let Err(error) = open.keep(base)
        {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the open sessions cannot be kept: the next start reads the log again"
            );
        }
        Ok(open)
    }

    fn kept(base: &Folder) -> Option<Self> {
        serde_json::from_slice(&base.read_private(FILE, FILE_BYTES_MAX).ok()??).ok()
    }

    fn keep(&self, base: &Folder) -> Result<(), EvidenceError> {
        Ok(base.replace(FILE, &serde_json::to_vec(self)?, 0o600)?)
    }

    /// Whether the line up to which it was read is still there.
    fn is_of(&self, evidence: &Folder) -> bool {
        let end = || {
            let file = evidence.open_file(&chain::segment_name(self.segment), OFlag::O_RDONLY, 0).ok()?;
            // A shorter file is an error.
            End::read(&file, self.bytes).ok()
        };
        end().is_some_and(|end| {
            end.torn == 0 && end.line.as_deref().map(chain::link).as_deref() == Some(self.line.as_str())
        })
    }

    /// Goes on through this segment, to its last whole line.
    fn read(&mut self, evidence: &Folder, mut segment: Segment) -> Result<(), EvidenceError> {
        /// The little that is needed of a record.
        #[derive(Deserialize)]
        struct Brief {
            event: Event,
            session: Option<String>,
        }
        let (number, path) = (segment.number, evidence.path().join(&segment.name));
        let failed = |source| EvidenceError::Read { path: path.clone(), source };
        let damaged = |what| EvidenceError::Damaged { path: path.clone(), what };
        let mut place = if number == self.segment { self.bytes } else { 0 };
        segment.skip(place).map_err(failed)?;
        let mut lines = segment.lines();
        loop {
            let line = match lines.next().map_err(failed)? {
                Next::Line(line) => line,
                Next::TooLong => return Err(damaged("a line is longer than a record can be")),
                Next::Torn | Next::End => return Ok(()),
            };
            let payload = Line::parse(line).map_err(damaged)?.payload;
            let brief = serde_json::from_slice(&payload).ok();
            let Brief { event, session } = brief.ok_or_else(|| damaged("a line is not a record"))?;
            if let Some(session) = session {
                if matches!(event, Event::SessionStart | Event::SessionEnd) {
                    self.sessions.retain(|open| *open != session);
                }
                if event == Event::SessionStart {
                    self.sessions.push(session);
                }
            }
            place += line.len() as u64 + 1;
            (self.segment, self.bytes, self.line) = (number, place, chain::link(line));
        }
    }
}

impl Segment {
    /// Leaves out its first bytes.
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        self.bytes = self.bytes.saturating_sub(bytes);
        let mut file: &File = &self.file;
        file.seek(SeekFrom::Start(bytes)).map(drop)
    }
}
