//! cgroup/dev: opening or making a device node. An allow-list: what is not listed is refused (EPERM).

use core::ptr::{addr_of, read_volatile};

use ana_common::{DeviceKey, EVERY_MINOR};
use aya_ebpf::{macros::cgroup_device, programs::DeviceContext};

use crate::maps::DEVICES;

const ALLOW: i32 = 1;
const REFUSE: i32 = 0;
/// `BPF_DEVCG_DEV_CHAR`. There is no list for block devices: they are all refused.
const CHARACTER: u32 = 2;

#[cgroup_device]
pub fn device(ctx: DeviceContext) -> i32 {
    let device = ctx.device;
    // SAFETY: the context is valid for the whole run. One 32-bit word at a time: the verifier accepts nothing else.
    let (what, major, minor) = unsafe {
        (
            read_volatile(addr_of!((*device).access_type)),
            read_volatile(addr_of!((*device).major)),
            read_volatile(addr_of!((*device).minor)),
        )
    };
    let (kind, wanted) = (what & 0xffff, what >> 16);
    if kind != CHARACTER {
        return REFUSE;
    }
    let granted = listed(major, minor) | listed(major, EVERY_MINOR);
    if granted != 0 && wanted & !granted == 0 { ALLOW } else { REFUSE }
}

/// The `DEVICE_*` bits of an entry; none if there is no such entry.
#[inline(always)]
fn listed(major: u32, minor: u32) -> u32 {
    // SAFETY: an aligned word, copied at once; an entry that is being replaced gives the old or the new one.
    unsafe { DEVICES.get(DeviceKey { major, minor }) }.copied().unwrap_or(0)
}
