//! The session as its owner sees it: the conversation with `ana-run`, from the command to its exit status.

use std::{
    collections::{HashMap, HashSet},
    os::fd::AsFd,
    sync::Arc,
    time::Duration,
};

use nix::unistd::Pid;
use tokio::{net::UnixStream, sync::watch, task::JoinSet};

use super::{
    OWNER_LIMIT, Options, SupervisorError,
    connections::Connections,
    door::Door,
    ending::End,
    io as doing,
    keepers::{start_leader, tell_leader},
    setup::{self, Loading, Prepared},
};
use crate::{
    api::{
        frame::{self, Assembly, REQUEST_MAX, SMALL_REQUEST_MAX},
        peer,
        server::{self, Context},
        wire::{Reply, Request, SessionInfo},
    },
    approval::Waiting,
    gate::{
        exec::replaced::News,
        process::{Baseline, Namespaces},
    },
    kernel::Report,
    launch::spec::{FromLeader, Preparation, Spec, ToLeader},
    operation::Operation,
    pipeline::chain,
    sys,
};

/// How often the guard's counters are looked at.
const HEALTH_INTERVAL: Duration = Duration::from_secs(1);

/// Clients that may wait for the session to start.
const EARLY_MAX: usize = 16;

/// The owner's connection.
pub(super) struct Owner {
    stream: UnixStream,
    peer: sys::socket::Peer,
    assembly: Assembly,
}

impl Owner {
    pub(super) async fn send(&self, reply: &Reply) -> Result<(), SupervisorError> {
        frame::send(&self.stream, reply, &[]).await.map_err(doing("talk to ana-run"))
    }
}

/// Serves the session behind `door` to its end.
///
/// # Errors
/// The session could not be started; `ana-run` has been told.
pub(super) async fn session(
    options: Options,
    door: Door,
    kernel: Loading,
    oom_score: Option<String>,
) -> Result<(), SupervisorError> {
    let accepted = tokio::time::timeout(OWNER_LIMIT, accept(&options, &door)).await;
    let (owner, spec, early) = match accepted {
        Ok(accepted) => accepted?,
        Err(_elapsed) => {
            std::fs::remove_file(&door.socket).ok();
            return Err(SupervisorError::Protocol("ana-run"));
        }
    };
    let result = Box::pin(run(&options, door, owner, spec, early, kernel, oom_score)).await;
    if let Err(error) = &result {
        tracing::error!(error = error as &dyn std::error::Error, "the session failed");
    }
    result
}

/// Waits for exactly the `ana-run` that started us. Whoever else connects meanwhile is answered once the session runs.
async fn accept(
    options: &Options,
    door: &Door,
) -> Result<(Owner, Box<Spec>, Vec<UnixStream>), SupervisorError> {
    let mut early = Vec::new();
    loop {
        let (stream, _) = door.listener.accept().await.map_err(doing("accept ana-run"))?;
        let peer = sys::socket::peer(stream.as_fd()).map_err(doing("look at who connects"))?;
        let started = crate::gate::process::start_time(peer.pid).unwrap_or_default();
        let is_owner = (peer.pid.as_raw(), started) == options.owner
            && peer::may_answer(&peer, &door.hierarchy, door.account.identity.uid).is_ok();
        if !is_owner {
            // More than that are closed: they can come again.
            let may = peer::may_answer(&peer, &door.hierarchy, door.account.identity.uid).is_ok();
            if may && early.len() < EARLY_MAX {
                early.push(stream);
            }
            continue;
        }
        let mut owner = Owner { stream, peer, assembly: Assembly::new(REQUEST_MAX) };
        let first =
            frame::receive(&owner.stream, &mut owner.assembly).await.map_err(doing("hear from ana-run"))?;
        let Some(Request::Launch(mut spec)) = first else { return Err(SupervisorError::Protocol("ana-run")) };
        owner.assembly.limit(SMALL_REQUEST_MAX);
        if owner.peer.uid == 0 {
            door.account.adopt(&mut spec);
        }
        return Ok((owner, spec, early));
    }
}

