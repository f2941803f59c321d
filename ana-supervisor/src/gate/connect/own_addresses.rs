//! The host's own addresses, besides loopback: a listener there is as local as one on 127.0.0.1. And the broadcast addresses
//! of its networks, where every listener hears. They come and go (DHCP, tunnels), so the kernel is asked to tell
//! (rtnetlink(7)).

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsRawFd, OwnedFd},
};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, recv,
    socket,
};
use tokio::io::{Interest, unix::AsyncFd};

use crate::sys;

/// Groups of rtnetlink(7): changes of IPv4 and IPv6 addresses and routes.
const CHANGES: u32 =
    (libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR | libc::RTMGRP_IPV4_ROUTE | libc::RTMGRP_IPV6_ROUTE)
        .cast_unsigned();
/// Only then the other address is one for everybody, and not the other end of a tunnel.
const IFF_BROADCAST: nix::net::if_::InterfaceFlags = nix::net::if_::InterfaceFlags::IFF_BROADCAST;
/// RTF_REJECT (linux/route.h): a route that leads nowhere.
const REJECT: u32 = 0x200;

/// The host's own addresses, followed as they change.
pub(super) struct OwnAddresses {
    changes: AsyncFd<OwnedFd>,
    known: HashMap<IpAddr, Place>,
}

/// What an address of the host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Own,
    /// Of a network of its own. (One that is both counts as this.)
    Broadcast,
}

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub address: IpAddr,
    pub place: Place,
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
        Ok(Self { changes: sys::readiness::watch(fd, Interest::READABLE)?, known: HashMap::new() })
    }

    /// What has changed since the last look; everything at the first.
    ///
    /// # Errors
    /// The addresses cannot be listed.
    pub(super) fn look(&mut self) -> io::Result<Vec<Change>> {
        let now = present()?;
        let change =
            |present| move |(&address, &place): (&IpAddr, &Place)| Change { address, place, present };
        let come = now.iter().filter(|(address, place)| self.known.get(address) != Some(place));
        let gone = self.known.iter().filter(|(address, _)| !now.contains_key(address));
        let changes = come.map(change(true)).chain(gone.map(change(false))).collect();
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

/// Every address of this network namespace's interfaces, but those that are loopback by themselves; and where all of a
/// network listen, which loopback addresses have, too.
fn present() -> io::Result<HashMap<IpAddr, Place>> {
    let (mut own, mut everybody) = (Vec::new(), Vec::new());
    for interface in nix::ifaddrs::getifaddrs()? {
        let v4 = |storage: Option<SockaddrStorage>| Some(storage?.as_sockaddr_in()?.ip());
        let v6 = interface.address.and_then(|storage| Some(storage.as_sockaddr_in6()?.ip()));
        let address = v4(interface.address);
        own.extend(address.map(IpAddr::V4).or(v6.map(IpAddr::V6)));
        if let (Some(address), Some(mask)) = (address, v4(interface.netmask)) {
            // The one that is set, and the one that the kernel has in any case.
            everybody.extend(v4(interface.broadcast).filter(|_| interface.flags.contains(IFF_BROADCAST)));
            everybody.extend(broadcast(address, mask));
        }
    }
    Ok(places(own, everybody))
}

/// An address of the host's own is that and nothing else: without a broadcast address, interfaces show their own as one.
fn places(own: Vec<IpAddr>, everybody: Vec<Ipv4Addr>) -> HashMap<IpAddr, Place> {
    let own = own.into_iter().filter(|address| !address.is_loopback()).map(|address| (address, Place::Own));
    let everybody = everybody.into_iter().map(|address| (IpAddr::V4(address), Place::Broadcast));
    everybody.chain(own).collect()
}

/// The highest address of a network; of a single host, or of two, there is none.
fn broadcast(address: Ipv4Addr, mask: Ipv4Addr) -> Option<Ipv4Addr> {
    (mask.to_bits().leading_ones() < 31).then(|| Ipv4Addr::from_bits(address.to_bits() | !mask.to_bits()))
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
    fn the_hosts_own_address_is_nobodys_broadcast_address() {
        let [own, all] = ["192.0.2.1", "192.0.2.255"].map(|address| address.parse::<Ipv4Addr>().unwrap());
        let loopback = "127.0.0.1".parse().unwrap();
        let places = places(vec![own.into(), loopback], vec![own, all]);
        assert_eq!(places.len(), 2);
        assert_eq!(places[&IpAddr::V4(own)], Place::Own);
        assert_eq!(places[&IpAddr::V4(all)], Place::Broadcast);
    }

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
        let is_own = |change: &&Change| change.place == Place::Own;
        assert!(first.iter().all(|change| change.present));
        assert!(first.iter().filter(is_own).all(|change| !change.address.is_loopback()));
        assert_eq!(own.look().unwrap(), []);
        let address = "192.0.2.99".parse().unwrap();
        own.known.insert(address, Place::Own);
        assert_eq!(own.look().unwrap(), [Change { address, place: Place::Own, present: false }]);
        // What was one of its own and is for everybody now is told as that, and not taken away after.
        let highest = "127.255.255.255".parse().unwrap();
        if own.known.insert(highest, Place::Own).is_some() {
            let told = Change { address: highest, place: Place::Broadcast, present: true };
            assert_eq!(own.look().unwrap(), [told]);
        }
    }

    #[test]
    fn the_highest_address_is_for_everybody() {
        let of = |address: &str, mask: &str| broadcast(address.parse().unwrap(), mask.parse().unwrap());
        assert_eq!(of("192.0.2.7", "255.255.255.0"), Some("192.0.2.255".parse().unwrap()));
        assert_eq!(of("127.0.0.1", "255.0.0.0"), Some("127.255.255.255".parse().unwrap()));
        assert_eq!(of("192.0.2.6", "255.255.255.252"), Some("192.0.2.7".parse().unwrap()));
        assert_eq!(of("192.0.2.6", "255.255.255.254"), None);
        assert_eq!(of("192.0.2.6", "255.255.255.255"), None);
    }
}
