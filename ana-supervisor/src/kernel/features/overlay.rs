//! Whether a protected file stays protected below an overlay that an agent mounts (overlayfs, in a user namespace of its own).
//!
//! Before Linux 6.5 overlayfs opens the files below it without telling fanotify ("ovl: enable fsnotify events on underlying
//! real files"), and what runs has the overlay's inode, which the guard does not know. Distributors take such changes back
//! into older kernels, so an overlay is tried.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use nix::{
    fcntl::OFlag,
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use super::{AS_ROOT, Check};
use crate::sys::fanotify::{Answer, Buffer, Group};

/// How long an open of our own file may take to arrive or to go on.
const LIMIT: Duration = Duration::from_secs(5);
/// Every system has it, and only the thread that tries sees what is mounted there.
const PLACE: &str = "/run";

/// What becomes of a protected file below an overlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Below {
    /// Its opens wait for an answer, as elsewhere.
    Told,
    /// It is opened, and executed, unasked.
    Hidden,
}

impl Below {
    /// Mounts an overlay that nobody else sees, and opens a protected file through it.
    ///
    /// # Errors
    /// EPERM without CAP_SYS_ADMIN, ENODEV without overlayfs (which may be loaded later); else what a mount or fanotify says.
    /// Then nothing is known, and it should count as [`Self::Hidden`].
    pub fn try_one() -> io::Result<Self> {
        let group = Group::new()?;
        // Its end closes when the opening thread has ended, whatever it came to.
        let (bell, ringing) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        let (marking, to_mark) = mpsc::channel();
        let (go, gone) = mpsc::channel();
        // The thread has nothing of the group, so what it waits for ends with this function.
        let opener = thread::spawn(move || open_below(ringing, &marking, &gone));
        let told = match to_mark.recv() {
            Ok(file) => group.protect(File::as_fd(&file)).and_then(|()| {
                // Cannot fail while it waits for this.
                _ = go.send(());
                answer(&group, &bell)
            }),
            // It says below what it came to.
            Err(mpsc::RecvError) => Ok(false),
        };
        drop((go, group));
        opener.join().map_err(|_panic| io::Error::other("the opening thread died"))??;
        told.map(|told| if told { Self::Told } else { Self::Hidden })
    }
}

/// Allows every open until the thread has ended; whether there was one.
fn answer(group: &Group, bell: &OwnedFd) -> io::Result<bool> {
    let (mut buffer, mut events, until) = (Buffer::default(), Vec::new(), Instant::now() + LIMIT);
    let mut told = false;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        let (arrived, ended) = group.wait(bell.as_fd(), left)?;
        if arrived {
            group.read(&mut buffer, &mut events)?;
            for event in events.drain(..) {
                told = true;
                group.answer(event.file.as_fd(), Answer::Allow)?;
            }
        } else if ended {
            return Ok(told);
        }
    }
    Err(io::Error::other("an open below an overlay did not come back"))
}

/// In a mount namespace of this thread's own: an overlay over a file, which is handed out to be marked, and then opened.
fn open_below(_ringing: OwnedFd, marking: &mpsc::Sender<File>, gone: &mpsc::Receiver<()>) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let (nothing, place) = (None::<&str>, Path::new(PLACE));
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
    mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), nothing)?;
    for folder in ["lower", "upper", "work", "merged"] {
        fs::create_dir(place.join(folder))?;
    }
    let lower = place.join("lower/file");
    fs::write(&lower, "")?;
    let options = format!("lowerdir={PLACE}/lower,upperdir={PLACE}/upper,workdir={PLACE}/work");
    let merged = place.join("merged");
    mount(Some("overlay"), &merged, Some("overlay"), MsFlags::empty(), Some(options.as_str()))?;
    let given_up = |_| io::Error::other("nobody waits for the open");
    marking
        .send(File::open(lower)?)
        .map_err(|mpsc::SendError(_)| io::Error::other("nobody marks the file"))?;
    gone.recv().map_err(given_up)?;
    File::open(merged.join("file")).map(drop)
}

pub(super) fn check() -> Check {
    let name = "overlays";
    let way_out = "use Linux 6.5 or later; a policy that says namespaces = true does not start on this one";
    match Below::try_one() {
        Ok(Below::Told) => Check::ok(name, "an open through an overlay was stopped"),
        Ok(Below::Hidden) => Check::degraded(name, "an open through an overlay went unseen", way_out),
        Err(_) if !nix::unistd::geteuid().is_root() => {
            Check::degraded(name, "cannot be tried without root", AS_ROOT)
        }
        Err(error) => Check::degraded(name, format!("cannot be tried: {error}"), way_out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On the kernels that the tests know: what the attack by an overlay comes to follows from it.
    #[test]
    fn an_overlay_tells_since_6_5() {
        let release = super::super::kernel_release();
        let number = |part: Option<&str>| part.and_then(|part| part.parse::<u32>().ok()).unwrap();
        let mut parts = release.split(['.', '-', '+']);
        let version = (number(parts.next()), number(parts.next()));
        let expected = if version < (6, 5) { Below::Hidden } else { Below::Told };
        assert_eq!(Below::try_one().unwrap(), expected, "Linux {release}");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&format!("{PLACE}/merged")), "it is this thread's only:\n{mounts}");
    }
}
