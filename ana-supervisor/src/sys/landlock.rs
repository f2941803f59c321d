//! Landlock, where the crate has nothing: which version the kernel speaks.

use std::{io, ptr};

/// The kernel's Landlock ABI version.
///
/// # Errors
/// ENOSYS: built without it; EOPNOTSUPP: not among the active LSMs.
pub fn abi() -> io::Result<u32> {
    const LANDLOCK_CREATE_RULESET_VERSION: libc::c_uint = 1;
    // SAFETY: with this flag the call takes no attributes (NULL, 0) and returns a number, no descriptor.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            ptr::null::<libc::c_void>(),
            0usize,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    };
    if version < 0 {
        Err(io::Error::last_os_error())
    } else {
        u32::try_from(version).map_err(io::Error::other)
    }
}
