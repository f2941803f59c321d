//! The loader's permission to hand these types to the kernel byte for byte.

use crate::{
    Armed, Block, DeviceKey, Expected, FileKey, Place,
    network::{Endpoint, Network, Origin, PeerKey, SetPort, Socket},
};

// SAFETY: repr(C), integers only, and the layout asserts in lib.rs show that no implicit padding is left.
unsafe impl aya::Pod for FileKey {}
// SAFETY: as above.
unsafe impl aya::Pod for Armed {}
// SAFETY: as above.
unsafe impl aya::Pod for DeviceKey {}
// SAFETY: as above.
unsafe impl aya::Pod for Place {}
// SAFETY: as above.
unsafe impl aya::Pod for Expected {}
// SAFETY: as above.
unsafe impl aya::Pod for Block {}
// SAFETY: as above; the layout asserts are in network.rs.
unsafe impl aya::Pod for Endpoint {}
// SAFETY: as above; the layout asserts are in network.rs.
unsafe impl aya::Pod for Network {}
// SAFETY: as above; the layout asserts are in network.rs.
unsafe impl aya::Pod for Origin {}
// SAFETY: as above; the layout asserts are in network.rs.
unsafe impl aya::Pod for PeerKey {}
// SAFETY: as above; the layout asserts are in network.rs.
unsafe impl aya::Pod for SetPort {}
// SAFETY: as above; the layout asserts are in network.rs.
unsafe impl aya::Pod for Socket {}
