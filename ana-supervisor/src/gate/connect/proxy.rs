//! The hold proxy: every redirected connection from accept(2) to its end.
//!
//! `Arrived` → (the worker looks) → `Held` → (ticket, or nothing protects it) → `Flow` → how much was moved. Dropping any of
//! them resets the connection.

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    time::Duration,
};

use ana_common::network::{ORIGIN_DNS, Origin};
use tokio::{
    io::Interest,
    sync::{OwnedSemaphorePermit, mpsc},
};

use super::{
    ConnectError, ConnectGate, TCP, dial, dns, doing, listener,
    peek::{Name, Protocol, Shown},
    worker::{FromWorker, Refusal as Manner},
};
use crate::{gate::Ticket, kernel::network::RefusalReason, sys, sys::socket::end_by_reset};

/// A client that has said nothing by then is decided by its address alone. What it says later is looked at once more.
const SILENCE: Duration = Duration::from_millis(150);
/// The same on ports on which names are inspected: there the client speaks first, after it has loaded its certificates, say.
const SILENCE_INSPECTED: Duration = Duration::from_secs(3);
/// Where HTTPS is spoken to.
const HTTPS_PORT: u16 = 443;

/// A connection that was accepted. Its bytes are unread.
pub struct Arrived(Connection);

/// One connection as the worker knows it. Dropping it resets it.
struct Connection {
    gate: Arc<ConnectGate>,
    id: u64,
    origin: Origin,
    /// The client's end.
    peer: SocketAddr,
    events: mpsc::UnboundedReceiver<FromWorker>,
    /// The worker has let go of it.
    over: bool,
    /// While it waits or is being joined: a share of what a session may have of these.
    permit: Option<OwnedSemaphorePermit>,
}

impl Connection {
    async fn event(&mut self) -> Option<FromWorker> {
        let event = self.events.recv().await;
        self.over |= matches!(event, None | Some(FromWorker::Gone { .. } | FromWorker::Done { .. }));
        event
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.gate.waiting().remove(&self.id);
        if !self.over {
            let (worker, id) = (self.gate.worker.clone(), self.id);
            // A lost worker has reset everything.
            tokio::spawn(async move { worker.forget(id).await });
        }
    }
}