async fn run(
    options: &Options,
    door: Door,
    owner: Owner,
    spec: Box<Spec>,
    early: Vec<UnixStream>,
    kernel: Loading,
    oom_score: Option<String>,
) -> Result<(), SupervisorError> {
    let prepared = match setup::prepare(options, &door, &spec, kernel) {
        Ok(prepared) => prepared,
        Err(error) => {
            std::fs::remove_file(&door.socket).ok();
            let why =
                if let SupervisorError::Policy(rendered) = &error { rendered.clone() } else { chain(&error) };
            owner.send(&Reply::Refused { why }).await?;
            return Err(error);
        }
    };
    let mut prepared = prepared;
    let raised = match prepared.network.take() {
        Some(programs) => Connections::raise(&door, &prepared, programs).await.map(Some),
        None => Ok(None),
    };
    let connections = match raised {
        Ok(connections) => connections,
        Err(error) => {
            prepared.lower(&door);
            owner.send(&Reply::Refused { why: chain(&error) }).await?;
            return Err(error);
        }
    };
    for notice in super::notices::of(&door, &prepared, connections.as_ref()) {
        owner.send(&Reply::Notice(notice)).await?;
    }
    let mut running = Running::start(door, owner, spec, prepared, connections, oom_score).await?;
    let end = running.control(early).await;
    running.finish(end).await
}

pub(super) struct Running {
    pub(super) door: Door,
    pub(super) owner: Owner,
    pub(super) prepared: Prepared,
    pub(super) connections: Option<Connections>,
    pub(super) leader: UnixStream,
    pub(super) leader_process: std::process::Child,
    pub(super) leader_assembly: Assembly,
    pub(super) info: watch::Sender<SessionInfo>,
    pub(super) interactive: bool,
    pub(super) baseline: Baseline,
    /// Operations on their way, and records being written.
    pub(super) tasks: JoinSet<()>,
    /// The questions that `ana-run` has been shown, and how many more like them it was told of.
    pub(super) shown: HashMap<String, usize>,
}

impl Running {
    async fn start(
        door: Door,
        owner: Owner,
        spec: Box<Spec>,
        prepared: Prepared,
        connections: Option<Connections>,
        oom_score: Option<String>,
    ) -> Result<Self, SupervisorError> {
        let (leader, leader_process) = start_leader(oom_score.as_deref())?;
        let leader_pid = Pid::from_raw(leader_process.id().cast_signed());
        let info = SessionInfo {
            session: door.session.clone(),
            user: door.account.name(),
            uid: door.account.identity.uid,
            command: crate::operation::render::shell_words(&spec.argv),
            started_at: format!("{:.3}", jiff::Timestamp::now()),
            pid: None,
            pending: 0,
            seal: if prepared.seal.complete() { "landlock" } else { "degraded" }.to_owned(),
        };
        let interactive = spec.interactive();
        let environment = spec.environment.iter().map(|e| e.0.clone()).collect();
        let mut running = Self {
            door,
            owner,
            prepared,
            connections,
            leader,
            leader_process,
            leader_assembly: Assembly::new(REQUEST_MAX),
            info: watch::channel(info).0,
            interactive,
            baseline: Baseline { agent: leader_pid, namespaces: Namespaces::default(), environment },
            tasks: JoinSet::new(),
            shown: HashMap::new(),
        };
        running.prepare_leader(&spec).await?;
        running.baseline.namespaces = Namespaces::of(leader_pid);
        setup::record_start(&running.prepared, running.connections.as_ref(), &running.door, &spec)?;
        tell_leader(&running.leader, &ToLeader::Go, &[]).await?;
        Ok(running)
    }

    /// Has the session leader set up its terminal and pipes, and hands them to `ana-run`.
    async fn prepare_leader(&mut self, spec: &Spec) -> Result<(), SupervisorError> {
        let preparation = Preparation {
            spec: spec.clone(),
            identity: self.door.account.identity.clone(),
            switches: self.prepared.switches,
            landlock_abi: self.prepared.seal.landlock_abi,
            cgroup: self.prepared.cgroup.path().to_owned(),
        };
        let work = self.prepared.cgroup.open_work()?;
        let mut fds = vec![work.as_fd()];
        if let crate::launch::pids::TaskLimit::V1 { procs, .. } = &self.prepared.limit {
            fds.push(procs.as_fd());
        }
        tell_leader(&self.leader, &ToLeader::Prepare(Box::new(preparation)), &fds).await?;
        let ready = frame::receive(&self.leader, &mut self.leader_assembly)
            .await
            .map_err(doing("hear from the session leader"))?;
        let (master, stdin, stdout, stderr) = match ready {
            Some(FromLeader::Ready { master, stdin, stdout, stderr }) => (master, stdin, stdout, stderr),
            Some(FromLeader::Failed(failure)) => {
                self.owner.send(&Reply::Failed(failure.clone())).await?;
                return Err(SupervisorError::Launch(failure));
            }
            _ => return Err(SupervisorError::Protocol("the session leader")),
        };
        let streams = std::mem::take(&mut self.leader_assembly.fds);
        let fds: Vec<_> = streams.iter().map(AsFd::as_fd).collect();
        let reply = Reply::Streams { session: self.door.session.clone(), master, stdin, stdout, stderr };
        frame::send(&self.owner.stream, &reply, &fds).await.map_err(doing("talk to ana-run"))
    }

