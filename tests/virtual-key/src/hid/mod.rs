//! CTAPHID (CTAP 2.1, 11.2) over a device that the kernel makes of `/dev/uhid`.

mod framing;
mod link;
mod node;
mod uhid;

pub(crate) use framing::MESSAGE_MAX;
pub(crate) use link::Link;
