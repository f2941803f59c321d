//! What a crashed session left behind: its processes, its cgroups, its pinned links. First kill, then unpin.

use std::{fs, io, path::Path, time::Duration};

use super::door::HIDDEN;
use crate::{
    api::client,
    kernel::pins,
    launch::{cgroup::Hierarchy, remains::Remains},
};

/// A cgroup without pins may belong to a session that is just starting.
const STARTING: Duration = Duration::from_secs(60);

/// Whether a supervisor or a warden keeps this session.
pub(super) fn is_live(session: &str) -> bool {
    match pins::is_kept(&Path::new(pins::BASE).join(session)) {
        Ok(kept) => kept,
        // Where it cannot be told, it lives.
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// The ids of the sessions that nobody keeps any more.
pub fn remains(hierarchy: &Hierarchy) -> Vec<String> {
    let base = Path::new(pins::BASE);
    // Where there is no such directory yet, there is no session; and without the lock it cannot be told which ones live.
    let mut found = match pins::starts(base) {
        Ok(_until_here) => {
            let mut found = pins::leftovers(base).unwrap_or_default();
            found.retain(|session| !is_live(session));
            found
        }
        Err(_) => Vec::new(),
    };
    for entry in fs::read_dir(hierarchy.base()).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let settled = entry.metadata().and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok());
        let is_session =
            entry.file_type().is_ok_and(|t| t.is_dir()) && !Path::new(pins::BASE).join(&name).exists();
        if is_session && settled.is_some_and(|age| age > STARTING) && !found.contains(&name) {
            found.push(name);
        }
    }
    found
}

/// Kills and removes what dead sessions left; returns their ids.
pub(super) fn clean(hierarchy: &Hierarchy, run: &Path) -> Vec<String> {
    let mut cleaned = remains(hierarchy);
    cleaned.retain(|session| {
        let left = Remains::of(session, &hierarchy.base(), run);
        if let Err(error) = left.kill(super::KILL_LIMIT) {
            // Its guard stays pinned: nothing of it runs unguarded.
            tracing::error!(
                session,
                error = &error as &dyn std::error::Error,
                "a dead session could not be killed"
            );
            return false;
        }
        left.remove();
        true
    });
    for (session, socket) in client::sockets(run) {
        if !is_live(&session) && std::os::unix::net::UnixStream::connect(&socket).is_err() {
            fs::remove_file(&socket).ok();
        }
    }
    // Starts wait for one another: a socket without its name is one of a start that did not come so far.
    for entry in fs::read_dir(run).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().ends_with(HIDDEN) {
            fs::remove_file(entry.path()).ok();
        }
    }
    cleaned
}
