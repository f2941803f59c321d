//! What weakens a session, said before it starts.

use super::{connections::Connections, door::Door, setup::Prepared};

/// What a person should know before the agent starts.
pub(super) fn of(door: &Door, prepared: &Prepared, connections: Option<&Connections>) -> Vec<String> {
    let mut notices = Vec::new();
    notices.extend(door.state.warning());
    if !prepared.seal.complete() {
        notices.push(format!(
            "the seal is incomplete (Landlock ABI {}, namespaces = {}): a process of the session can reach others; \
             see `ana doctor`",
            prepared.seal.landlock_abi, prepared.switches.namespaces
        ));
    }
    if let Some(first) = prepared.watched.missing.first() {
        let more = match prepared.watched.missing.len() {
            1 => String::new(),
            n => format!(" and {} more", n - 1),
        };
        notices.push(format!("not there yet: {}{more} (protected once it is)", first.display()));
    }
    if let Some(first) = prepared.watched.unwatched.first() {
        notices.push(format!(
            "the file system of {} does not tell what is replaced in it: a protected file that is replaced there \
             is not protected any more",
            first.display()
        ));
    }
    if let Some((first, rest)) = connections.and_then(|connections| connections.unknown.split_first()) {
        let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
        notices.push(format!(
            "no address yet: {first}{more} (looked up again and again; its name counts already)"
        ));
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