/// Accepts for ever; what has arrived is given away.
///
/// # Errors
/// The listener fails.
pub(super) async fn accept(
    gate: Arc<ConnectGate>,
    listener: TcpListener,
    arrived: impl Fn(Arrived),
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    // Only the listener is watched: what is accepted goes to the worker at once.
    let ready = sys::readiness::watch(listener.try_clone()?.into(), Interest::READABLE)?;
    loop {
        let accepted = ready.async_io(Interest::READABLE, |_| listener.accept()).await;
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            // Too many descriptors: those that wait stay in the queue, and descriptors come back.
            Err(error) if error.raw_os_error().is_some_and(passes) => {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        stream.set_nonblocking(true)?;
        match gate.maps.take_origin(peer, gate.namespace) {
            Ok(Some(origin)) => {
                if let Err(error) = gate.take_in(stream, peer, origin, &arrived).await {
                    tracing::warn!(%error, "a connection was reset");
                }
            }
            // Nobody of the session: it has no business here.
            Ok(None) => drop(end_by_reset(&stream)),
            Err(error) => {
                tracing::warn!(%error, "where a connection goes is not known");
                drop(end_by_reset(&stream));
            }
        }
    }
}

/// Errors of accept(2) that are about the moment, or about the connection (accept(2), "Error handling").
fn passes(errno: i32) -> bool {
    [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::ECONNABORTED, libc::EINTR]
        .contains(&errno)
}

impl ConnectGate {
    async fn take_in(
        self: &Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        origin: Origin,
        arrived: &impl Fn(Arrived),
    ) -> io::Result<()> {
        let destination = origin.destination.socket_address();
        if origin.flags & ORIGIN_DNS != 0 && self.may_ask(destination) {
            let Some(permit) = self.limits.relay() else { return self.too_many(&stream, &origin) };
            let gate = Arc::clone(self);
            tokio::spawn(async move {
                if let Err(error) = dns::relay(gate, stream, destination).await {
                    tracing::debug!(%error, %destination, "DNS over TCP ended");
                }
                drop(permit);
            });
            return Ok(());
        }
        let Some(permit) = self.limits.connection() else { return self.too_many(&stream, &origin) };
        let id = self.number();
        let (teller, events) = mpsc::unbounded_channel();
        self.waiting().insert(id, teller);
        let (gate, permit) = (Arc::clone(self), Some(permit));
        let connection = Connection { gate, id, origin, peer, events, over: false, permit };
        let inspected = |network: &crate::policy::Network| network.inspect.contains(&destination.port());
        let silence = if self.policy.network().is_some_and(inspected) { SILENCE_INSPECTED } else { SILENCE };
        self.worker.peek(id, stream.into(), silence).await?;
        arrived(Arrived(connection));
        Ok(())
    }

    /// As many connections wait as a session may have.
    fn too_many(&self, stream: &TcpStream, origin: &Origin) -> io::Result<()> {
        end_by_reset(stream)?;
        self.refuse(origin, TCP, RefusalReason::Full);
        Ok(())
    }

    /// What the worker tells, to whom it concerns.
    pub(super) fn hear(&self, said: FromWorker) {
        let id = match &said {
            FromWorker::Answered { id, answer } => return self.reader.tell(*id, answer.clone()),
            FromWorker::Peeked { id, .. }
            | FromWorker::Gone { id }
            | FromWorker::HalfClosed { id }
            | FromWorker::Done { id, .. } => *id,
        };
        if let Some(teller) = self.waiting().get(&id) {
            // Whoever waited may just have given up.
            drop(teller.send(said));
        }
    }
}

impl Arrived {
    /// Waits until it is known what the connection shows. `None`: the client has gone before.
    pub async fn shows(self) -> Option<Held> {
        let Self(mut connection) = self;
        match connection.event().await? {
            FromWorker::Peeked { shown, .. } => Some(Held { connection, shown, tunnel: None, joined: false }),
            FromWorker::Gone { .. }
            | FromWorker::HalfClosed { .. }
            | FromWorker::Done { .. }
            | FromWorker::Answered { .. } => None,
        }
    }
}

/// A connection whose first bytes wait. Dropping it resets it.
#[must_use = "a held connection waits until it is resumed or refused"]
pub struct Held {
    connection: Connection,
    shown: Shown,
    /// What an HTTP proxy was asked for, once that is decided: what waits now is inside of it.
    tunnel: Option<(Option<Name>, u16)>,
    /// The server's side is open.
    joined: bool,
}

/// A connection that goes on.
pub struct Flow(Connection, Tail);

/// What may be looked at again.
struct Tail {
    tunnel: Option<(Option<Name>, u16)>,
}

/// How a connection went on.
pub enum Passed {
    /// The client's next bytes wait.
    Again(Box<Held>),
    /// Over: bytes of the client's, bytes for the client.
    Over { sent: u64, received: u64, time: Duration },
    /// Over, and nobody knows more.
    Lost,
}

impl Held {
    pub fn destination(&self) -> SocketAddr {
        self.connection.origin.destination.socket_address()
    }

    pub fn origin(&self) -> &Origin {
        &self.connection.origin
    }

    pub fn shown(&self) -> &Shown {
        &self.shown
    }

    /// Whether what waits is inside of a connection that was decided before.
    pub fn is_inner(&self) -> bool {
        self.tunnel.is_some()
    }

    pub(super) fn tunnel_name(&self) -> Option<&Name> {
        self.tunnel.as_ref()?.0.as_ref()
    }

    pub(super) fn tunnel_port(&self) -> u16 {
        self.tunnel.as_ref().map_or(HTTPS_PORT, |(_, port)| *port)
    }

    /// Lets it go on: it was recorded that it may.
    ///
    /// # Errors
    /// The destination cannot be reached; the client gets a reset.
    pub async fn resume(self, _ticket: &Ticket) -> Result<Flow, ConnectError> {
        self.go_on().await
    }

    /// Lets it go on because nothing protects its destination, or a rule allows it.
    ///
    /// # Errors
    /// As [`Self::resume`].
    pub async fn pass(self) -> Result<Flow, ConnectError> {
        self.go_on().await
    }

    async fn go_on(self) -> Result<Flow, ConnectError> {
        let Self { mut connection, shown, tunnel, joined } = self;
        let (gate, id) = (Arc::clone(&connection.gate), connection.id);
        let lost = doing("talk to the proxy's worker");
        // What comes later is looked at as well: a client that has said nothing, what it says inside of a tunnel, and what it
        // asks of an HTTP proxy next.
        let later = shown.absolute || matches!(shown.protocol, Protocol::Silent | Protocol::Connect);
        let tunnel = match shown.protocol {
            Protocol::Connect => Some((shown.name, shown.target_port.unwrap_or(HTTPS_PORT))),
            Protocol::Tls | Protocol::Http | Protocol::Other | Protocol::Silent | Protocol::Garbage => tunnel,
        };
        if joined {
            gate.worker.go_on(id).await.map_err(lost)?;
        } else {
            let destination = connection.origin.destination.socket_address();
            let upstream = dial::tcp(destination, gate.uid()).await.map_err(ConnectError::Dial)?;
            gate.worker.join(id, upstream.into(), later).await.map_err(lost)?;
        }
        connection.permit = None;
        Ok(Flow(connection, Tail { tunnel }))
    }

    /// Ends it, the client being told in the way of its protocol.
    pub async fn refuse(mut self, why: &str) {
        let manner = match (self.shown.tls, self.shown.protocol) {
            (true, _) => Manner::Tls,
            (false, Protocol::Http | Protocol::Connect) => Manner::Http { body: format!("{why}\n") },
            (false, Protocol::Tls | Protocol::Other | Protocol::Silent | Protocol::Garbage) => Manner::Reset,
        };
        let refused = self.connection.gate.worker.refuse(self.connection.id, manner).await;
        self.connection.over = refused.is_ok();
    }

    /// Returns when the client has hung up, or the session is over.
    pub async fn gone(&mut self) {
        let gate = Arc::clone(&self.connection.gate);
        let hung_up = async {
            loop {
                match self.connection.event().await {
                    None | Some(FromWorker::Gone { .. } | FromWorker::Done { .. }) => return,
                    // It may still read, unless nobody has the socket open any more.
                    Some(FromWorker::HalfClosed { .. }) => {
                        let peer = self.connection.peer;
                        let closed =
                            self.connection.gate.limits.in_tables(move || listener::is_closed(peer)).await;
                        if matches!(closed, Ok(true)) {
                            return;
                        }
                    }
                    Some(FromWorker::Peeked { .. } | FromWorker::Answered { .. }) => {}
                }
            }
        };
        tokio::select! {
            () = hung_up => {}
            () = gate.ended() => {}
        }
    }
}

impl Flow {
    /// Waits until the connection is over, or the client's next bytes are to be looked at.
    pub async fn passed(self) -> Passed {
        let Self(mut connection, Tail { tunnel }) = self;
        loop {
            match connection.event().await {
                Some(FromWorker::Peeked { shown, .. }) => {
                    connection.permit = connection.gate.limits.connection();
                    if connection.permit.is_none() {
                        return Passed::Lost;
                    }
                    let held = Held { connection, shown, tunnel, joined: true };
                    return Passed::Again(Box::new(held));
                }
                Some(FromWorker::Done { sent, received, milliseconds, .. }) => {
                    return Passed::Over { sent, received, time: Duration::from_millis(milliseconds) };
                }
                Some(FromWorker::HalfClosed { .. } | FromWorker::Answered { .. }) => {}
                None | Some(FromWorker::Gone { .. }) => return Passed::Lost,
            }
        }
    }
}
