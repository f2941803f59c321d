//! The supervisor's end.

use std::{
    io::{self, ErrorKind},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::io::{Interest, unix::AsyncFd};

use super::{
    FromWorker, ROLE, Refusal, ToWorker,
    confine::{ConfineError, confine},
    serve,
    wire::{self, Packet, Received, Receiver},
};
use crate::{
    gate::{
        chain,
        connect::peek::{ALPN_MAX, LOOK_MAX, Shown},
    },
    sys,
};

/// How long the worker may take to be confined.
const START_MAX: Duration = Duration::from_secs(5);
/// A protocol of ALPN has 255 bytes at most; escaped, four times as many.
const PROTOCOL_MAX: usize = 4 * 255;

/// Why there is no worker.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error("{doing}")]
    Io { doing: &'static str, source: io::Error },
    #[error("confine the worker")]
    Confine(#[from] ConfineError),
    #[error("the worker did not start: {0}")]
    Start(String),
}

fn doing(doing: &'static str) -> impl FnOnce(io::Error) -> WorkerError {
    move |source| WorkerError::Io { doing, source }
}

/// The worker has died, or said something that it must not say; every connection that it had is lost.
#[derive(Debug, thiserror::Error)]
#[error("the proxy's worker is lost: {why}")]
pub struct Lost {
    pub why: String,
}

/// The worker's first word.
#[derive(Debug, Serialize, Deserialize)]
enum Hello {
    Confined,
    Failed { why: String },
}

/// Sends to the worker; a cheap handle, shared by all connections. Nothing here waits for an answer: those come through
/// [`Events`]. A send waits only while the socket to the worker is full.
#[derive(Clone, Debug)]
pub struct Worker {
    socket: Arc<AsyncFd<OwnedFd>>,
}

/// What the worker says, for one reader. Dropping it kills the worker.
#[derive(Debug)]
pub struct Events {
    socket: Arc<AsyncFd<OwnedFd>>,
    receiver: Receiver,
    process: Option<Process>,
    lost: bool,
}

impl Worker {
    /// Starts the process and waits until it is confined. Call it from a thread that lives as long as the worker shall: the
    /// kernel kills the worker when that thread ends (prctl(2), PR_SET_PDEATHSIG).
    ///
    /// # Errors
    /// It could not be started or not be confined, or took more than five seconds.
    pub async fn start() -> Result<(Self, Events), WorkerError> {
        let mut command = Command::new("/proc/self/exe");
        command.arg(ROLE);
        Self::start_as(command).await
    }

    /// As [`Worker::start`], with a command whose stdin becomes the worker's socket.
    pub(super) async fn start_as(mut command: Command) -> Result<(Self, Events), WorkerError> {
        let (ours, theirs) = wire::pair().map_err(doing("make a socket for the worker"))?;
        command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null()).env_clear();
        let child = command.spawn().map_err(doing("start the worker"))?;
        drop(command);
        let (worker, mut events) = Self::over(ours, Some(Process(child)))?;
        let hello = tokio::time::timeout(START_MAX, events.receive::<Hello>()).await;
        match hello.map(|hello| hello.map_err(doing("hear from the worker"))) {
            Ok(Ok(Some(Received { message: Hello::Confined, .. }))) => Ok((worker, events)),
            Ok(Ok(Some(Received { message: Hello::Failed { why }, .. }))) => Err(WorkerError::Start(why)),
            Ok(Ok(None)) => Err(WorkerError::Start("it ended".to_owned())),
            Ok(Err(error)) => Err(error),
            Err(_elapsed) => Err(WorkerError::Start("it said nothing".to_owned())),
        }
    }

    /// The worker's loop in a thread of this process, without any confinement.
    #[cfg(test)]
    pub fn in_thread() -> Result<(Self, Events), WorkerError> {
        let (ours, theirs) = wire::pair().map_err(doing("make a socket for the worker"))?;
        std::thread::spawn(move || serve::serve(theirs));
        Self::over(ours, None)
    }

    fn over(socket: OwnedFd, process: Option<Process>) -> Result<(Self, Events), WorkerError> {
        let socket =
            sys::readiness::watch(socket, Interest::READABLE).map_err(doing("watch the worker's socket"))?;
        let socket = Arc::new(socket);
        let events = Events { socket: Arc::clone(&socket), receiver: Receiver::new(), process, lost: false };
        Ok((Self { socket }, events))
    }

    /// Hands over a client's socket, which does not block and was accepted from a listener that is fit (`dial::fit`); keep no
    /// copy of it. `Peeked` or `Gone` follows; a client that is silent for `grace` is shown as such.
    ///
    /// # Errors
    /// The worker is lost (for every method): then [`Events`] says so as well.
    pub async fn peek(&self, id: u64, client: OwnedFd, grace: Duration) -> io::Result<()> {
        let grace_ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
        self.send(&ToWorker::Peek { id, grace_ms }, &[], &[client.as_fd()]).await
    }

    /// Hands over the server's socket, as it was dialled; keep no copy of it. `Done` follows at the end. With `tunnel` (the
    /// client was silent, or asked a proxy: CONNECT, or an absolute request) no more than what was looked at passes, and
    /// everything of the server; the client's next bytes are looked at: another `Peeked` (see the module).
    ///
    /// # Errors
    /// As [`Worker::peek`].
    pub async fn join(&self, id: u64, upstream: OwnedFd, tunnel: bool) -> io::Result<()> {
        self.send(&ToWorker::Join { id, tunnel }, &[], &[upstream.as_fd()]).await
    }

    /// Lets pass what was looked at after the join; of a request to a proxy no more than that, again.
    ///
    /// # Errors
    /// As [`Worker::peek`].
    pub async fn go_on(&self, id: u64) -> io::Result<()> {
        self.send(&ToWorker::Continue { id }, &[], &[]).await
    }

    /// Refuses it, at any time; if it was joined, `Done` follows.
    ///
    /// # Errors
    /// As [`Worker::peek`].
    pub async fn refuse(&self, id: u64, how: Refusal) -> io::Result<()> {
        self.send(&ToWorker::Refuse { id, how }, &[], &[]).await
    }

    /// Resets it, at any time; if it was joined, `Done` follows.
    ///
    /// # Errors
    /// As [`Worker::peek`].
    pub async fn forget(&self, id: u64) -> io::Result<()> {
        self.send(&ToWorker::Forget { id }, &[], &[]).await
    }

    /// Has a DNS answer of at most 64 KiB read: `Answered` follows.
    ///
    /// # Errors
    /// As [`Worker::peek`].
    pub async fn answer(&self, id: u64, message: &[u8]) -> io::Result<()> {
        self.send(&ToWorker::Answer { id }, message, &[]).await
    }

    #[cfg(test)]
    pub(super) fn socket(&self) -> &OwnedFd {
        self.socket.get_ref()
    }

    async fn send(&self, message: &ToWorker, raw: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let packet = Packet::new(message, raw)?;
        match packet.send(self.socket.as_fd(), fds) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            other => return other,
        }
        // Only while it is full: whoever waits for room all the time is woken by every packet that is taken.
        let full = sys::readiness::watch(self.socket.as_fd().try_clone_to_owned()?, Interest::WRITABLE)?;
        full.async_io(Interest::WRITABLE, |socket| packet.send(socket.as_fd(), fds)).await
    }
}

