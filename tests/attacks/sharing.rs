//! For several of these programs: a process that shares the memory of the one that starts it, so that what it executes can
//! change while it does.

use std::ptr;

use nix::unistd::Pid;

/// What the process does; it is given the `call` of [`start`], and must end in execve or _exit.
pub(crate) type Deed = extern "C" fn(*mut libc::c_void) -> libc::c_int;

/// Starts one on the upper end of `stack`. `flags`: CLONE_VFORK, or 0.
///
/// # Safety
/// `call` and `stack` outlive the process's use of this memory: wait for it. `deed` touches nothing else that Rust knows of.
pub(crate) unsafe fn start<Call>(deed: Deed, call: &Call, stack: &mut [u64], flags: i32) -> Option<Pid> {
    let top = stack.as_mut_ptr_range().end;
    // SAFETY: the caller's promise.
    let child = unsafe {
        libc::clone(
            deed,
            top.cast(),
            libc::CLONE_VM | libc::SIGCHLD | flags,
            ptr::from_ref(call).cast_mut().cast(),
        )
    };
    (child > 0).then(|| Pid::from_raw(child))
}
