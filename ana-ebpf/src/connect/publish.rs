//! What the proxy finds about a peer.

use ana_common::network::{Endpoint, Origin, PeerKey, Socket};
use aya_ebpf::maps::LruHashMap;

/// The entry of a socket that has none: nobody else's is replaced. Without an entry the proxy refuses.
#[inline(always)]
pub fn publish(map: &LruHashMap<PeerKey, Origin>, socket: &mut Socket, peer: Endpoint, flags: u64) -> bool {
    let key = PeerKey { peer, pad: 0, netns: socket.origin.netns };
    if socket.published != key {
        // Another socket may have that address by now.
        withdraw(map, socket);
        socket.published = key;
    }
    map.insert(key, socket.origin, flags).is_ok()
}

/// Takes it back, if it is this socket's.
#[inline(always)]
pub fn withdraw(map: &LruHashMap<PeerKey, Origin>, socket: &mut Socket) {
    let key = socket.published;
    if key.peer.port == 0 {
        return;
    }
    // SAFETY: one word, copied at once.
    let owner = unsafe { map.get(key) }.map(|origin| origin.cookie);
    if owner == Some(socket.origin.cookie) {
        // Gone already means that the proxy has taken it.
        let (Ok(()) | Err(_)) = map.remove(key);
    }
    socket.published = PeerKey::default();
}