    /// One loop, one closed list of causes.
    async fn control(&mut self, early: Vec<UnixStream>) -> End {
        let context = Arc::new(Context {
            pipeline: Arc::clone(&self.prepared.pipeline),
            hierarchy: self.door.hierarchy.clone(),
            cgroup: Arc::clone(&self.prepared.cgroup),
            info: self.info.subscribe(),
            kill: self.prepared.fatal_sender.clone(),
        });
        let listener = match self.door.listener.as_fd().try_clone_to_owned() {
            Ok(fd) => std::os::unix::net::UnixListener::from(fd),
            Err(error) => return End::Killed(format!("no socket: {error}")),
        };
        match tokio::net::UnixListener::from_std(listener) {
            Ok(listener) => drop(tokio::spawn(server::serve(listener, early, context))),
            Err(error) => return End::Killed(format!("no socket: {error}")),
        }
        let signals = tokio::spawn(terminated());
        tokio::pin!(signals);
        let mut questions = self.prepared.pipeline.desk.changed();
        let mut health = tokio::time::interval(HEALTH_INTERVAL);
        let warden = warden_ended(&self.prepared);
        tokio::pin!(warden);
        loop {
            tokio::select! {
                arrival = self.prepared.arrivals.recv() => match arrival {
                    Some(blocked) => drop(self.tasks.spawn(Arc::clone(&self.prepared.pipeline).run(blocked))),
                    None => return End::Killed("the kernel's events ended".to_owned()),
                },
                Some(report) = self.prepared.reports.recv() => self.write_down(report),
                Some(news) = self.prepared.watched.news.recv() => self.tell(news),
                Some(_) = self.tasks.join_next() => {}
                said = frame::receive(&self.leader, &mut self.leader_assembly) => match said {
                    Ok(Some(word)) => if let Some(end) = self.hear_leader(word).await { return end },
                    Ok(None) | Err(_) => return End::Killed("the session leader has ended".to_owned()),
                },
                said = frame::receive(&self.owner.stream, &mut self.owner.assembly) => match said {
                    Ok(Some(request)) => if self.hear_owner(request).await.is_err() { return End::OwnerGone },
                    Ok(None) | Err(_) => return End::OwnerGone,
                },
                Ok(()) = questions.changed() => {
                    if self.show_questions().await.is_err() { return End::OwnerGone }
                }
                Some(why) = self.prepared.fatal.recv() => return End::Killed(why),
                _ = health.tick() => if let Some(why) = self.unhealthy() { return End::Killed(why) },
                () = &mut warden => return End::Killed("the warden has ended".to_owned()),
                _ = &mut signals => return End::Killed("the supervisor was told to end".to_owned()),
            }
        }
    }

    pub(super) fn write_down(&mut self, report: Report) {
        let pipeline = Arc::clone(&self.prepared.pipeline);
        self.tasks.spawn(async move { pipeline.report(report).await });
    }

    pub(super) fn tell(&mut self, news: News) {
        let pipeline = Arc::clone(&self.prepared.pipeline);
        self.tasks.spawn(async move { pipeline.tell(news).await });
    }

    async fn hear_leader(&mut self, word: FromLeader) -> Option<End> {
        match word {
            FromLeader::Started { pid } => {
                let baseline = Baseline {
                    agent: Pid::from_raw(pid),
                    namespaces: self.baseline.namespaces.clone(),
                    environment: std::mem::take(&mut self.baseline.environment),
                };
                self.prepared.baseline.send(Some(Arc::new(baseline))).ok();
                self.info.send_modify(|info| info.pid = Some(pid));
                None
            }
            FromLeader::Stopped => {
                // If ana-run is gone, its connection says so, too.
                self.owner.send(&Reply::Stopped).await.ok();
                None
            }
            FromLeader::Exited { status } => Some(End::Agent(status)),
            FromLeader::Failed(failure) => Some(End::NotStarted(failure)),
            FromLeader::Ready { .. } => {
                Some(End::Killed("the session leader said something unexpected".to_owned()))
            }
        }
    }

