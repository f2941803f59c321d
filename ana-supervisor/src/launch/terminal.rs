//! The session's own terminals: its own instance of devpts, so that the person's terminals are out of reach.

use std::{
    fs::{File, OpenOptions},
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::stat::{Mode, fchmod},
    unistd::{Gid, Group, Uid, fchown},
};

use super::{child::Step, spec::Identity};
use crate::sys::terminal::{self, Size};

/// Both ends of the agent's terminal.
#[derive(Debug)]
pub struct Pty {
    pub master: OwnedFd,
    pub slave: OwnedFd,
}

/// Gives the calling process (single-threaded) a mount namespace with a devpts instance of its own: its ptmx is bound
/// over /dev/ptmx, so that `script` and tmux make their terminals in it too. Mounts of the host go on arriving.
pub fn isolate() -> Result<(), Step> {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS).map_err(Step::doing("unshare the mount namespace"))?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)
        .map_err(Step::doing("make the mounts slaves of the host's"))?;
    let tty = Group::from_name("tty").ok().flatten().map_or(5, |group| group.gid.as_raw());
    let options = format!("newinstance,gid={tty},mode=620,ptmxmode=0666");
    mount(
        Some("devpts"),
        "/dev/pts",
        Some("devpts"),
        MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC,
        Some(&*options),
    )
    .map_err(Step::doing("mount devpts on /dev/pts"))?;
    // Where /dev/ptmx is a link to pts/ptmx it leads to the new instance by itself.
    if !Path::new("/dev/ptmx").is_symlink() {
        mount(Some("/dev/pts/ptmx"), "/dev/ptmx", none, MsFlags::MS_BIND, none)
            .map_err(Step::doing("bind /dev/pts/ptmx over /dev/ptmx"))?;
    }
    Ok(())
}

/// Opens a terminal in the session's devpts and gives its slave to the agent's user.
pub fn open(identity: &Identity, size: Option<Size>) -> Result<Pty, Step> {
    let master: File = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/pts/ptmx")
        .map_err(Step::doing("open /dev/pts/ptmx"))?;
    let master = OwnedFd::from(master);
    let slave = terminal::slave_of(master.as_fd()).map_err(Step::doing("open the session's terminal"))?;
    let tty = Group::from_name("tty").ok().flatten().map_or(Gid::from_raw(identity.gid), |group| group.gid);
    fchown(&slave, Some(Uid::from_raw(identity.uid)), Some(tty))
        .map_err(Step::doing("give the session's terminal to the agent's user"))?;
    fchmod(&slave, Mode::from_bits_truncate(0o620))
        .map_err(Step::doing("set the mode of the session's terminal"))?;
    if let Some(size) = size {
        terminal::resize(slave.as_fd(), size)
            .map_err(Step::doing("set the size of the session's terminal"))?;
    }
    Ok(Pty { master, slave })
}
