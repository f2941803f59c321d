//! What a rule lets go on is written down behind it. So that nothing is missing when the supervisor is killed in between, it
//! is noted before it goes on, in a file that outlives the supervisor: what was written to it stays in the kernel's memory.
//! (A machine that crashes takes it along, with what it was about.) Whoever records the session's end records what is noted
//! there.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::{Arc, Mutex, PoisonError},
};

use nix::fcntl::OFlag;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    operation::Bytes,
    state::{Folder, StateError},
};

/// Notes at a time: what waits to be taken, what waits to be written, and what is folded.
const NOTES_MAX: u32 = 4096;
/// Bytes of one note; the file is sparse. What is longer is held instead.
const NOTE_BYTES: usize = 64 << 10;
/// Digits of the count before each note.
const COUNT_WIDTH: usize = 10;

/// What is noted of an operation that is let through.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Noted<'a> {
    pub program: &'a Bytes,
    pub argv: &'a [Bytes],
    pub rule: &'a str,
    pub pid: i32,
    /// With milliseconds, in UTC.
    pub at: &'a str,
}

/// The notes of one session.
#[derive(Clone, Debug)]
pub struct Notes(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: File,
    places: Mutex<Places>,
}

/// Which places are taken. The lowest free one is used, so that few are ever touched.
#[derive(Debug, Default)]
struct Places {
    free: BTreeSet<u32>,
    /// All from here on have never been used.
    fresh: u32,
}

/// One note. Dropping it leaves it there.
#[derive(Debug)]
pub struct Note {
    notes: Arc<Inner>,
    place: u32,
}

impl Notes {
    /// An empty file for a session's notes.
    ///
    /// # Errors
    /// It is there already, or cannot be made.
    pub fn create(run: &Folder, session: &str) -> Result<Self, StateError> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
        let file = run.open_file(&name(session), flags, 0o600)?;
        Ok(Self(Arc::new(Inner { file, places: Mutex::default() })))
    }

    /// Notes it. When this returns, it will not be forgotten.
    ///
    /// # Errors
    /// There are too many, it is too long, or there is no room.
    pub fn write(&self, noted: &Noted<'_>) -> io::Result<Note> {
        let mut line = count(1).into_bytes();
        serde_json::to_writer(&mut line, noted)?;
        line.push(b'\n');
        if line.len() > NOTE_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let place = self.0.places().take().ok_or(io::ErrorKind::QuotaExceeded)?;
        let note = Note { notes: Arc::clone(&self.0), place };
        match note.write_at(&line) {
            Ok(()) => Ok(note),
            Err(error) => {
                note.settle();
                Err(error)
            }
        }
    }
}

impl Note {
    /// It stands for so many.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn count(&self, number: u64) -> io::Result<()> {
        self.write_at(count(number).as_bytes())
    }

    /// It has been written down, or did not happen.
    pub fn settle(self) {
        // What cannot be wiped out stays, and its place is not used again.
        if self.write_at(b"\n").is_ok() {
            self.notes.places().free.insert(self.place);
        }
    }

    fn write_at(&self, bytes: &[u8]) -> io::Result<()> {
        self.notes.file.write_all_at(bytes, offset(self.place))
    }
}

impl Inner {
    fn places(&self) -> std::sync::MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    fn take(&mut self) -> Option<u32> {
        if let Some(place) = self.free.pop_first() {
            return Some(place);
        }
        let fresh = self.fresh;
        (fresh < NOTES_MAX).then(|| {
            self.fresh += 1;
            fresh
        })
    }
}

/// What a session left noted, as JSON, with a `count` each. Nothing of a session that has no notes.
///
/// # Errors
/// The file is there and cannot be read.
pub fn left(run: &Folder, session: &str) -> Result<Vec<Value>, StateError> {
    let file = match run.open_file(&name(session), OFlag::O_RDONLY, 0) {
        Ok(file) => file,
        Err(error) if error.is_missing() => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let failed = |source| StateError::Read { path: run.path().join(name(session)), source };
    let length = file.metadata().map_err(failed)?.len();
    let mut found = Vec::new();
    for place in (0..NOTES_MAX).take_while(|&place| offset(place) < length) {
        let mut first = [0];
        if file.read_at(&mut first, offset(place)).map_err(failed)? == 0 || first == *b"\n" || first == [0] {
            continue;
        }
        let mut bytes = vec![0; NOTE_BYTES];
        let read = file.read_at(&mut bytes, offset(place)).map_err(failed)?;
        // One that was not finished was not let go on.
        found.extend(parsed(bytes.get(..read).unwrap_or_default()));
    }
    Ok(found)
}

/// Removes a session's notes, if there are any.
pub fn remove(run: &Folder, session: &str) {
    // What is left over tells of nothing that is not recorded.
    run.remove(&name(session)).ok();
}

fn parsed(bytes: &[u8]) -> Option<Value> {
    let line = bytes.split(|&byte| byte == b'\n').next()?;
    let (count, noted) = line.split_at_checked(COUNT_WIDTH)?;
    let count: u64 = std::str::from_utf8(count).ok()?.trim().parse().ok()?;
    let mut noted: Map<String, Value> = serde_json::from_slice(noted).ok()?;
    noted.insert("count".to_owned(), count.into());
    Some(noted.into())
}

fn count(number: u64) -> String {
    format!("{number:>COUNT_WIDTH$}")
}

fn offset(place: u32) -> u64 {
    u64::from(place) * NOTE_BYTES as u64
}

fn name(session: &str) -> String {
    format!("{session}.notes")
}
