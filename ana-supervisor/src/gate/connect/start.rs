//! Setting the connect gate up, and keeping it: sockets, programs, worker, and the tasks that serve them.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, TcpListener},
    os::fd::AsFd,
    sync::{Arc, Mutex, atomic::AtomicU64},
    time::{Duration, Instant},
};

use ana_common::network::{
    NETWORK_CAPTURE_ALL, NETWORK_DNS, NETWORK_DOT_REFUSED, NETWORK_LOOPBACK_ANY, NETWORK_NO_ROUTE4,
    NETWORK_NO_ROUTE6, NETWORK_QUIC_ALLOWED, Network,
};
use tokio::{
    net::UdpSocket,
    sync::{mpsc, oneshot, watch},
};

use super::{
    Arrived, ConnectError, ConnectGate, Known, dial, dns, doing,
    grants::Grants,
    limits::Limits,
    names::Names,
    own_addresses::{OwnAddresses, Place, has_routes},
    peek::Name,
    protect::Protection,
    proxy,
    reader::AnswerReader,
    refused::Refused,
    requester::Askers,
    resolve::Resolver,
    worker::{Events, Worker},
};
use crate::{
    gate::{chain, exec::Common},
    kernel::{
        SessionCgroup,
        network::{NetworkMaps, NetworkPrograms, Refusals},
    },
    policy::{self, Action, Loopback, Policy},
    sys,
};

/// How often another port is tried when IPv4 has one free that IPv6 has not.
const PORTS: usize = 16;
/// How long the session waits for the first addresses of the protected names.
const FIRST_LOOK: Duration = Duration::from_secs(3);

/// Where the session's connections and its DNS end: one port on the loopback device.
struct Stubs {
    listeners: Vec<TcpListener>,
    dns: Vec<UdpSocket>,
    port: u16,
}

impl Stubs {
    /// Binds them; IPv6 where the host has it. Inside a tokio runtime.
    ///
    /// # Errors
    /// No port is free on both.
    async fn bind() -> Result<Self, ConnectError> {
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..PORTS {
            match Self::try_bind().await {
                Ok(stubs) => return Ok(stubs),
                Err(error) => last = error,
            }
        }
        Err(doing("bind the hold proxy")(last))
    }

    async fn try_bind() -> io::Result<Self> {
        let v4 = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        dial::fit(&v4)?;
        let port = v4.local_addr()?.port();
        let mut stubs = Self {
            listeners: vec![v4],
            dns: vec![UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).await?],
            port,
        };
        match TcpListener::bind((Ipv6Addr::LOCALHOST, port)) {
            Ok(v6) => {
                dial::fit(&v6)?;
                stubs.listeners.push(v6);
                stubs.dns.push(UdpSocket::bind((Ipv6Addr::LOCALHOST, port)).await?);
            }
            // A host without IPv6: nothing can be redirected there, so what should be is refused.
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {}
            Err(error) => return Err(error),
        }
        Ok(stubs)
    }
}

/// What the gate tells the session.
pub struct Services {
    pub gate: Arc<ConnectGate>,
    stubs: Stubs,
    events: Events,
    own: OwnAddresses,
    programs: NetworkPrograms,
}

impl ConnectGate {
    /// Puts the gate up around a session in which nothing runs yet: its programs are attached and pinned, its worker is
    /// confined, and the kernel knows what is protected.
    ///
    /// # Errors
    /// It cannot be put up: the session must not start.
    pub async fn raise(
        policy: Arc<Policy>,
        common: Arc<Common>,
        mut programs: NetworkPrograms,
        session: &SessionCgroup<'_>,
        pins: &std::path::Path,
    ) -> Result<Services, ConnectError> {
        let stubs = Stubs::bind().await?;
        let maps = programs.maps();
        let mut own = OwnAddresses::watch().map_err(doing("follow the host's addresses"))?;
        let protection = Protection::start(Arc::clone(&policy), maps.clone())?;
        tell(&maps, &mut own, &policy, stubs.port)?;
        let namespace = stubs.listeners.first().map(|listener| sys::bpf::netns_cookie(listener.as_fd()));
        let namespace = namespace.unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()));
        let namespace = namespace.map_err(doing("know the network namespace"))?;
        let (worker, events) = Worker::start().await?;
        let reader = AnswerReader::new(worker.clone());
        let gate = Arc::new(Self {
            resolver: Resolver::new(reader.clone()),
            askers: Askers::new().map_err(doing("look at processes"))?,
            known: Mutex::new(Known { names: Names::default(), protection }),
            refused: Refused::new(),
            limits: Limits::default(),
            common,
            policy,
            grants: Grants::default(),
            maps,
            worker,
            reader,
            namespace,
            numbers: AtomicU64::default(),
            waiting: Mutex::default(),
            closed: watch::Sender::new(false),
        });
        programs.attach(session, pins)?;
        Ok(Services { gate, stubs, events, own, programs })
    }
}

