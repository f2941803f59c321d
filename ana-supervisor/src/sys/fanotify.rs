//! Fanotify (fanotify(7)): permission events of files, and the names that come and go in folders. `nix` offers neither
//! pidfd and name records nor marks on an open file.

use std::{
    ffi::{CStr, CString},
    io,
    mem::size_of,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    time::Duration,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

/// A fanotify group of class CONTENT: its events wait for an answer.
#[derive(Debug)]
pub struct Group(OwnedFd);

/// One blocked open. Dropping it without an answer leaves the process blocked.
#[derive(Debug)]
pub struct Event {
    /// FAN_OPEN_PERM or FAN_OPEN_EXEC_PERM.
    pub mask: u64,
    /// The process (thread group) that opens, in our pid namespace; 0 when it is in none that we can see.
    pub pid: i32,
    /// The file itself, opened for reading by the kernel; reading it raises no event.
    pub file: OwnedFd,
    /// The process; `None` when it was gone before the event was read.
    pub process: Option<OwnedFd>,
}

impl Event {
    /// An exec (the first of its two events).
    pub fn is_exec(&self) -> bool {
        self.mask & libc::FAN_OPEN_EXEC_PERM != 0
    }
}

/// The answer to an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Allow,
    /// EPERM for the process that opens.
    Deny,
}

impl Group {
    /// # Errors
    /// EPERM without CAP_SYS_ADMIN; ENOSYS or EINVAL where the kernel has no permission events.
    pub fn new() -> io::Result<Self> {
        let flags = libc::FAN_CLASS_CONTENT
            | libc::FAN_UNLIMITED_QUEUE
            | libc::FAN_UNLIMITED_MARKS
            | libc::FAN_REPORT_PIDFD
            | libc::FAN_NONBLOCK
            | libc::FAN_CLOEXEC;
        Ok(Self(init(flags)?))
    }

    /// Marks the inode behind `file` (O_PATH will do): every open of it waits for an answer of this group.
    pub fn protect(&self, file: BorrowedFd) -> io::Result<()> {
        let mask = libc::FAN_OPEN_PERM | libc::FAN_OPEN_EXEC_PERM;
        // fanotify takes no O_PATH descriptor for the object itself, but follows this link to it.
        let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        mark(self.0.as_fd(), libc::FAN_MARK_ADD, mask, file, &path)
    }

    /// Waits for events, or for something to be read from `bell`, at most `limit` (rounded up to milliseconds); tells
    /// whether there are events, and whether the bell has rung.
    pub fn wait(&self, bell: BorrowedFd, limit: Duration) -> io::Result<(bool, bool)> {
        let millis = limit.as_nanos().div_ceil(1_000_000);
        let timeout = PollTimeout::try_from(millis).map_err(io::Error::other)?;
        let wanted = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut both = [wanted(self.0.as_fd()), wanted(bell)];
        match poll(&mut both, timeout) {
            Ok(_) => Ok(both.each_ref().map(|fd| fd.any().unwrap_or(true)).into()),
            Err(Errno::EINTR) => Ok((false, false)),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Appends the events that there are to `into`.
    ///
    /// # Errors
    /// EAGAIN when there is none (whoever waited may have been killed since); else what read(2) says; an event that cannot
    /// be handed over (EMFILE) has been denied by the kernel.
    pub fn read(&self, buffer: &mut Buffer, into: &mut Vec<Event>) -> io::Result<()> {
        parse(buffer.fill(self.0.as_fd())?, &mut |raw| {
            // SAFETY: a non-negative number here is a descriptor that the kernel installed for us in this read, and
            // nobody else owns it; each record is handed over once.
            let owned = |fd: i32| (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) });
            let process = raw.pidfd.and_then(owned);
            if let Some(file) = owned(raw.fd) {
                into.push(Event { mask: raw.mask, pid: raw.pid, file, process });
            }
        })
    }

