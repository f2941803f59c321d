//! What is there before `ana-run` connects: the account, the state, the session's socket.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
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

/// The end of a socket's name while nobody is to find it; no longer than the other one (unix(7): 108 bytes in all).
pub(super) const HIDDEN: &str = ".bind";

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
    let (socket, listener) = listen(&run, &session)?;
    drop(starting);
    Ok(Door { session, socket, listener, state, account, hierarchy })
}

/// Opens the session's socket. It gets its name last: whoever finds it can connect. (bind(2) makes a file that refuses
/// everybody until listen(2), and whose mode lets root in only.)
fn listen(run: &Path, session: &str) -> Result<(PathBuf, UnixListener), SupervisorError> {
    let (socket, hidden) = (run.join(format!("{session}.sock")), run.join(format!("{session}{HIDDEN}")));
    let listener = UnixListener::bind(&hidden).map_err(doing("bind the session's socket"))?;
    // Connecting takes the right to write; who may say what is decided by who it is.
    fs::set_permissions(&hidden, fs::Permissions::from_mode(0o666))
        .map_err(doing("open the session's socket to its clients"))?;
    fs::rename(&hidden, &socket).map_err(doing("name the session's socket"))?;
    Ok((socket, listener))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

    use super::*;

    #[tokio::test]
    async fn a_socket_that_can_be_found_can_be_connected_to() {
        let run = tempfile::tempdir().expect("a folder");
        let watch = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).expect("inotify");
        watch.add_watch(run.path(), AddWatchFlags::IN_ALL_EVENTS).expect("watched");
        let (socket, _listener) = listen(run.path(), "s").expect("it listens");
        UnixStream::connect(&socket).expect("connected");
        assert_eq!(fs::metadata(&socket).expect("it is there").permissions().mode() & 0o777, 0o666);
        // By that name it was never anything less.
        let named: Vec<_> = watch
            .read_events()
            .expect("events")
            .into_iter()
            .filter(|event| event.name.as_deref() == Some("s.sock".as_ref()))
            .map(|event| event.mask)
            .collect();
        assert_eq!(named, [AddWatchFlags::IN_MOVED_TO]);
        let names: Vec<_> =
            fs::read_dir(run.path()).expect("listed").flatten().map(|e| e.file_name()).collect();
        assert_eq!(names, ["s.sock"]);
    }
}
