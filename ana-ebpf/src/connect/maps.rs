//! All maps. Their names are the contract with the loader.

use ana_common::{
    COUNTERS as COUNTERS_LEN, RING_BYTES,
    network::{
        NETWORKS_MAX, Network, ORIGINS_MAX, OWN_ADDRESSES_MAX, Origin, PORT_SETS_MAX, PORTS_MAX, PeerKey,
        SetPort, Socket,
    },
};
use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::SkStorage,
    macros::{btf_map, map},
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf},
};

/// One entry: how connections are judged.
#[map]
pub static NETWORK: Array<Network> = Array::with_max_entries(1, 0);

/// TCP ports on which names are inspected.
#[map]
pub static PORTS: HashMap<u32, u8> = HashMap::with_max_entries(PORTS_MAX, BPF_F_NO_PREALLOC);

/// Protected IPv4 networks -> the set of their ports. The capacity is a limit, not a reservation.
#[map]
pub static PROTECTED4: LpmTrie<u32, u32> = LpmTrie::with_max_entries(NETWORKS_MAX, BPF_F_NO_PREALLOC);

/// The same for IPv6.
#[map]
pub static PROTECTED6: LpmTrie<[u32; 4], u32> = LpmTrie::with_max_entries(NETWORKS_MAX, BPF_F_NO_PREALLOC);

/// Which ports belong to which set.
#[map]
pub static PORT_SETS: HashMap<SetPort, u8> = HashMap::with_max_entries(PORT_SETS_MAX, BPF_F_NO_PREALLOC);

/// The host's own addresses but 127/8 and ::1, and its broadcast addresses: `LOCAL_*`.
#[map]
pub static LOCAL: HashMap<[u32; 4], u8> = HashMap::with_max_entries(OWN_ADDRESSES_MAX, BPF_F_NO_PREALLOC);

/// What is kept with sockets of the session; with every one that another socket could reach. It goes with the socket.
#[btf_map]
pub static SOCKETS: SkStorage<Socket> = SkStorage::new();

/// The peer as accept(2) shows it to the proxy -> where its connection was meant to go. The proxy takes it out.
#[map]
pub static ORIGINS: LruHashMap<PeerKey, Origin> = LruHashMap::with_max_entries(ORIGINS_MAX, 0);

/// The peer as recvmsg(2) shows it to the stub resolver -> which name server it asked last.
#[map]
pub static UDP_ORIGINS: LruHashMap<PeerKey, Origin> = LruHashMap::with_max_entries(ORIGINS_MAX, 0);

#[map]
pub static NETWORK_REPORTS: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);

/// `COUNTER_*`.
#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTERS_LEN, 0);