impl Events {
    /// The next event. Cancel safe.
    ///
    /// # Errors
    /// The worker is lost, and its process, if it still ran, was killed. Said once: from then on this waits for ever.
    pub async fn next(&mut self) -> Result<FromWorker, Lost> {
        if self.lost {
            return std::future::pending().await;
        }
        let why = match self.receive().await {
            Ok(Some(Received { message, raw, .. })) => match checked(message, raw) {
                Some(event) => return Ok(event),
                None => "it said something that cannot be".to_owned(),
            },
            Ok(None) => "it ended".to_owned(),
            Err(error) => error.to_string(),
        };
        self.lost = true;
        // Killed and reaped.
        self.process = None;
        Err(Lost { why })
    }

    /// The worker's process.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(|process| process.0.id())
    }

    async fn receive<T: serde::de::DeserializeOwned>(&mut self) -> io::Result<Option<Received<T>>> {
        let Self { socket, receiver, .. } = self;
        socket.async_io(Interest::READABLE, |socket| receiver.receive(socket)).await
    }
}

/// Killed and reaped when it is dropped.
#[derive(Debug)]
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Nothing goes on to a policy or a person but what the peeker can have made.
fn checked(event: FromWorker, raw: Vec<u8>) -> Option<FromWorker> {
    match event {
        FromWorker::Peeked { id, shown } => plausible(&shown).then_some(FromWorker::Peeked { id, shown }),
        FromWorker::Answered { id, answer: Some(mut answer) } => {
            answer.message = raw;
            Some(FromWorker::Answered { id, answer: Some(answer) })
        }
        event @ (FromWorker::Answered { answer: None, .. }
        | FromWorker::Gone { .. }
        | FromWorker::HalfClosed { .. }
        | FromWorker::Done { .. }) => Some(event),
    }
}

/// Names are checked where they are made ([`crate::gate::connect::peek::Name`]).
fn plausible(shown: &Shown) -> bool {
    let printable = |text: &String| {
        text.len() <= PROTOCOL_MAX && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
    };
    shown.alpn.len() <= ALPN_MAX && shown.alpn.iter().all(printable) && shown.head <= LOOK_MAX
}

/// The worker's life.
pub(super) fn become_worker(socket: OwnedFd) -> Result<(), WorkerError> {
    let confined = sys::confine::close_all_but(socket.as_fd())
        .map_err(doing("close what was inherited"))
        .and_then(|()| Ok(confine()?));
    let hello = match &confined {
        Ok(()) => Hello::Confined,
        Err(error) => Hello::Failed { why: chain(error) },
    };
    Packet::new(&hello, &[])
        .and_then(|packet| packet.send(socket.as_fd(), &[]))
        .map_err(doing("greet the supervisor"))?;
    confined?;
    serve::serve(socket).map_err(doing("serve"))
}
