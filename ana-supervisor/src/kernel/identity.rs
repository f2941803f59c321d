//! Which file is this, as the eBPF programs will see it?

use std::{
    fs, io,
    os::fd::{AsRawFd, BorrowedFd},
};

use ana_common::FileKey;

/// The identity of an open file (O_PATH will do).
///
/// fdinfo has the inode's own number and mountinfo has the file system's own device, both as the kernel keeps them.
/// stat(2) is no substitute: on overlayfs and btrfs it shows other numbers. It is used only when the file was opened
/// through a mount that this process does not have; see [`file_key_seen_by`] for the file of another mount namespace.
///
/// # Errors
/// /proc cannot be read, or it is malformed.
pub fn file_key(fd: BorrowedFd<'_>) -> io::Result<FileKey> {
    key(fd, &["/proc/self/mountinfo"])
}

/// [`file_key`] of a file that was opened in the mount namespace of process `pid`, as the files of fanotify events are.
///
/// # Errors
/// As [`file_key`]. A process that is gone is no error by itself.
pub fn file_key_seen_by(fd: BorrowedFd<'_>, pid: u32) -> io::Result<FileKey> {
    key(fd, &["/proc/self/mountinfo", &format!("/proc/{pid}/mountinfo")])
}

fn key(fd: BorrowedFd<'_>, tables: &[&str]) -> io::Result<FileKey> {
    let info = fs::read_to_string(format!("/proc/thread-self/fdinfo/{}", fd.as_raw_fd()))?;
    let mount = number(&info, "mnt_id:")?;
    for table in tables {
        match fs::read_to_string(table) {
            Ok(mounts) => {
                if let Some((major, minor)) = device_of(&mounts, mount) {
                    return Ok(FileKey::new(inode(&info, fd)?, major, minor));
                }
            }
            Err(error) if *table == "/proc/self/mountinfo" => return Err(error),
            Err(_gone) => {}
        }
    }
    let stat = stat(fd)?;
    Ok(FileKey::new(inode(&info, fd)?, libc::major(stat.st_dev), libc::minor(stat.st_dev)))
}

/// Kernels before 5.14 have no `ino:` in fdinfo.
fn inode(info: &str, fd: BorrowedFd<'_>) -> io::Result<u64> {
    if info.lines().any(|line| line.starts_with("ino:")) {
        number(info, "ino:")
    } else {
        Ok(stat(fd)?.st_ino)
    }
}

fn stat(fd: BorrowedFd<'_>) -> io::Result<nix::sys::stat::FileStat> {
    Ok(nix::sys::stat::fstat(fd)?)
}

fn number(info: &str, name: &str) -> io::Result<u64> {
    info.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("no {name} in /proc/thread-self/fdinfo"))
    })
}

/// `36 35 98:0 /root /mountpoint …`: the device of the mount with this id.
fn device_of(mounts: &str, id: u64) -> Option<(u32, u32)> {
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        if words.next()?.parse() != Ok(id) {
            return None;
        }
        let (major, minor) = words.nth(1)?.split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_found_by_its_own_id_only() {
        let mounts = "23 1 254:0 / / rw - ext4 /dev/vda rw\n123 23 0:51 / /m rw - overlay overlay rw\n";
        assert_eq!(device_of(mounts, 23), Some((254, 0)));
        assert_eq!(device_of(mounts, 123), Some((0, 51)));
        assert_eq!(device_of(mounts, 1), None, "a parent's id is not the mount's");
        assert_eq!(device_of("23 1 strange", 23), None);
    }
}
