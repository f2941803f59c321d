//! The thread that protects what comes to listed paths.

use std::path::PathBuf;

use tokio::sync::mpsc;

use crate::{
    gate::exec::{
        GateError,
        replaced::{News, Parts, Watcher},
    },
    pipeline::chain,
    policy::Policy,
    sys,
};

/// What is known of the listed paths when the session starts, and what is told of them later.
pub(super) struct Watched {
    /// Listed paths where no file is yet.
    pub missing: Vec<PathBuf>,
    /// Folders in which replacements are not seen.
    pub unwatched: Vec<PathBuf>,
    pub news: mpsc::UnboundedReceiver<News>,
}

/// Protects everything that the policy lists, and the programs that give privilege, then starts the thread. The answering thread must be running.
pub(super) fn start(
    policy: &Policy,
    privileged: &[PathBuf],
    parts: Parts,
    fatal: mpsc::UnboundedSender<String>,
) -> Result<Watched, GateError> {
    let (teller, news) = mpsc::unbounded_channel();
    let watcher = Watcher::start(policy, privileged, parts, teller.clone())?;
    let watched = Watched { missing: watcher.missing(), unwatched: watcher.unwatched(), news };
    std::thread::spawn(move || {
        // What it takes to see a replacement is how long that stays unprotected.
        sys::process::prefer_this_thread();
        let error = watcher.run();
        // The end first, the record of it then: until the session is dead, that path is not protected.
        fatal.send(format!("a listed path cannot be protected: {}", chain(&error))).ok();
        teller.send(News::Unprotected(error)).ok();
    });
    Ok(watched)
}
