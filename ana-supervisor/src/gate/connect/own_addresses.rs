//! The host's own addresses, besides loopback: a listener there is as local as one on 127.0.0.1. They come and go (DHCP,
//! tunnels), so the kernel is asked to tell (rtnetlink(7)).

use std::{
    collections::HashSet,
    io,
    net::IpAddr,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use tokio::io::{Interest, unix::AsyncFd};

use crate::sys;

/// Groups of rtnetlink(7): changes of IPv4 and IPv6 addresses and routes.
const CHANGES: u32 =
    (libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR | libc::RTMGRP_IPV4_ROUTE | libc::RTMGRP_IPV6_ROUTE)
        .cast_unsigned();
/// RTF_REJECT (linux/route.h): a route that leads nowhere.
const REJECT: u32 = 0x200;

/// The host's own addresses, followed as they change.
pub(super) struct OwnAddresses {
    changes: AsyncFd<OwnedFd>,
    known: HashSet<IpAddr>,
}

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub address: IpAddr,
    pub present: bool,
}

impl OwnAddresses {
    /// Listens for changes, and then looks: none is missed. Inside a tokio runtime.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub(super) fn watch() -> io::Result<Self> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkRoute,
        )?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, CHANGES))?;
        Ok(Self { changes: sys::readiness::watch(fd, Interest::READABLE)?, known: HashSet::new() })
    }

    /// What has changed since the last look; everything at the first.
    ///
    /// # Errors
    /// The addresses cannot be listed.
    pub(super) fn look(&mut self) -> io::Result<Vec<Change>> {
        let now = present()?;
        let come = now.difference(&self.known).map(|&address| Change { address, present: true });
        let gone = self.known.difference(&now).map(|&address| Change { address, present: false });
        let changes = come.chain(gone).collect();
        self.known = now;
        Ok(changes)
    }

    /// Waits until something may have changed.
    ///
    /// # Errors
    /// The kernel does not tell any more.
    pub(super) async fn changed(&self) -> io::Result<()> {
        let mut ready = self.changes.readable().await?;
        let mut buffer = [0; 8192];
        loop {
            match recv(self.changes.get_ref().as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                // What was lost (ENOBUFS) is found by looking.
                Ok(_) | Err(nix::errno::Errno::EINTR | nix::errno::Errno::ENOBUFS) => {}
                Err(nix::errno::Errno::EAGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        ready.clear_ready();
        Ok(())
    }
}

/// Every address of this network namespace's interfaces, but those that are loopback by themselves.
fn present() -> io::Result<HashSet<IpAddr>> {
    let all = nix::ifaddrs::getifaddrs()?;
    let address = |interface: nix::ifaddrs::InterfaceAddress| {
        let storage = interface.address?;
        let v4 = storage.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| storage.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    };
    Ok(all.filter_map(address).filter(|address| !address.is_loopback()).collect())
}

/// Whether there is a way to any other host, over IPv4 and over IPv6. Where proc does not tell, there is.
pub(super) fn has_routes() -> [bool; 2] {
    let tables = [
        ("/proc/thread-self/net/route", leads4 as fn(&str) -> bool),
        ("/proc/thread-self/net/ipv6_route", leads6),
    ];
    tables.map(|(table, leads)| match std::fs::read_to_string(table) {
        Ok(table) => table.lines().any(leads),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    })
}

/// `Iface Destination Gateway Flags …`, after a line of titles.
fn leads4(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    let flags = words.get(3).and_then(|flags| u32::from_str_radix(flags, 16).ok());
    words.first() != Some(&"lo") && flags.is_some_and(|flags| flags & REJECT == 0)
}

/// `destination prefix source prefix gateway metric references uses flags device`; link-local ones and groups lead to no
/// other network.
fn leads6(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    let local = words.first().is_none_or(|to| to.starts_with("fe80") || to.starts_with("ff"));
    let flags = words.get(8).and_then(|flags| u32::from_str_radix(flags, 16).ok());
    !local && words.get(9) != Some(&"lo") && flags.is_some_and(|flags| flags & REJECT == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_routes_to_others_are_routes() {
        assert!(leads4("eth0 000200C0 00000000 0001 0 0 0 00FFFFFF 0 0 0"));
        assert!(
            !leads4("Iface Destination Gateway Flags RefCnt") && !leads4("lo 0000007F 00000000 0001 0 0")
        );
        let line = |to: &str, flags: &str, device: &str| {
            format!("{to:0<32} 40 {0} 00 {0} 00000100 00000001 00000000 {flags} {device}", "0".repeat(32))
        };
        assert!(leads6(&line("20010db8", "00000001", "eth0")) && leads6(&line("0", "00000003", "eth0")));
        assert!(!leads6(&line("fe80", "00000001", "eth0")) && !leads6(&line("ff", "00000001", "eth0")));
        assert!(!leads6(&line("0", "00200200", "lo")) && !leads6(&line("20010db8", "80200001", "lo")));
    }

    #[tokio::test]
    async fn the_first_look_tells_everything_and_the_next_nothing() {
        let mut own = OwnAddresses::watch().unwrap();
        let first = own.look().unwrap();
        assert!(first.iter().all(|change| change.present && !change.address.is_loopback()));
        assert_eq!(own.look().unwrap(), []);
        own.known.insert("192.0.2.99".parse().unwrap());
        let gone = Change { address: "192.0.2.99".parse().unwrap(), present: false };
        assert_eq!(own.look().unwrap(), [gone]);
    }
}