    async fn hear_owner(&mut self, request: Request) -> Result<(), SupervisorError> {
        let desk = Arc::clone(&self.prepared.pipeline.desk);
        let now = sys::boottime::now().map_err(doing("read the clock"))?;
        self.owner.assembly.fds.clear();
        match request {
            Request::Signal(number) => tell_leader(&self.leader, &ToLeader::Signal(number), &[]).await,
            Request::Continue => tell_leader(&self.leader, &ToLeader::Continue, &[]).await,
            Request::Sign { id, assertion } => {
                let reply = match desk.sign(&id, &assertion, now) {
                    Ok(()) => Reply::Done,
                    Err(error) => Reply::Refused { why: chain(&error) },
                };
                self.owner.send(&reply).await
            }
            Request::Deny { id, reason } => {
                let reply = match desk.deny(&id, &server::user_name(self.owner.peer.uid), &reason, now) {
                    Ok(()) => Reply::Done,
                    Err(error) => Reply::Refused { why: chain(&error) },
                };
                self.owner.send(&reply).await
            }
            Request::Launch(_)
            | Request::Pending
            | Request::Watch
            | Request::Show { .. }
            | Request::Describe
            | Request::Kill => Err(SupervisorError::Protocol("ana-run")),
        }
    }

    /// Tells `ana-run` of new questions, of how many operations wait behind them, and of those that are over.
    async fn show_questions(&mut self) -> Result<(), SupervisorError> {
        let pending = self.prepared.pipeline.desk.pending();
        let waits: HashSet<&str> = pending.iter().map(|waiting| waiting.operation.id.as_str()).collect();
        let over: Vec<String> =
            self.shown.keys().filter(|id| !waits.contains(id.as_str())).cloned().collect();
        for id in over {
            self.shown.remove(&id);
            self.owner.send(&Reply::Withdrawn { id }).await?;
        }
        for waiting in pending {
            let Waiting { operation, more } = waiting;
            match self.shown.insert(operation.id.clone(), more) {
                Some(told) if told == more => continue,
                Some(_) => {}
                None => self.show_question(&operation, more).await?,
            }
            if self.interactive {
                self.owner.send(&Reply::Alike { id: operation.id.clone(), more }).await?;
            }
        }
        Ok(())
    }

    async fn show_question(&self, operation: &Operation, more: usize) -> Result<(), SupervisorError> {
        if !self.interactive {
            let operation = Box::new(operation.clone());
            return self.owner.send(&Reply::Pending { operation, more }).await;
        }
        let now = sys::boottime::now().map_err(doing("read the clock"))?;
        match self.prepared.pipeline.desk.show(&operation.id, now) {
            Ok(options) => {
                server::question(&self.owner.stream, options).await.map_err(doing("talk to ana-run"))
            }
            Err(error) => {
                let text = format!("{}: {}", operation.summary(), chain(&error));
                self.owner.send(&Reply::Notice(text)).await
            }
        }
    }

    /// An exec that the guard did not see is one that nobody stopped.
    pub(super) fn unhealthy(&self) -> Option<String> {
        let connections = self.connections.as_ref().map(|connections| connections.maps.health());
        match connections {
            // What was refused and could not be told is refused all the same.
            Some(Ok(health)) if health.recursion_misses == 0 && health.misses == 0 => {}
            Some(Ok(health)) => return Some(format!("the connect gate missed something: {health:?}")),
            Some(Err(error)) => return Some(format!("the connect gate's counters cannot be read: {error}")),
            None => {}
        }
        match self.prepared.kernel.maps().health() {
            Ok(health) if health.is_clean() => None,
            Ok(health) => Some(format!("the guard missed something: {health:?}")),
            Err(error) => Some(format!("the guard's counters cannot be read: {error}")),
        }
    }
}

/// Returns when the warden has ended, which it must not before us.
fn warden_ended(prepared: &Prepared) -> impl Future<Output = ()> + use<> {
    let pidfd = sys::process::pidfd_open(Pid::from_raw(prepared.warden.process.id().cast_signed()));
    async move {
        if let Ok(pidfd) = pidfd {
            sys::readiness::ended(pidfd).await.ok();
        }
    }
}

/// SIGTERM, SIGINT or SIGHUP: end in good order.
async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int), Ok(mut hup)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()))
    else {
        return std::future::pending().await;
    };
    tokio::select! { _ = term.recv() => {}, _ = int.recv() => {}, _ = hup.recv() => {} }
}
