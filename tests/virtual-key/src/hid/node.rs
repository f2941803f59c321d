//! Where the kernel put a device, and when it is ready.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
    },
};

const CLASS: &str = "/sys/class/hidraw";
const LIMIT: Duration = Duration::from_secs(20);
/// The multicast group of the kernel's own events; udev's is 2.
const KERNEL: u32 = 1;
/// `UEVENT_BUFFER_SIZE` and a header.
const EVENT_MAX: usize = 4096;

/// Hears of devices from before they are made.
pub(super) struct Arrivals {
    socket: OwnedFd,
}

impl Arrivals {
    pub(super) fn listen() -> io::Result<Self> {
        let protocol = SockProtocol::NetlinkKObjectUEvent;
        let socket = socket(AddressFamily::Netlink, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, KERNEL))?;
        Ok(Self { socket })
    }

    /// The `/dev/hidrawN` of the device with this serial number, when its driver is bound. The node is there a moment
    /// earlier, but until then the kernel drops what the device says (hid_device_probe holds driver_input_lock).
    ///
    /// # Errors
    /// It does not come.
    pub(super) fn wait_for(&self, unique: &str) -> io::Result<PathBuf> {
        let wanted = format!("HID_UNIQ={unique}");
        let end = Instant::now() + LIMIT;
        let mut event = vec![0; EVENT_MAX];
        while self.wait(end)? {
            let length = match recv(self.socket.as_raw_fd(), &mut event, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => length,
                // Too many events at once: some are lost.
                Err(Errno::EAGAIN | Errno::EINTR | Errno::ENOBUFS) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let mut words = event[..length].split(|byte| *byte == 0);
            let bound = words.next().is_some_and(|first| first.starts_with(b"bind@"));
            if bound && words.any(|word| word == wanted.as_bytes()) {
                return find(&wanted);
            }
        }
        let reason = format!("no driver took {unique}; is the module hid_generic loaded?");
        Err(io::Error::new(io::ErrorKind::TimedOut, reason))
    }

    /// Whether there is something to read before the end.
    fn wait(&self, end: Instant) -> io::Result<bool> {
        let left = end.saturating_duration_since(Instant::now());
        let mut polled = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polled, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::EINTR) => Ok(true),
            Err(errno) => Err(errno.into()),
        }
    }
}

fn find(wanted: &str) -> io::Result<PathBuf> {
    // Other devices come and go: what cannot be read is not it.
    let node = fs::read_dir(CLASS)?.flatten().find_map(|entry| {
        let uevent = fs::read_to_string(entry.path().join("device/uevent")).ok()?;
        uevent.lines().any(|line| line == wanted).then(|| Path::new("/dev").join(entry.file_name()))
    });
    node.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no hidraw device with {wanted}")))
}
