//! Where the kernel put a device.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

const CLASS: &str = "/sys/class/hidraw";
const LIMIT: Duration = Duration::from_secs(20);
/// devtmpfs says nothing when a node is there.
const PAUSE: Duration = Duration::from_millis(2);

/// The `/dev/hidrawN` of the device with this serial number, as soon as it is there.
///
/// # Errors
/// It does not come.
pub(super) fn wait_for(unique: &str) -> io::Result<PathBuf> {
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(node) = find(unique).filter(|node| node.exists()) {
            return Ok(node);
        }
        if Instant::now() >= end {
            let reason = format!("no hidraw node for {unique}; are the modules hid_generic and uhid loaded?");
            return Err(io::Error::new(io::ErrorKind::TimedOut, reason));
        }
        thread::sleep(PAUSE);
    }
}

fn find(unique: &str) -> Option<PathBuf> {
    let wanted = format!("HID_UNIQ={unique}");
    // Devices come and go: what cannot be read is not it.
    fs::read_dir(CLASS).ok()?.flatten().find_map(|entry| {
        let uevent = fs::read_to_string(entry.path().join("device/uevent")).ok()?;
        uevent.lines().any(|line| line == wanted).then(|| Path::new("/dev").join(entry.file_name()))
    })
}
