//! Fanotify permission events (fanotify(7)). `nix` offers neither pidfd records nor marks on an open file.

use std::{
    io,
    mem::size_of,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr,
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
        let event_flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_LARGEFILE | libc::O_NOATIME;
        // SAFETY: fanotify_init takes two integers and returns a new descriptor, or -1.
        let fd = unsafe { libc::fanotify_init(flags, event_flags.unsigned_abs()) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just returned this descriptor, and nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Marks the inode behind `file` (not an O_PATH descriptor): every open of it waits for an answer of this group.
    pub fn protect(&self, file: BorrowedFd) -> io::Result<()> {
        let mask = libc::FAN_OPEN_PERM | libc::FAN_OPEN_EXEC_PERM;
        // SAFETY: the descriptors are open, and a null path means "the file of the descriptor".
        let done = unsafe {
            libc::fanotify_mark(self.0.as_raw_fd(), libc::FAN_MARK_ADD, mask, file.as_raw_fd(), ptr::null())
        };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Waits for events, at most `limit`; true when there are some.
    pub fn wait(&self, limit: Duration) -> io::Result<bool> {
        let timeout = PollTimeout::try_from(limit).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::EINTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Appends the events that there are to `into`.
    ///
    /// # Errors
    /// EAGAIN when there is none (whoever waited may have been killed since); else what read(2) says; an event that cannot be handed over (EMFILE) has been denied by the kernel.
    pub fn read(&self, buffer: &mut Buffer, into: &mut Vec<Event>) -> io::Result<()> {
        let bytes = buffer.0.as_mut_slice();
        let size = size_of_val(bytes);
        // SAFETY: the buffer is ours, aligned for the records, and `size` bytes long.
        let got = unsafe { libc::read(self.0.as_raw_fd(), bytes.as_mut_ptr().cast(), size) };
        let Ok(got) = usize::try_from(got) else { return Err(io::Error::last_os_error()) };
        parse(&buffer.as_bytes()[..got], &mut |raw| {
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

/// Where events are read into; u64s, because the records hold 64-bit fields.
#[derive(Debug)]
pub struct Buffer(Vec<u64>);

impl Default for Buffer {
    fn default() -> Self {
        Self(vec![0; 8192 / size_of::<u64>()])
    }
}

impl Buffer {
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

/// fanotify(7): metadata (24 bytes), then information records; we asked for pidfds only.
pub(crate) fn parse(mut bytes: &[u8], each: &mut dyn FnMut(Raw)) -> io::Result<()> {
    const METADATA: usize = size_of::<libc::fanotify_event_metadata>();
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "malformed fanotify record");
    while !bytes.is_empty() {
        let record: [u8; METADATA] =
            bytes.get(..METADATA).and_then(|b| b.try_into().ok()).ok_or_else(malformed)?;
        // SAFETY: the structure is plain integers without padding, so any bytes of its size are a value of it.
        let metadata: libc::fanotify_event_metadata = unsafe { std::mem::transmute(record) };
        let length = usize::try_from(metadata.event_len).map_err(io::Error::other)?;
        if metadata.vers != libc::FANOTIFY_METADATA_VERSION || length < METADATA || length > bytes.len() {
            return Err(malformed());
        }
        let pidfd = pidfd(&bytes[METADATA..length]);
        each(Raw { mask: metadata.mask, pid: metadata.pid, fd: metadata.fd, pidfd });
        bytes = &bytes[length..];
    }
    Ok(())
}

/// The descriptor in a FAN_EVENT_INFO_TYPE_PIDFD record: a 4-byte header (type, pad, length), then the descriptor.
fn pidfd(mut records: &[u8]) -> Option<i32> {
    while let Some(&[kind, _, low, high]) = records.first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([low, high]));
        let body = records.get(4..length)?;
        if kind == libc::FAN_EVENT_INFO_TYPE_PIDFD {
            return Some(i32::from_ne_bytes(*body.first_chunk()?));
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
}
