//! Files: what `nix` does not offer.

use std::{ffi::CStr, ffi::CString, io, os::unix::ffi::OsStrExt, path::Path};

/// Whether the file has the extended attribute `name`, whatever its value (getxattr(2)).
///
/// # Errors
/// The file cannot be looked at. (A file system without extended attributes is none.)
pub fn has_attribute(path: &Path, name: &CStr) -> io::Result<bool> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: both strings end with a NUL and live across the call; with a length of 0 the kernel writes nothing.
    let length = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), std::ptr::null_mut(), 0) };
    if length >= 0 {
        return Ok(true);
    }
    match io::Error::last_os_error() {
        error if matches!(error.raw_os_error(), Some(libc::ENODATA | libc::EOPNOTSUPP)) => Ok(false),
        error => Err(error),
    }
}
