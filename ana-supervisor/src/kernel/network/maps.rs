//! What user space tells the connect gate's programs while a session runs, and what they tell about connections.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd, BorrowedFd},
    sync::{Arc, Mutex, PoisonError},
};

use ana_common::network::{
    Endpoint, LOCAL_BROADCAST, LOCAL_OWN, Network, Origin, PeerKey, SetPort, Socket, words,
};
use aya::{
    Ebpf, Pod,
    maps::{Array, LpmTrie, MapData, MapError, SkStorage, lpm_trie::Key},
};

use super::super::{Health, KernelError, counters::Counters, load::take, maps::Table};

/// The maps of one session's connect gate. Cloneable; every method may be called from any thread.
#[derive(Clone)]
pub struct NetworkMaps(Arc<Inner>);

struct Inner {
    network: Mutex<Array<MapData, Network>>,
    ports: Table<u32, u8>,
    protected4: Trie<u32>,
    protected6: Trie<[u32; 4]>,
    port_sets: Table<SetPort, u8>,
    local: Table<[u32; 4], u8>,
    origins: Table<PeerKey, Origin>,
    udp_origins: Table<PeerKey, Origin>,
    sockets: SkStorage<MapData, Socket>,
    counters: Counters,
}

impl NetworkMaps {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self(Arc::new(Inner {
            network: Mutex::new(take(ebpf, "NETWORK")?),
            ports: Table::take(ebpf, "PORTS")?,
            protected4: Trie::take(ebpf, "PROTECTED4")?,
            protected6: Trie::take(ebpf, "PROTECTED6")?,
            port_sets: Table::take(ebpf, "PORT_SETS")?,
            local: Table::take(ebpf, "LOCAL")?,
            origins: Table::take(ebpf, "ORIGINS")?,
            udp_origins: Table::take(ebpf, "UDP_ORIGINS")?,
            sockets: take(ebpf, "SOCKETS")?,
            counters: Counters::take(ebpf)?,
        })))
    }

    /// How connections are judged from now on, as a whole: a program sees the old or the new one.
    ///
    /// # Errors
    /// The map cannot be changed.
    pub fn configure(&self, network: Network) -> Result<(), KernelError> {
        let mut map = self.0.network.lock().unwrap_or_else(PoisonError::into_inner);
        map.set(0, network, 0).map_err(|source| KernelError::Map { map: "NETWORK", source })
    }

    /// Names are inspected on this TCP port: every connection to it is redirected.
    ///
    /// # Errors
    /// Never, but for a kernel without memory.
    pub fn inspect(&self, port: u16) -> Result<(), KernelError> {
        self.0.ports.insert(port.into(), 1, 0)
    }

    /// Connections to this network are redirected on the ports of the set. Of several networks with an address the narrowest
    /// one counts, and of one network the last set. An IPv4-mapped address is the IPv4 address.
    ///
    /// # Errors
    /// The prefix is longer than an address, or the map is full: nothing was protected.
    pub fn protect(&self, address: IpAddr, prefix: u8, set: u32) -> Result<(), KernelError> {
        match network(address, prefix)? {
            Prefix::V4(key) => self.0.protected4.insert(&key, set),
            Prefix::V6(key) => self.0.protected6.insert(&key, set),
        }
    }

    /// Takes [`Self::protect`] back.
    ///
    /// # Errors
    /// The map cannot be changed. (A network that was not protected is no error.)
    pub fn unprotect(&self, address: IpAddr, prefix: u8) -> Result<(), KernelError> {
        match network(address, prefix)? {
            Prefix::V4(key) => self.0.protected4.remove(&key),
            Prefix::V6(key) => self.0.protected6.remove(&key),
        }
    }

    /// The port belongs to the set; 0: every port does.
    ///
    /// # Errors
    /// The map is full.
    pub fn port_set(&self, set: u32, port: u16) -> Result<(), KernelError> {
        self.0.port_sets.insert(SetPort { set, port: port.into() }, 1, 0)
    }

    /// The address is one of this host's, or is no more. 127/8 and ::1 need not be told.
    ///
    /// # Errors
    /// The map is full.
    pub fn own_address(&self, address: IpAddr, present: bool) -> Result<(), KernelError> {
        self.local(address, LOCAL_OWN, present)
    }

    /// It is the broadcast address of a network of this host's, or is no more. Those of all networks and of 127/8 need not be
    /// told.
    ///
    /// # Errors
    /// The map is full.
    pub fn broadcast_address(&self, address: IpAddr, present: bool) -> Result<(), KernelError> {
        self.local(address, LOCAL_BROADCAST, present)
    }

    fn local(&self, address: IpAddr, what: u8, present: bool) -> Result<(), KernelError> {
        let words = words(address);
        if present { self.0.local.insert(words, what, 0) } else { self.0.local.remove(&words) }
    }

    /// Where the accepted connection wanted to go, by the peer that accept(2) shows and the network namespace of the listener
    /// ([`crate::sys::bpf::netns_cookie`]). Once: the entry is gone then. `None`: nobody was redirected from there, or the
    /// client's socket is closed by now.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn take_origin(&self, peer: SocketAddr, netns: u64) -> Result<Option<Origin>, KernelError> {
        self.0.origins.take_out(&key(peer, netns))
    }

    /// Which name server the datagram from this peer was meant for. It stays: a socket asks often.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn udp_server(&self, peer: SocketAddr, netns: u64) -> Result<Option<Origin>, KernelError> {
        self.0.udp_origins.get(&key(peer, netns))
    }

    /// What the programs keep with a socket. `None`: it was not made in the session, or nothing had to be kept.
    ///
    /// # Errors
    /// Not a socket.
    pub fn origin_of(&self, socket: BorrowedFd<'_>) -> Result<Option<Socket>, KernelError> {
        found(self.0.sockets.get(&socket.as_raw_fd(), 0), "SOCKETS")
    }

    /// What went wrong so far.
    ///
    /// # Errors
    /// The counters cannot be read.
    pub fn health(&self) -> Result<Health, KernelError> {
        self.0.counters.health()
    }
}

