//! The connect gate: a connection to a protected destination stops with its first bytes in hand.
//!
//! 1. eBPF programs on connect(2) rewrite what may be protected to the hold proxy, which the supervisor serves (`proxy.rs`),
//!    and note where it wanted to go and who asked; the client sees an established connection and never blocks;
//! 2. a worker without any right looks at the first bytes ([`worker`], [`peek`]): the name that the connection shows;
//! 3. with that, and with the names that its address is known by ([`names`], [`dns`], `resolve.rs`), the connection is judged
//!    by others ([`Held`]), and goes on with a [`Ticket`](super::Ticket): root dials in the user's name, the worker moves the bytes.

pub mod dial;
pub mod dns;
pub mod grants;
mod judged;
mod limits;
mod listener;
pub mod names;
mod own_addresses;
pub mod peek;
mod protect;
mod proxy;
mod reader;
mod refused;
pub mod requester;
mod resolve;
mod start;
pub mod worker;

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use ana_common::network::{Origin, canonical};
use tokio::sync::{mpsc, watch};

use self::{
    grants::Grants,
    limits::Limits,
    names::{Called, Full, Names, Protected, Source},
    peek::{Answer, Name},
    protect::Protection,
    reader::AnswerReader,
    refused::Refused,
    requester::Askers,
    resolve::Resolver,
    worker::{FromWorker, Worker},
};
pub use self::{
    judged::{Asked, Target},
    listener::Listener,
    proxy::{Arrived, Flow, Held, Passed},
    refused::{INTERVAL as UNWRITTEN_INTERVAL, ToRecord, Unwritten},
    start::Services,
};
use super::{chain, exec::Common};
use crate::{
    kernel::{
        KernelError,
        network::{NetworkMaps, Refusal, RefusalReason},
    },
    policy::{Action, By, Policy},
};

/// IPPROTO_UDP and IPPROTO_TCP.
const UDP: u32 = 17;
const TCP: u32 = 6;