    /// Lets the process go on, or fails its open.
    ///
    /// # Errors
    /// ENOENT when the process has died meanwhile: nothing is left to be answered.
    pub fn answer(&self, file: BorrowedFd, answer: Answer) -> io::Result<()> {
        let response = libc::fanotify_response {
            fd: file.as_raw_fd(),
            response: match answer {
                Answer::Allow => libc::FAN_ALLOW,
                Answer::Deny => libc::FAN_DENY,
            },
        };
        let size = size_of_val(&response);
        // SAFETY: `response` is a plain structure of `size` bytes that lives across the call.
        let done = unsafe { libc::write(self.0.as_raw_fd(), (&raw const response).cast(), size) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A fanotify group that waits for nothing: it tells which names appear in the folders that are watched.
#[derive(Debug)]
pub struct Watch(OwnedFd);

/// What a [`Watch`] tells.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    /// A name was created in a watched folder, or moved into it.
    Appeared {
        name: Vec<u8>,
        /// The process (thread group) that did it, in our pid namespace; 0 when it is in none that we can see.
        pid: i32,
    },
    /// More happened than the kernel keeps (`fs.fanotify.max_queued_events`): anything may have appeared.
    Overflow,
}

impl Watch {
    /// # Errors
    /// EPERM without CAP_SYS_ADMIN; EINVAL before Linux 5.9; EMFILE when root has too many groups
    /// (`fs.fanotify.max_user_groups`).
    pub fn new() -> io::Result<Self> {
        // The queue is bounded: an agent that fills it makes us look at everything again, not use up memory.
        let flags = libc::FAN_CLASS_NOTIF
            | libc::FAN_UNLIMITED_MARKS
            | libc::FAN_REPORT_DFID_NAME
            | libc::FAN_NONBLOCK
            | libc::FAN_CLOEXEC;
        Ok(Self(init(flags)?))
    }

    /// From now on tells what appears in this folder (O_PATH will do).
    ///
    /// # Errors
    /// EOPNOTSUPP, ENODEV or EXDEV where the file system cannot name its files to fanotify.
    pub fn folder(&self, folder: BorrowedFd) -> io::Result<()> {
        mark(self.0.as_fd(), libc::FAN_MARK_ADD | libc::FAN_MARK_ONLYDIR, APPEARED, folder, c".")
    }

    /// Takes [`Self::folder`] back.
    ///
    /// # Errors
    /// ENOENT when the folder is not watched (any more).
    pub fn forget(&self, folder: BorrowedFd) -> io::Result<()> {
        mark(self.0.as_fd(), libc::FAN_MARK_REMOVE | libc::FAN_MARK_ONLYDIR, APPEARED, folder, c".")
    }

    /// Appends what has happened to `into`; nothing when nothing has.
    ///
    /// # Errors
    /// What read(2) says.
    pub fn read(&self, buffer: &mut Buffer, into: &mut Vec<Change>) -> io::Result<()> {
        match buffer.fill(self.0.as_fd()) {
            Ok(bytes) => parse_changes(bytes, into),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

const APPEARED: u64 = libc::FAN_CREATE | libc::FAN_MOVED_TO | libc::FAN_ONDIR;

fn init(flags: u32) -> io::Result<OwnedFd> {
    // Nonblocking: the kernel opens the file for each event, and would wait there for whoever holds a lease on it
    // (fcntl(2), F_SETLEASE); so it denies that one event.
    let event_flags =
        libc::O_RDONLY | libc::O_CLOEXEC | libc::O_LARGEFILE | libc::O_NOATIME | libc::O_NONBLOCK;
    // SAFETY: fanotify_init takes two integers and returns a new descriptor, or -1.
    let fd = unsafe { libc::fanotify_init(flags, event_flags.unsigned_abs()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just returned this descriptor, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn mark(group: BorrowedFd, flags: u32, mask: u64, from: BorrowedFd, path: &CStr) -> io::Result<()> {
    // SAFETY: the descriptors are open; the path is a C string that lives across the call.
    let done =
        unsafe { libc::fanotify_mark(group.as_raw_fd(), flags, mask, from.as_raw_fd(), path.as_ptr()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Where events are read into; u64s, because the records hold 64-bit fields.
#[derive(Debug)]
pub struct Buffer(Vec<u64>);

impl Default for Buffer {
    fn default() -> Self {
        Self(vec![0; 8192 / size_of::<u64>()])
    }
}

impl Buffer {
    /// One read(2).
    fn fill(&mut self, from: BorrowedFd) -> io::Result<&[u8]> {
        let bytes = self.0.as_mut_slice();
        let size = size_of_val(bytes);
        // SAFETY: the buffer is ours, aligned for the records, and `size` bytes long.
        let got = unsafe { libc::read(from.as_raw_fd(), bytes.as_mut_ptr().cast(), size) };
        let Ok(got) = usize::try_from(got) else { return Err(io::Error::last_os_error()) };
        Ok(&self.as_bytes()[..got])
    }

    fn as_bytes(&self) -> &[u8] {
        // SAFETY: any initialised u64s are initialised bytes; the length is exactly theirs.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), size_of_val(self.0.as_slice())) }
    }
}

/// An event as the kernel wrote it: its descriptors are numbers still, negative where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Raw {
    pub(crate) mask: u64,
    pub(crate) pid: i32,
    pub(crate) fd: i32,
    pub(crate) pidfd: Option<i32>,
}

pub(crate) fn parse(mut bytes: &[u8], each: &mut dyn FnMut(Raw)) -> io::Result<()> {
    while let Some((metadata, records)) = next_event(&mut bytes)? {
        each(Raw { mask: metadata.mask, pid: metadata.pid, fd: metadata.fd, pidfd: pidfd(records) });
    }
    Ok(())
}

fn parse_changes(mut bytes: &[u8], into: &mut Vec<Change>) -> io::Result<()> {
    while let Some((metadata, records)) = next_event(&mut bytes)? {
        into.push(match name(records) {
            Some(name) if metadata.mask & libc::FAN_Q_OVERFLOW == 0 => {
                Change::Appeared { name: name.to_vec(), pid: metadata.pid }
            }
            // An event without a name could be about any.
            Some(_) | None => Change::Overflow,
        });
    }
    Ok(())
}

/// fanotify(7): metadata (24 bytes), then information records, of the kinds that the group asked for.
fn next_event<'a>(bytes: &mut &'a [u8]) -> io::Result<Option<(libc::fanotify_event_metadata, &'a [u8])>> {
    const METADATA: usize = size_of::<libc::fanotify_event_metadata>();
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "malformed fanotify record");
    if bytes.is_empty() {
        return Ok(None);
    }
    let record: [u8; METADATA] =
        bytes.get(..METADATA).and_then(|b| b.try_into().ok()).ok_or_else(malformed)?;
    // SAFETY: the structure is plain integers without padding, so any bytes of its size are a value of it.
    let metadata: libc::fanotify_event_metadata = unsafe { std::mem::transmute(record) };
    let length = usize::try_from(metadata.event_len).map_err(io::Error::other)?;
    if metadata.vers != libc::FANOTIFY_METADATA_VERSION || length < METADATA || length > bytes.len() {
        return Err(malformed());
    }
    let records = &bytes[METADATA..length];
    *bytes = &bytes[length..];
    Ok(Some((metadata, records)))
}

/// The descriptor in a FAN_EVENT_INFO_TYPE_PIDFD record.
fn pidfd(records: &[u8]) -> Option<i32> {
    Some(i32::from_ne_bytes(*body_of(libc::FAN_EVENT_INFO_TYPE_PIDFD, records)?.first_chunk()?))
}

/// The name in a FAN_EVENT_INFO_TYPE_DFID_NAME record: the file system's id (8 bytes), the folder's handle (its length
/// and kind, 4 bytes each, then itself), then the name up to a zero byte.
fn name(records: &[u8]) -> Option<&[u8]> {
    let body = body_of(libc::FAN_EVENT_INFO_TYPE_DFID_NAME, records)?;
    let handle = usize::try_from(u32::from_ne_bytes(*body.get(8..)?.first_chunk()?)).ok()?;
    let name = body.get(16_usize.checked_add(handle)?..)?;
    name.split(|&byte| byte == 0).next()
}

/// What follows the 4-byte header (kind, pad, length) of the first record of this kind.
fn body_of(wanted: u8, mut records: &[u8]) -> Option<&[u8]> {
    while let Some(&[kind, _, low, high]) = records.first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([low, high]));
        let body = records.get(4..length)?;
        if kind == wanted {
            return Some(body);
        }
        records = &records[length..];
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_any_bytes_is_refused_or_parsed() {
        let mut events = Vec::new();
        let mut parse = |bytes: &[u8]| parse(bytes, &mut |raw| events.push(raw));
        assert!(parse(&[1, 2, 3]).is_err());
        assert!(parse(&[0; 24]).is_err());
        // A length that points beyond the end.
        let mut record = [0u8; 24];
        record[0] = 200;
        record[4] = libc::FANOTIFY_METADATA_VERSION;
        assert!(parse(&record).is_err());
        // A queue-overflow style record names no file.
        record[0] = 24;
        record[16..20].copy_from_slice(&(-1i32).to_ne_bytes());
        assert!(parse(&record).is_ok());
        assert_eq!(events, [Raw { mask: 0, pid: 0, fd: -1, pidfd: None }]);
    }

    #[test]
    fn what_appears_in_a_watched_folder_is_told() {
        let folder = std::env::temp_dir().join(format!("ana-watch-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let watch = Watch::new().unwrap();
        let opened = std::fs::File::open(&folder).unwrap();
        watch.folder(opened.as_fd()).unwrap();
        std::fs::write(folder.join("made"), "").unwrap();
        std::fs::rename(folder.join("made"), folder.join("moved")).unwrap();
        std::fs::create_dir(folder.join("folder")).unwrap();
        std::fs::remove_file(folder.join("moved")).unwrap();
        let (mut buffer, mut changes) = (Buffer::default(), Vec::new());
        watch.read(&mut buffer, &mut changes).unwrap();
        let pid = std::process::id().cast_signed();
        let appeared = |name: &str| Change::Appeared { name: name.into(), pid };
        assert_eq!(changes, ["made", "moved", "folder"].map(appeared));
        watch.forget(opened.as_fd()).unwrap();
        std::fs::write(folder.join("unseen"), "").unwrap();
        watch.read(&mut buffer, &mut changes).unwrap();
        assert_eq!(changes.len(), 3);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn more_names_than_the_kernel_keeps_are_told_as_such() {
        let limit = std::fs::read_to_string("/proc/sys/fs/fanotify/max_queued_events").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let watch = Watch::new().unwrap();
        watch.folder(std::fs::File::open(&folder).unwrap().as_fd()).unwrap();
        let file = folder.path().join("0");
        std::fs::write(&file, "").unwrap();
        for number in 1..=limit.trim().parse::<u32>().unwrap() {
            let next = folder.path().join(number.to_string());
            std::fs::rename(folder.path().join((number - 1).to_string()), next).unwrap();
        }
        let (mut buffer, mut changes) = (Buffer::default(), Vec::new());
        let mut before = None;
        while before.replace(changes.len()) != Some(changes.len()) {
            watch.read(&mut buffer, &mut changes).unwrap();
        }
        assert_eq!(changes.last(), Some(&Change::Overflow));
    }

    #[test]
    fn an_event_without_a_name_could_be_about_any() {
        let mut record = [0u8; 32];
        record[0] = 32;
        record[4] = libc::FANOTIFY_METADATA_VERSION;
        // A name record whose handle is longer than the record.
        record[24] = libc::FAN_EVENT_INFO_TYPE_DFID_NAME;
        record[26] = 8;
        let mut changes = Vec::new();
        parse_changes(&record, &mut changes).unwrap();
        assert_eq!(changes, [Change::Overflow]);
    }
}