fn key(peer: SocketAddr, netns: u64) -> PeerKey {
    PeerKey { peer: Endpoint::new(peer), pad: 0, netns }
}

/// What is not there is no error.
fn found<V>(result: Result<V, MapError>, map: &'static str) -> Result<Option<V>, KernelError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if super::super::maps::is_gone(&error) => Ok(None),
        Err(source) => Err(KernelError::Map { map, source }),
    }
}

enum Prefix {
    V4(Key<u32>),
    V6(Key<[u32; 4]>),
}

fn network(address: IpAddr, prefix: u8) -> Result<Prefix, KernelError> {
    let words = words(address);
    let (mapped, prefix) = match address {
        IpAddr::V4(_) => (true, u32::from(prefix)),
        // ::ffff:0:0/96 and what is narrower.
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() && prefix >= 96 => (true, u32::from(prefix) - 96),
        IpAddr::V6(_) => (false, u32::from(prefix)),
    };
    match (mapped, prefix) {
        (true, 0..=32) => Ok(Prefix::V4(Key::new(prefix, words[3]))),
        (false, 0..=128) => Ok(Prefix::V6(Key::new(prefix, words))),
        (true | false, _) => Err(KernelError::Prefix(address, prefix)),
    }
}

/// A trie with its name, behind a lock.
struct Trie<K: Pod> {
    name: &'static str,
    map: Mutex<LpmTrie<MapData, K, u32>>,
}

impl<K: Pod> Trie<K> {
    fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Self, KernelError> {
        let map = ebpf.take_map(name).and_then(|map| LpmTrie::try_from(map).ok());
        Ok(Self { name, map: Mutex::new(map.ok_or(KernelError::Missing(name))?) })
    }

    fn insert(&self, key: &Key<K>, set: u32) -> Result<(), KernelError> {
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        map.insert(key, set, 0).map_err(|source| KernelError::Map { map: self.name, source })
    }

    fn remove(&self, key: &Key<K>) -> Result<(), KernelError> {
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        found(map.remove(key), self.name).map(|_removed| ())
    }
}
