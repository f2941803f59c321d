//! What weakens a session, said before it starts.

use super::setup::{Door, Prepared};

/// What a person should know before the agent starts.
pub(super) fn of(door: &Door, prepared: &Prepared) -> Vec<String> {
    let mut notices = Vec::new();
    notices.extend(door.state.warning());
    if !prepared.seal.complete() {
        notices.push(format!(
            "the seal is incomplete (Landlock ABI {}, namespaces = {}): a process of the session can reach others; \
             see `ana doctor`",
            prepared.seal.landlock_abi, prepared.switches.namespaces
        ));
    }
    if let Some(first) = prepared.missing.first() {
        let more = match prepared.missing.len() {
            1 => String::new(),
            n => format!(" and {} more", n - 1),
        };
        let text = format!(
            "not there, hence not protected: {}{more} (a file that appears there later is not, either)",
            first.display()
        );
        notices.push(text);
    }
    let switches = prepared.switches;
    for (on, what) in [
        (
            switches.debuggers,
            "debuggers = true: a process of the session can rewrite another one after it was judged",
        ),
        (switches.io_uring, "io_uring = true: its operations are seen by no filter"),
        (switches.i386, "i386 = true: 32-bit system calls pass the base filter unchecked"),
    ] {
        if on {
            notices.push(format!("[session] {what}"));
        }
    }
    if let crate::launch::pids::TaskLimit::None = prepared.limit {
        notices.push("no pids controller: the number of the session's processes is not bounded".to_owned());
    }
    notices
}
