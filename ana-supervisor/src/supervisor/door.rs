//! What is there before `ana-run` connects: the account, the state, the session's socket.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::fcntl::{Flock, FlockArg, OFlag};
use tokio::net::UnixListener;

use super::{Options, SupervisorError, io as doing, leftovers};
use crate::{
    launch::{cgroup::Hierarchy, remains::Remains, user::Account},
    state::State,
};

/// What exists before `ana-run` connects.
pub(super) struct Door {
    pub session: String,
    pub socket: PathBuf,
    pub listener: UnixListener,
    pub state: Arc<State>,
    pub account: Account,
    pub hierarchy: Hierarchy,
}

impl Door {
    /// What the session will leave.
    pub(super) fn remains(&self) -> Remains {
        let run = self.socket.parent().unwrap_or(Path::new("/"));
        Remains::of(&self.session, &self.hierarchy.base(), run)
    }
}

/// Checks what can be checked, cleans up after the dead, and opens the session's socket.
pub(super) fn open_door(options: &Options) -> Result<Door, SupervisorError> {
    let account = Account::resolve(options.user.as_deref(), options.sudo_uid)?;
    let state = Arc::new(State::open(options.state.as_deref())?);
    let hierarchy = Hierarchy::find()?;
    let run = State::paths(options.state.as_deref()).run;
    // A socket that is bound but not yet served looks like a dead session's to another start.
    let starting = state.run_dir().open_file("lock", OFlag::O_RDWR | OFlag::O_CREAT, 0o600)?;
    let starting = Flock::lock(starting, FlockArg::LockExclusive)
        .map_err(|(_, errno)| doing("lock the folder of the sockets")(errno.into()))?;
    let cleaned = leftovers::clean(&hierarchy, &run);
    if !cleaned.is_empty() {
        tracing::warn!(?cleaned, "killed and removed what dead sessions had left");
    }
    let session = ulid::Ulid::generate().to_string();
    let socket = run.join(format!("{session}.sock"));
    let listener = UnixListener::bind(&socket).map_err(doing("bind the session's socket"))?;
    // Connecting takes the right to write; who may say what is decided by who it is.
    fs::set_permissions(&socket, std::os::unix::fs::PermissionsExt::from_mode(0o666))
        .map_err(doing("open the session's socket to its clients"))?;
    drop(starting);
    Ok(Door { session, socket, listener, state, account, hierarchy })
}
