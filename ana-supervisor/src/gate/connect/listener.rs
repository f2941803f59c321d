//! Who listens at an address of this host: what a person is told when the agent reaches for it.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::ffi::OsStringExt,
};

use nix::unistd::Pid;

use crate::{gate::process, operation::Bytes};

/// TCP_LISTEN (net/tcp_states.h), as /proc/net/tcp shows it.
const LISTEN: &str = "0A";

/// A listening socket and who has it. The socket's number and the process name it for as long as it listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where it listens.
    pub at: SocketAddr,
    /// The socket's inode number.
    pub socket: u64,
    pub uid: u32,
    /// The first process that has it open, in order of pids.
    pub owner: Option<Owner>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    pub pid: i32,
    pub start_time: String,
    /// /proc/PID/exe as it reads: a hint.
    pub exe: Bytes,
}

/// The listener on this port with this socket, as the kernel has found it (`Origin::listener`), in this thread's network
/// namespace. `None`: it does not listen any more, or is in another namespace, or the kernel could not tell (0). No other
/// one is named in its place: which of several the kernel takes depends on more than proc shows (IPV6_V6ONLY, SO_REUSEPORT,
/// SO_BINDTODEVICE). Reads proc, and takes milliseconds where there are many processes.
///
/// # Errors
/// proc cannot be read.
pub(super) fn find(port: u16, socket: u64) -> io::Result<Option<Listener>> {
    if socket == 0 {
        return Ok(None);
    }
    let is_it = |listener: &Listener| listener.socket == socket && listener.at.port() == port;
    for table in ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"] {
        match fs::read_to_string(table) {
            Ok(table) => {
                if let Some(found) = table.lines().skip(1).filter_map(listening).find(is_it) {
                    return Ok(Some(Listener { owner: owner(found.socket), ..found }));
                }
            }
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Whether nobody has the socket at `client` open any more: the kernel keeps it, without an inode, until its end is
/// acknowledged. In this thread's network namespace.
///
/// # Errors
/// proc cannot be read.
pub(super) fn is_closed(client: SocketAddr) -> io::Result<bool> {
    let open = |table: &str| {
        let mut sockets = table.lines().skip(1).filter_map(socket);
        sockets.any(|(_, at, inode)| same(at, client) && inode != 0)
    };
    let table = if client.is_ipv4() { "tcp" } else { "tcp6" };
    let found = open(&fs::read_to_string(format!("/proc/thread-self/net/{table}"))?);
    // An IPv4 connection of an IPv6 socket stands in the other table.
    let mapped =
        client.is_ipv4() && open(&fs::read_to_string("/proc/thread-self/net/tcp6").unwrap_or_default());
    Ok(!found && !mapped)
}

fn same(one: SocketAddr, other: SocketAddr) -> bool {
    (canonical(one.ip()), one.port()) == (canonical(other.ip()), other.port())
}

fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// State, local address and inode of `sl local_address rem_address st … uid timeout inode` (proc_net_tcp(5)): addresses in
/// words of the machine's byte order.
fn socket(line: &str) -> Option<(&str, SocketAddr, u64)> {
    let mut words = line.split_whitespace().skip(1);
    let (address, port) = words.next()?.split_once(':')?;
    let at = SocketAddr::new(ip(address)?, u16::from_str_radix(port, 16).ok()?);
    let state = words.nth(1)?;
    Some((state, at, words.nth(5)?.parse().ok()?))
}

fn listening(line: &str) -> Option<Listener> {
    let (state, at, inode) = socket(line)?;
    let uid = line.split_whitespace().nth(7)?.parse().ok()?;
    (state == LISTEN).then_some(Listener { at, socket: inode, uid, owner: None })
}

fn ip(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let number = u32::from_str_radix(text.get(at * 8..at * 8 + 8)?, 16).ok()?;
        Some(number.to_ne_bytes())
    };
    match text.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?))),
        32 => {
            let mut bytes = [0; 16];
            for (at, place) in bytes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                *place = word(at)?;
            }
            Some(IpAddr::V6(Ipv6Addr::from(bytes)))
        }
        _ => None,
    }
}

/// The first process that has the socket open.
fn owner(socket: u64) -> Option<Owner> {
    let wanted = format!("socket:[{socket}]");
    let mut pids: Vec<i32> =
        fs::read_dir("/proc").ok()?.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    pids.into_iter().find_map(|pid| {
        let mut open = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
        open.find(|fd| fs::read_link(fd.path()).is_ok_and(|link| link.as_os_str() == wanted.as_str()))?;
        let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        let start_time = process::start_time(Pid::from_raw(pid)).ok()?;
        Some(Owner { pid, start_time, exe: Bytes(exe.into_os_string().into_vec()) })
    })
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, os::fd::AsRawFd};

    use super::*;

    fn inode(listener: &TcpListener) -> u64 {
        let link = fs::read_link(format!("/proc/self/fd/{}", listener.as_raw_fd())).unwrap();
        let link = link.to_str().unwrap();
        link.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')).unwrap().parse().unwrap()
    }

    #[test]
    fn our_own_listeners_are_found() {
        for address in ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let (at, socket) = (listener.local_addr().unwrap(), inode(&listener));
            let found = find(at.port(), socket).unwrap().unwrap();
            assert_eq!((found.at, found.socket), (at, socket), "{address}");
            assert_eq!(found.owner.unwrap().pid, std::process::id().cast_signed());
            assert_eq!(find(at.port() ^ 1, socket).unwrap(), None, "another port");
            drop(listener);
            assert_eq!(find(at.port(), socket).unwrap(), None);
        }
    }

    #[test]
    fn of_several_the_one_that_was_meant_is_named_and_else_nobody() {
        let general = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = general.local_addr().unwrap().port();
        // As an agent's own one with IPV6_V6ONLY: it would not get what goes to 127.0.0.1.
        let other = TcpListener::bind(("::1", port)).unwrap();
        for listener in [&general, &other] {
            let found = find(port, inode(listener)).unwrap().unwrap();
            assert_eq!(found.at, listener.local_addr().unwrap());
        }
        assert_eq!(find(port, 0).unwrap(), None);
        assert_eq!(find(port, u64::MAX).unwrap(), None);
    }

    #[test]
    fn a_client_that_hung_up_is_told_from_one_that_reads_on() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_server, peer) = listener.accept().unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(!is_closed(peer).unwrap());
        drop(client);
        // Another test's child may have a copy of it until it executes.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !is_closed(peer).unwrap() {
            assert!(std::time::Instant::now() < until, "somebody has it open");
            std::thread::yield_now();
        }
    }
}
