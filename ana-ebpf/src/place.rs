//! Where an executed file lies: its folder and its name there, as the kernel resolved them.

use ana_common::{PLACE_NAME, Place};
use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;

use crate::{
    kernel_memory::{
        OFFSET_DENTRY_D_INODE, OFFSET_DENTRY_D_NAME, OFFSET_DENTRY_D_PARENT, OFFSET_FILE_F_PATH,
        OFFSET_LINUX_BINPRM_FILE, OFFSET_PATH_DENTRY, OFFSET_QSTR_NAME, field, inside_of, key,
    },
    maps::PLACES,
};

/// Whether the policy lists a file at this place. `None`: unreadable.
#[inline(always)]
pub fn listed(bprm: *const u8) -> Option<bool> {
    let file: *const u8 = field(bprm, &OFFSET_LINUX_BINPRM_FILE)?;
    let dentry: *const u8 = field(inside_of(file, &OFFSET_FILE_F_PATH), &OFFSET_PATH_DENTRY)?;
    let parent: *const u8 = field(dentry, &OFFSET_DENTRY_D_PARENT)?;
    let folder = key(field(parent, &OFFSET_DENTRY_D_INODE)?)?;
    let mut place = Place { folder, name: [0; PLACE_NAME] };
    let name: *const u8 = field(inside_of(dentry, &OFFSET_DENTRY_D_NAME), &OFFSET_QSTR_NAME)?;
    // SAFETY: the helper writes at most PLACE_NAME bytes, a NUL as the last one, and fails on what cannot be read.
    let copied =
        unsafe { bpf_probe_read_kernel_str(place.name.as_mut_ptr().cast(), PLACE_NAME as u32, name.cast()) };
    if copied < 0 {
        return None;
    }
    // SAFETY: the entry is not read, only its presence counts.
    Some(unsafe { PLACES.get(place) }.is_some())
}
