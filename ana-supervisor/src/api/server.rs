//! The supervisor's end: answers `ana`. (The owner's connection is the session's own affair.)

use std::{fs::File, io, os::fd::AsFd, path::Path, sync::Arc, time::Duration};

use nix::unistd::Pid;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::Semaphore,
};

use super::{
    frame::{self, Assembly, SMALL_REQUEST_MAX},
    peer,
    wire::{Reply, Request, SessionInfo},
};
use crate::{
    approval::authenticator::Options,
    launch::cgroup::{Hierarchy, SessionCgroup},
    pipeline::{Pipeline, chain},
    sys,
};

/// Connections at a time, of users and of root each.
const CONNECTIONS_MAX: usize = 64;
/// How long a client may say nothing.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// After a connection that could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// What the answers need to know.
pub struct Context {
    pub pipeline: Arc<Pipeline>,
    pub hierarchy: Hierarchy,
    pub cgroup: Arc<SessionCgroup>,
    pub info: tokio::sync::watch::Receiver<SessionInfo>,
    /// Ends the session; the text says why.
    pub kill: tokio::sync::mpsc::UnboundedSender<String>,
}

/// Accepts for ever; `early` are those that connected before the session ran.
pub async fn serve(listener: UnixListener, early: Vec<UnixStream>, context: Arc<Context>) {
    let connections = Arc::new(Connections::default());
    let mut early = early.into_iter();
    loop {
        let stream = match early.next() {
            Some(stream) => stream,
            None => match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, say: accept would fail again at once.
                    tracing::warn!(?error, "a client could not be accepted");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            },
        };
        let (context, connections) = (Arc::clone(&context), Arc::clone(&connections));
        tokio::spawn(async move {
            if let Err(error) = admit(&stream, &context, &connections).await {
                tracing::debug!(?error, "a client's connection ended");
            }
        });
    }
}

/// Connections at a time. Root has its own: whoever uses up the others does not keep root from breaking the glass.
struct Connections {
    users: Semaphore,
    roots: Semaphore,
}

impl Default for Connections {
    fn default() -> Self {
        Self { users: Semaphore::new(CONNECTIONS_MAX), roots: Semaphore::new(CONNECTIONS_MAX) }
    }
}

/// Refuses whom nothing is said to, before anything is kept for him.
async fn admit(stream: &UnixStream, context: &Context, connections: &Connections) -> io::Result<()> {
    let peer = sys::socket::peer(stream.as_fd())?;
    if let Err(error) = peer::may_answer(&peer, &context.hierarchy, context.pipeline.session.uid) {
        return frame::send(stream, &Reply::Refused { why: chain(&error) }, &[]).await;
    }
    let kind = if peer.uid == 0 { &connections.roots } else { &connections.users };
    let Ok(_permit) = kind.try_acquire() else {
        let why = format!("{CONNECTIONS_MAX} clients are connected already");
        return frame::send(stream, &Reply::Refused { why }, &[]).await;
    };
    converse(stream, context, &peer).await
}

async fn converse(stream: &UnixStream, context: &Context, peer: &sys::socket::Peer) -> io::Result<()> {
    let mut assembly = Assembly::new(SMALL_REQUEST_MAX);
    let mut watch: Option<tokio::sync::watch::Receiver<u64>> = None;
    loop {
        let request = tokio::select! {
            request = frame::receive(stream, &mut assembly) => match request {
                Ok(Some(request)) => request,
                Ok(None) => return Ok(()),
                Err(error) => {
                    let why = format!("malformed request: {error}");
                    return frame::send(stream, &Reply::Refused { why }, &[]).await;
                }
            },
            changed = changed(watch.as_mut()) => {
                if !changed { return Ok(()) }
                frame::send(stream, &Reply::Changed, &[]).await?;
                continue;
            }
            // Somebody who watches may be silent.
            () = tokio::time::sleep(SILENCE_MAX), if watch.is_none() => return Ok(()),
        };
        // Descriptors are never asked for; what came is closed.
        assembly.fds.clear();
        if let Err(error) = peer::may_answer(peer, &context.hierarchy, context.pipeline.session.uid) {
            return frame::send(stream, &Reply::Refused { why: chain(&error) }, &[]).await;
        }
        if let Request::Watch = request {
            watch = Some(context.pipeline.desk.changed());
        }
        answer(stream, context, peer, request).await?;
    }
}