/// What the policy says, for the kernel.
fn configuration(policy: &Policy, port: u16) -> Network {
    let network = policy.network().cloned().unwrap_or_default();
    let [v4, v6] = has_routes();
    let flags = [
        (network.default != Action::Allow, NETWORK_CAPTURE_ALL),
        (true, NETWORK_DNS),
        (network.loopback == Loopback::Any, NETWORK_LOOPBACK_ANY),
        (network.quic, NETWORK_QUIC_ALLOWED),
        (policy.refuses_dot(), NETWORK_DOT_REFUSED),
        (!v4, NETWORK_NO_ROUTE4),
        (!v6, NETWORK_NO_ROUTE6),
    ];
    let flags = flags.into_iter().filter(|(on, _)| *on).map(|(_, flag)| flag).sum();
    Network { proxy_port: port.into(), flags }
}

/// Tells the kernel the host's addresses and how to judge, which depends on where there is a way to.
fn tell(maps: &NetworkMaps, own: &mut OwnAddresses, policy: &Policy, port: u16) -> Result<(), ConnectError> {
    for change in own.look().map_err(doing("list the host's addresses"))? {
        match change.place {
            Place::Own => maps.own_address(change.address, change.present)?,
            Place::Broadcast => maps.broadcast_address(change.address, change.present)?,
        }
    }
    Ok(maps.configure(configuration(policy, port))?)
}

impl Services {
    /// Serves the session. Why it cannot be served any longer is told once. Gives the names whose addresses could not be
    /// looked up at first; they are looked up again.
    ///
    /// # Errors
    /// The reports of the programs cannot be read.
    pub async fn serve(
        self,
        arrived: impl Fn(Arrived) + Clone + Send + Sync + 'static,
        fatal: mpsc::UnboundedSender<String>,
    ) -> Result<Vec<String>, ConnectError> {
        let Self { gate, stubs, mut events, own, mut programs } = self;
        let dying = fatal.clone();
        let hearing = Arc::clone(&gate);
        tokio::spawn(async move {
            loop {
                match events.next().await {
                    Ok(said) => hearing.hear(said),
                    Err(lost) => return drop(dying.send(chain(&lost))),
                }
            }
        });
        for listener in stubs.listeners {
            let accepting = proxy::accept(Arc::clone(&gate), listener, arrived.clone());
            keep(accepting, "the hold proxy cannot accept", &fatal);
        }
        for stub in stubs.dns {
            keep(dns::serve(Arc::clone(&gate), stub), "the session's DNS cannot be served", &fatal);
        }
        keep(follow(Arc::clone(&gate), own, stubs.port), "the host's addresses cannot be followed", &fatal);
        let listening = listen(Arc::clone(&gate), programs.take_refusals()?, programs);
        keep(listening, "the connect gate's reports cannot be read", &fatal);
        let forgetting = Arc::clone(&gate);
        tokio::spawn(async move { forgetting.forget().await });
        Ok(gate.first_look().await)
    }
}

/// Hears what the programs refuse, to the end of the session. The programs stay as long as somebody listens.
async fn listen(gate: Arc<ConnectGate>, mut refusals: Refusals, programs: NetworkPrograms) -> io::Result<()> {
    let listening = async {
        loop {
            let refusal = refusals.next().await.map_err(io::Error::other)?;
            gate.refused.take(refusal, Instant::now());
            // The ring may never be empty; other tasks want this thread, too.
            tokio::task::consume_budget().await;
        }
    };
    let heard: io::Result<()> = tokio::select! {
        heard = listening => heard,
        () = gate.ended() => Ok(()),
    };
    // Nothing of the session lives any more: this is all there is.
    while let Ok(Some(refusal)) = refusals.try_next() {
        gate.refused.take(refusal, Instant::now());
    }
    gate.refused.end();
    drop(programs);
    heard
}

/// Runs a service for as long as the session lives; its failure ends the session.
fn keep(
    service: impl Future<Output = io::Result<()>> + Send + 'static,
    what: &'static str,
    fatal: &mpsc::UnboundedSender<String>,
) {
    let fatal = fatal.clone();
    tokio::spawn(async move {
        if let Err(error) = service.await {
            drop(fatal.send(format!("{what}: {error}")));
        }
    });
}

async fn follow(gate: Arc<ConnectGate>, mut own: OwnAddresses, port: u16) -> io::Result<()> {
    loop {
        own.changed().await?;
        tell(&gate.maps, &mut own, &gate.policy, port).map_err(io::Error::other)?;
    }
}

impl ConnectGate {
    /// Looks all protected names up for the first time, and goes on with it in the background. Gives those without an
    /// address.
    async fn first_look(self: &Arc<Self>) -> Vec<String> {
        let rules = self.policy.connect_rules().iter();
        let mut names: Vec<Name> = rules
            .flat_map(policy::ConnectRule::exact_hosts)
            .filter_map(|n| Name::parse(n.as_bytes()))
            .collect();
        names.sort_unstable();
        names.dedup();
        let mut first = Vec::new();
        for name in names {
            let (teller, told) = oneshot::channel();
            let gate = Arc::clone(self);
            first.push((name.as_str().to_owned(), told));
            tokio::spawn(async move { gate.follow(name, teller).await });
        }
        let until = tokio::time::Instant::now() + FIRST_LOOK;
        let mut unknown = Vec::new();
        for (name, told) in first {
            if !matches!(tokio::time::timeout_at(until, told).await, Ok(Ok(true))) {
                unknown.push(name);
            }
        }
        unknown
    }
}
