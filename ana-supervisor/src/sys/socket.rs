//! Who is at the other end of a unix socket; sockets in another user's name; ends.

use std::{
    io,
    mem::size_of,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use nix::{
    sys::socket,
    unistd::{Pid, Uid},
};

use super::process;

/// The process that called connect(2), by descriptor.
#[derive(Debug)]
pub struct Peer {
    pub pid: Pid,
    pub uid: u32,
    /// Names the process for ever; its number may be used again.
    pub process: OwnedFd,
}

/// SO_PEERPIDFD (Linux 6.5); before, pidfd_open on the credentials' pid, with the window that this leaves.
///
/// # Errors
/// When the peer has ended already.
pub fn peer(socket: BorrowedFd) -> io::Result<Peer> {
    const SO_PEERPIDFD: i32 = 77;
    let credentials = socket::getsockopt(&socket, socket::sockopt::PeerCredentials)?;
    let pid = Pid::from_raw(credentials.pid());
    let mut fd: i32 = -1;
    let mut length = libc::socklen_t::try_from(size_of::<i32>()).map_err(io::Error::other)?;
    // SAFETY: the kernel writes at most `length` = 4 bytes into `fd`.
    let got = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            (&raw mut fd).cast(),
            &raw mut length,
        )
    };
    let process = match got {
        // SAFETY: the kernel has just installed this descriptor for us.
        0 => unsafe { OwnedFd::from_raw_fd(fd) },
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENOPROTOOPT) => process::pidfd_open(pid)?,
            error => return Err(error),
        },
    };
    Ok(Peer { pid, uid: credentials.uid(), process })
}

/// A TCP or UDP socket that belongs to another user: the firewall and the routing tables see his connection, not root's.
/// Nonblocking, closed on exec.
///
/// # Errors
/// What socket(2) says.
pub fn of_user(family: socket::AddressFamily, kind: socket::SockType, uid: u32) -> io::Result<OwnedFd> {
    let flags = socket::SockFlag::SOCK_NONBLOCK | socket::SockFlag::SOCK_CLOEXEC;
    // A socket's owner is who made it, by the file-system uid of the thread (setfsuid(2)); it is set for these three calls,
    // and nothing in between gives the thread to somebody else.
    let before = nix::unistd::setfsuid(Uid::from_raw(uid));
    let made = socket::socket(family, kind, flags, None);
    nix::unistd::setfsuid(before);
    // The change made the process what fs.suid_dumpable says.
    nix::sys::prctl::set_dumpable(false)?;
    Ok(made?)
}

/// Makes the end of a TCP connection a reset, whatever close(2) it comes by (socket(7), SO_LINGER); without it the end is an
/// orderly one.
///
/// # Errors
/// What setsockopt(2) says.
pub fn end_by_reset(socket: &impl AsFd) -> io::Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    Ok(socket::setsockopt(socket, socket::sockopt::Linger, &linger)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_users_socket_is_the_users() {
        let (family, kind) = (socket::AddressFamily::Inet, socket::SockType::Stream);
        let theirs = of_user(family, kind, 4242).unwrap();
        let owner = std::fs::File::from(theirs.try_clone().unwrap()).metadata().unwrap().uid();
        assert_eq!(owner, 4242);
        let ours = of_user(family, kind, 0).unwrap();
        assert_eq!(std::fs::File::from(ours.try_clone().unwrap()).metadata().unwrap().uid(), 0);
    }
}