/// Waits for a change of what is pending, if that was asked for; false when there will be no more.
async fn changed(watch: Option<&mut tokio::sync::watch::Receiver<u64>>) -> bool {
    match watch {
        Some(watch) => watch.changed().await.is_ok(),
        None => std::future::pending().await,
    }
}

async fn answer(
    stream: &UnixStream,
    context: &Context,
    peer: &sys::socket::Peer,
    request: Request,
) -> io::Result<()> {
    let desk = &context.pipeline.desk;
    let now = sys::boottime::now()?;
    let refused = |why: String| Reply::Refused { why };
    let reply = match request {
        Request::Pending => {
            for waiting in desk.pending() {
                let (operation, more) = (Box::new((*waiting.operation).clone()), waiting.more);
                frame::send(stream, &Reply::Pending { operation, more }, &[]).await?;
            }
            Reply::End
        }
        Request::Watch => Reply::Done,
        Request::Show { id } => match desk.show(&id, now) {
            Ok(options) => match shared_terminal(peer.pid, &context.cgroup) {
                Some(terminal) => refused(format!(
                    "a session has {terminal} open and could read what is typed there; use another terminal"
                )),
                None => return question(stream, options).await,
            },
            Err(error) => refused(chain(&error)),
        },
        Request::Sign { id, assertion } => match desk.sign(&id, &assertion, now) {
            Ok(()) => Reply::Done,
            Err(error) => refused(chain(&error)),
        },
        Request::Deny { id, reason } => match desk.deny(&id, &user_name(peer.uid), &reason, now) {
            Ok(()) => Reply::Done,
            Err(error) => refused(chain(&error)),
        },
        Request::Describe => {
            let mut info = context.info.borrow().clone();
            info.pending = desk.waiting();
            Reply::Session(info)
        }
        Request::Kill => {
            // The receiver is gone only when the session is ending anyway.
            drop(context.kill.send(format!("killed by {}", user_name(peer.uid))));
            Reply::Done
        }
        Request::Launch(_) | Request::Signal(_) | Request::Continue => {
            refused("only the session's own ana-run may say that".to_owned())
        }
    };
    frame::send(stream, &reply, &[]).await
}

/// Sends the question, and with it the remembered software passkey, if there is one that can be opened.
pub async fn question(stream: &UnixStream, options: Options) -> io::Result<()> {
    let key = options.offered.iter().find_map(|offer| open_key(offer.key_file.as_deref()?));
    let reply = Reply::Question { options: Box::new(options), key: key.is_some() };
    let fds: Vec<_> = key.iter().map(AsFd::as_fd).collect();
    frame::send(stream, &reply, &fds).await
}

/// The custody of a software passkey is root's: only a root-owned file that is nobody else's is handed on.
fn open_key(path: &Path) -> Option<File> {
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = File::options().read(true).custom_flags(flags).open(path).ok()?;
    let meta = file.metadata().ok()?;
    (meta.is_file() && meta.uid() == 0 && meta.mode() & 0o077 == 0).then_some(file)
}

/// The terminal of the caller that a process of the session has open, too: what is typed there, the session may read.
fn shared_terminal(caller: Pid, cgroup: &SessionCgroup) -> Option<String> {
    let mine: Vec<_> = (0..3).filter_map(|fd| terminal(caller, &fd.to_string())).collect();
    if mine.is_empty() {
        return None;
    }
    for pid in cgroup.processes().unwrap_or_default() {
        let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for name in descriptors.flatten().filter_map(|d| d.file_name().into_string().ok()) {
            if let Some(theirs) = terminal(pid, &name)
                && let Some((name, _)) = mine.iter().find(|(_, device)| *device == theirs.1)
            {
                return Some(name.clone());
            }
        }
    }
    None
}

/// Name and device (file system, number) of the terminal behind a descriptor, if it is one.
fn terminal(pid: Pid, fd: &str) -> Option<(String, (u64, u64))> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let path = format!("/proc/{pid}/fd/{fd}");
    let name = std::fs::read_link(&path).ok()?.to_str()?.to_owned();
    if !name.starts_with("/dev/pts/") && !name.starts_with("/dev/tty") {
        return None;
    }
    let meta = std::fs::metadata(&path).ok()?;
    meta.file_type().is_char_device().then(|| (name, (meta.dev(), meta.rdev())))
}

/// The account's name; its number where there is none.
pub fn user_name(uid: u32) -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)).ok().flatten();
    user.map_or_else(|| format!("uid {uid}"), |user| user.name)
}