/// Why connections cannot be stopped in an orderly way. Every one of these is a denial.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("{doing}")]
    Io { doing: &'static str, source: io::Error },
    #[error("talk to the connect gate's programs")]
    Kernel(#[from] KernelError),
    #[error("start the proxy's worker")]
    Worker(#[from] worker::WorkerError),
    #[error("the destination does not answer")]
    Dial(#[source] io::Error),
    #[error("the client has hung up")]
    Gone,
    #[error("there is no nonce, or no clock")]
    System(#[source] io::Error),
    #[error("the session is ending")]
    Ended,
}

fn doing(doing: &'static str) -> impl FnOnce(io::Error) -> ConnectError {
    move |source| ConnectError::Io { doing, source }
}

/// Why an answer must not reach the agent.
#[derive(Debug, thiserror::Error)]
enum Unlearned {
    #[error(transparent)]
    Full(#[from] Full),
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// The gate of one session.
pub struct ConnectGate {
    pub common: Arc<Common>,
    pub policy: Arc<Policy>,
    pub grants: Grants,
    pub askers: Askers,
    maps: NetworkMaps,
    worker: Worker,
    reader: AnswerReader,
    resolver: Resolver,
    known: Mutex<Known>,
    refused: Refused,
    limits: Limits,
    /// The network namespace of the proxy, as eBPF knows it.
    namespace: u64,
    numbers: AtomicU64,
    /// Whoever waits for what the worker says of a connection.
    waiting: Mutex<HashMap<u64, mpsc::UnboundedSender<FromWorker>>>,
    /// True once the session is over.
    closed: watch::Sender<bool>,
}

/// Names, and what the kernel was told because of them.
struct Known {
    names: Names,
    protection: Protection,
}

impl ConnectGate {
    /// The session's user.
    fn uid(&self) -> u32 {
        self.common.user.uid
    }

    fn reader(&self) -> &AnswerReader {
        &self.reader
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, mpsc::UnboundedSender<FromWorker>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// The name server that the owner of this UDP socket asked, if it may be asked.
    fn dns_server(&self, client: SocketAddr) -> Option<SocketAddr> {
        let origin = self.maps.udp_server(client, self.namespace).ok()??;
        let server = origin.destination.socket_address();
        match self.why_not_ask(server) {
            None => Some(server),
            Some(by) => {
                let reason = match by {
                    By::Default => RefusalReason::UdpDefault,
                    By::Shown | By::Address | By::Cidr | By::Local => RefusalReason::UdpProtected,
                };
                self.refuse(&origin, UDP, reason);
                None
            }
        }
    }

    /// What has arrived here goes no further. It is written down as what the programs refuse is.
    fn refuse(&self, origin: &Origin, protocol: u32, reason: RefusalReason) {
        let Origin { tgid, started, exe, boot_ns, .. } = *origin;
        let destination = Some(origin.destination.socket_address());
        let refusal = Refusal { destination, protocol, reason, tgid, started, exe, boot_ns };
        self.refused.take(refusal, Instant::now());
    }

    /// Whether DNS may be spoken to this server without asking: no rule is about it, and where only what is listed may be
    /// reached it is one of the host's own.
    fn may_ask(&self, server: SocketAddr) -> bool {
        self.why_not_ask(server).is_none()
    }

    fn why_not_ask(&self, server: SocketAddr) -> Option<By> {
        let server = SocketAddr::new(canonical(server.ip()), server.port());
        let asked = Asked::bare(server, self.protected_names(server.ip()));
        let verdict = asked.judge(&self.policy);
        let may = verdict.verdict.action == Action::Allow
            || verdict.by == By::Default && self.is_hosts_server(server);
        (!may).then_some(verdict.by)
    }

    fn is_hosts_server(&self, server: SocketAddr) -> bool {
        self.resolver.servers().contains(&server)
    }

    /// The name and the rules that protect it, if there are any.
    fn protected(&self, name: &str) -> Option<Protected> {
        let rules = self.policy.connect_rules().iter().enumerate();
        let matching = rules.filter(|(_, rule)| rule.hosts().any(|host| host.matches(name)));
        let rules: Arc<[usize]> = matching.map(|(place, _)| place).collect();
        (!rules.is_empty()).then(|| Protected { name: name.into(), rules })
    }

    /// The protected names of an address.
    pub fn protected_names(&self, address: IpAddr) -> Called {
        self.known().names.protected_names(address, Instant::now())
    }

    /// Takes in what a DNS answer says: what leads to a protected name, or from one, is protected before anybody can connect
    /// to it. Whoever answered may have been chosen by the agent, and was asked by it: nothing is confirmed by that. May take
    /// a while if the answer is large.
    fn learn(&self, answer: &Answer) -> Result<(), Unlearned> {
        let all: Vec<&Name> = answer.question.iter().chain(&answer.names).collect();
        let noted: Vec<Arc<str>> =
            Names::noted(all).into_iter().map(|name| Arc::from(name.as_str())).collect();
        let protected = names::counting(
            answer.names.iter().chain(&answer.targets).filter_map(|name| self.protected(name)),
        );
        let ttl = Duration::from_secs(answer.ttl.into());
        for address in answer.addresses.iter().chain(&answer.hinted).copied().map(canonical) {
            self.known().names.note(address, &noted, false);
            self.protect(address, &protected, ttl, Source::Agents)?;
        }
        Ok(())
    }

    fn protect(
        &self,
        address: IpAddr,
        names: &[Protected],
        ttl: Duration,
        source: Source,
    ) -> Result<(), Unlearned> {
        if names.is_empty() {
            return Ok(());
        }
        let mut known = self.known();
        let Known { names: all, protection } = &mut *known;
        let rules = all.protect(address, names, ttl, source, Instant::now())?;
        Ok(protection.protect(address, rules)?)
    }

    /// Whether the name that a connection shows is one of its address.
    async fn is_its_own(&self, name: &Name, address: IpAddr) -> bool {
        if self.known().names.is_confirmed(address, name) {
            return true;
        }
        // With too many at a time it is not known.
        let Some(_permit) = self.limits.look_up().await else { return false };
        let found = self.resolver.addresses(name).await;
        let mut known = self.known();
        // Hosts with many addresses tell some of them at a time: those that were told once count on.
        for address in found.addresses.iter().copied().map(canonical) {
            known.names.note(address, &[Arc::from(name.as_str())], true);
        }
        known.names.is_confirmed(address, name)
    }

    /// Follows the addresses of one protected name, for ever.
    async fn follow(&self, name: Name, first: tokio::sync::oneshot::Sender<bool>) {
        let (mut first, protected) = (Some(first), self.protected(&name));
        loop {
            let found = self.resolver.addresses(&name).await;
            for address in found.addresses.iter().copied().map(canonical) {
                let ttl = found.until.saturating_duration_since(Instant::now());
                if let Err(error) = self.protect(address, protected.as_slice(), ttl, Source::Own) {
                    let error = chain(&error);
                    tracing::error!(error, "an address is not protected");
                    self.refused.unprotected(|| format!("{address} of {}: {error}", name.as_str()));
                }
            }
            if let Some(first) = first.take() {
                // Nobody waits for it any more if it took too long.
                first.send(!found.addresses.is_empty()).ok();
            }
            tokio::time::sleep_until(found.until.into()).await;
        }
    }

    /// Forgets what does not count any more, from time to time.
    async fn forget(&self) {
        const OFTEN: Duration = Duration::from_secs(60);
        loop {
            tokio::time::sleep(OFTEN).await;
            let mut known = self.known();
            for address in known.names.expire(Instant::now()) {
                if let Err(error) = known.protection.forget(address) {
                    tracing::warn!(%error, %address, "an address stays protected");
                }
            }
        }
    }

    /// Ends every connection that still waits.
    pub fn close(&self) {
        self.closed.send_replace(true);
    }

    /// Whether the session is over.
    pub fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Returns once the session is over.
    pub async fn ended(&self) {
        let mut closed = self.closed.subscribe();
        // The sender is ours.
        drop(closed.wait_for(|closed| *closed).await);
    }
}
