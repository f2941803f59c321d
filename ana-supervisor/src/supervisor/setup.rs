//! Building a session, fence by fence, before anything of the agent's runs.

use std::{
    collections::HashSet,
    fs::{self, File},
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::fcntl::Flock;
use tokio::sync::{mpsc, watch};

use super::{
    Options, SupervisorError, answering,
    connections::Connections,
    door::Door,
    io as doing,
    keepers::{Warden, start_warden},
    leftovers,
    watching::{self, Watched},
};
use crate::{
    approval::{
        Desk,
        counters::Stored,
        passkeys::{Passkeys, PasskeysError},
    },
    evidence::{Entry, Event, Store, Writer, notes, writer::Budget},
    gate::{
        exec::{
            Common, ExecGate, JudgedImages, OnTheirWay,
            admitted::Admitted,
            answerer::{Answerer, Blocked},
            look::Lookers,
            place::Places,
            privilege,
            protected::ProtectedFiles,
            quick::{Ledger, Quick},
            replaced, reports,
        },
        files::Hashes,
        process::Baseline,
    },
    kernel::{
        self, Kernel, KernelError, Report,
        features::{self, overlay::Below},
        network::NetworkPrograms,
    },
    launch::{
        cgroup::SessionCgroup,
        pids::TaskLimit,
        pulse::Pulse,
        remains::Remains,
        seal::{self, Seal},
        spec::{Spec, Switches},
        warden,
    },
    pipeline::{Pipeline, Session, unwritten},
    policy::Policy,
    state::State,
    sys::{self, fanotify::Group},
};

/// A session whose every fence is up; the agent has not been started.
pub(super) struct Prepared {
    pub pipeline: Arc<Pipeline>,
    /// What was let through and is being written down.
    pub ledger: Ledger,
    pub cgroup: Arc<SessionCgroup>,
    pub seal: Seal,
    pub switches: Switches,
    pub kernel: Kernel,
    /// Those of the connect gate, if there is to be one.
    pub network: Option<NetworkPrograms>,
    /// Held, not read: the session is live as long as this is open.
    pub _lock: Flock<File>,
    pub limit: TaskLimit,
    pub warden: Warden,
    pub baseline: watch::Sender<Option<Arc<Baseline>>>,
    /// Events that wait for a worker.
    pub arrivals: mpsc::UnboundedReceiver<Blocked>,
    /// Kills and exits that the guard saw.
    pub reports: mpsc::UnboundedReceiver<Report>,
    /// Why the session has to end.
    pub fatal: mpsc::UnboundedReceiver<String>,
    pub fatal_sender: mpsc::UnboundedSender<String>,
    pub watched: Watched,
}

/// The guard, being loaded.
pub(super) type Loading = std::thread::JoinHandle<Result<Kernel, kernel::KernelError>>;

/// Loads the policy for this user; its errors come rendered.
pub(super) fn load_policy(
    state: &State,
    path: Option<&Path>,
    home: &Path,
) -> Result<Policy, SupervisorError> {
    let sources = match path {
        Some(path) => state.policy_file(path)?,
        None => state.policy_sources()?,
    };
    Policy::parse(&sources, home).map_err(|errors| SupervisorError::Policy(errors.render(false)))
}

/// What is decided before any fence goes up.
struct Plan {
    policy: Arc<Policy>,
    switches: Switches,
    seal: Seal,
    store: Arc<Store>,
    /// Groups that give no power.
    harmless_groups: HashSet<u32>,
    /// The connect gate's programs, which take a while to load.
    network: Option<std::thread::JoinHandle<Result<NetworkPrograms, KernelError>>>,
    /// The search for programs that give privilege, which takes a while.
    privileged: std::thread::JoinHandle<Vec<PathBuf>>,
}

/// The agent's PATH.
fn path_of(spec: &Spec) -> Vec<u8> {
    spec.variable("PATH").unwrap_or_default().into_encoded_bytes()
}

fn plan(options: &Options, door: &Door, spec: &Spec) -> Result<Plan, SupervisorError> {
    let (path, user) = (path_of(spec), door.account.identity.clone());
    let harmless_groups = privilege::harmless_groups();
    let harmless = harmless_groups.clone();
    let privileged = std::thread::spawn(move || privilege::find(&path, &user, &harmless));
    let policy = load_policy(&door.state, options.policy.as_deref(), &door.account.home(spec))?;
    let policy = Arc::new(policy);
    let network = policy.network().map(|_settings| std::thread::spawn(NetworkPrograms::load));
    let switches = Switches {
        namespaces: policy.session().namespaces,
        debuggers: policy.session().debuggers,
        io_uring: policy.session().io_uring,
        i386: policy.session().i386,
    };
    if switches.namespaces {
        match Below::try_one() {
            Ok(Below::Told) => {}
            Ok(Below::Hidden) => return Err(SupervisorError::Overlays),
            Err(source) => {
                return Err(doing("try what an overlay hides (the policy says namespaces = true)")(source));
            }
        }
    }
    let seal = Seal::expected(seal::landlock_abi(), switches.namespaces);
    if policy.defaults().require_seal && !seal.complete() {
        let found = format!("Landlock ABI {}, namespaces = {}", seal.landlock_abi, switches.namespaces);
        return Err(SupervisorError::NoSeal { found });
    }
    let store = Arc::new(Store::open(&door.state)?);
    let live = |session: &str| session == door.session || leftovers::is_live(session);
    store.end_abandoned(&live, warden::Cause::Died.text())?;
    Ok(Plan { policy, switches, seal, store, harmless_groups, network, privileged })
}

/// What stands in the kernel for one session, and has to be taken down again.
struct Fences {
    cgroup: Arc<SessionCgroup>,
    limit: TaskLimit,
    remains: Remains,
    /// Once they exist.
    warden: Option<Warden>,
    lock: Option<Flock<File>>,
}

/// What is there once somebody answers.
struct Answering {
    common: Arc<Common>,
    network: Option<NetworkPrograms>,
    arrivals: mpsc::UnboundedReceiver<Blocked>,
    baseline: watch::Sender<Option<Arc<Baseline>>>,
    ledger: Ledger,
    watched: Watched,
}

impl Fences {
    /// Guard, lock, warden, answering thread, marks: in this order.
    fn raise(
        &mut self,
        options: &Options,
        door: &Door,
        spec: &Spec,
        plan: Plan,
        kernel: &mut Kernel,
        fatal: &mpsc::UnboundedSender<String>,
    ) -> Result<Answering, SupervisorError> {
        let Plan { policy, store, harmless_groups, network, privileged, .. } = plan;
        let (folder, id, level) = (self.cgroup.open()?, self.cgroup.id()?, self.cgroup.level());
        let session = kernel::SessionCgroup { fd: folder.as_fd(), id, level };
        let lock = kernel.attach(&session, &devices(&policy)?, &self.remains.pins)?;
        let group = Arc::new(Group::new().map_err(doing("make a fanotify group"))?);
        let baseline = watch::Sender::new(None);
        let common = Arc::new(Common {
            maps: kernel.maps(),
            protected: Arc::new(ProtectedFiles::new(&policy, &path_of(spec))),
            admitted: Admitted::default(),
            judged: JudgedImages::default(),
            on_their_way: OnTheirWay::default(),
            hashes: Hashes::default(),
            user: door.account.identity.clone(),
            harmless_groups,
            baseline: baseline.subscribe(),
        });
        for group in &common.harmless_groups {
            common.maps.harmless_group(*group)?;
        }
        let pulse = Pulse::new().map_err(doing("make the answering thread's pulse"))?;
        self.warden = Some(start_warden(options, door, [group.as_fd(), lock.as_fd(), pulse.beats()])?);
        self.lock = Some(lock);
        let (sender, arrivals) = mpsc::unbounded_channel();
        let ledger = Ledger::default();
        let quick = Quick {
            common: Arc::clone(&common),
            policy: Arc::clone(&policy),
            passed: ledger.clone(),
            notes: store.notes(&door.session)?,
        };
        let answerer = Answerer {
            group: Arc::clone(&group),
            places: Places::new(self.cgroup.prefix().to_owned()),
            common: Arc::clone(&common),
            arrivals: sender,
            quick,
            lookers: Lookers::start().map_err(doing("start the threads that look"))?,
            pulse,
        };
        answering::start(answerer, fatal)?;
        let parts =
            replaced::Parts { common: Arc::clone(&common), group, prefix: self.cgroup.prefix().to_owned() };
        let panicked = |_panicked| SupervisorError::Protocol("the search for programs that give privilege");
        let privileged = privileged.join().map_err(panicked)?;
        let watched = watching::start(&policy, &privileged, parts, fatal.clone())?;
        // What is allowed can be let through once it is known what it is.
        let known = Arc::clone(&common);
        std::thread::spawn(move || known.protected.hash(&policy, &known.hashes));
        let network = network.map(loaded).transpose()?;
        Ok(Answering { common, network, arrivals, baseline, ledger, watched })
    }

    /// Takes everything down, after an error: nothing of the agent's has run.
    fn lower(&mut self, door: &Door) {
        if let Some(mut warden) = self.warden.take() {
            warden.relieve();
        }
        self.remains.remove();
        // Nothing was let through.
        notes::remove(door.state.run_dir(), &door.session);
    }
}

/// The connect gate's programs, once they are loaded.
fn loaded(
    loading: std::thread::JoinHandle<Result<NetworkPrograms, KernelError>>,
) -> Result<NetworkPrograms, SupervisorError> {
    let panicked = |_panicked| SupervisorError::Protocol("the loader of the connect gate");
    Ok(loading.join().map_err(panicked)??)
}

impl Prepared {
    /// Takes everything down again: nothing of the agent's has run.
    pub(super) fn lower(&mut self, door: &Door) {
        self.warden.relieve();
        door.remains().remove();
        notes::remove(door.state.run_dir(), &door.session);
    }
}

/// Puts up every fence. On an error nothing of the agent has run, and what was made is taken down.
pub(super) fn prepare(
    options: &Options,
    door: &Door,
    spec: &Spec,
    kernel: Loading,
) -> Result<Prepared, SupervisorError> {
    let plan = plan(options, door, spec)?;
    let kernel =
        kernel.join().map_err(|_panicked| SupervisorError::Protocol("the loader of the guard"))??;
    let cgroup = Arc::new(SessionCgroup::create(&door.hierarchy, &door.session)?);
    let limit = TaskLimit::set(&cgroup, &door.session);
    let mut fences = Fences { cgroup, limit, remains: door.remains(), warden: None, lock: None };
    match build(options, door, spec, plan, kernel, &mut fences) {
        Ok(parts) => parts.with(fences),
        Err(error) => {
            fences.lower(door);
            Err(error)
        }
    }
}

/// A session that lacks nothing but what stands in the kernel.
struct Parts {
    pipeline: Arc<Pipeline>,
    ledger: Ledger,
    seal: Seal,
    switches: Switches,
    kernel: Kernel,
    network: Option<NetworkPrograms>,
    baseline: watch::Sender<Option<Arc<Baseline>>>,
    arrivals: mpsc::UnboundedReceiver<Blocked>,
    reports: mpsc::UnboundedReceiver<Report>,
    fatal: mpsc::UnboundedReceiver<String>,
    fatal_sender: mpsc::UnboundedSender<String>,
    watched: Watched,
}

impl Parts {
    fn with(self, fences: Fences) -> Result<Prepared, SupervisorError> {
        let Fences { cgroup, limit, warden, lock, .. } = fences;
        let Self { pipeline, ledger, seal, switches, kernel, .. } = self;
        Ok(Prepared {
            pipeline,
            ledger,
            cgroup,
            seal,
            switches,
            kernel,
            network: self.network,
            _lock: lock.ok_or(SupervisorError::Protocol("the lock"))?,
            limit,
            warden: warden.ok_or(SupervisorError::Protocol("the warden"))?,
            baseline: self.baseline,
            arrivals: self.arrivals,
            reports: self.reports,
            fatal: self.fatal,
            fatal_sender: self.fatal_sender,
            watched: self.watched,
        })
    }
}

fn build(
    options: &Options,
    door: &Door,
    spec: &Spec,
    plan: Plan,
    mut kernel: Kernel,
    fences: &mut Fences,
) -> Result<Parts, SupervisorError> {
    let desk = Arc::new(desk(&door.state, &plan.policy)?);
    let session = Session {
        id: door.session.clone(),
        host: sys::process::host_name().map_err(doing("read the host name"))?,
        boot_id: boot_id().map_err(doing("read the boot id"))?,
        uid: door.account.identity.uid,
    };
    let (fatal_sender, fatal) = mpsc::unbounded_channel();
    let (policy, store) = (Arc::clone(&plan.policy), Arc::clone(&plan.store));
    let (switches, seal) = (plan.switches, plan.seal.clone());
    let Answering { common, network, arrivals, baseline, ledger, watched } =
        fences.raise(options, door, spec, plan, &mut kernel, &fatal_sender)?;
    let (report_sender, reports) = mpsc::unbounded_channel();
    let (router, pump) = reports::router(kernel.take_reports()?, report_sender);
    let fatal_pump = fatal_sender.clone();
    tokio::spawn(async move {
        if let Err(error) = pump.run().await {
            fatal_pump.send(format!("the guard's reports cannot be read: {error}")).ok();
        }
    });
    let gate = Arc::new(ExecGate::new(common, Arc::clone(&fences.cgroup), router));
    let fatal_writer = fatal_sender.clone();
    let writer = Writer::start(Arc::clone(&store), Budget::default(), move |error| {
        fatal_writer.send(unwritten(&error)).ok();
    });
    let writer = writer.map_err(doing("start the thread that writes evidence"))?;
    let fatal_pipeline = fatal_sender.clone();
    let pipeline = Arc::new(Pipeline::new(session, policy, gate, desk, writer, store, fatal_pipeline));
    let (keeper, kept) = (Arc::clone(&pipeline), ledger.clone());
    std::thread::Builder::new()
        .name("ana-keeper".to_owned())
        .spawn(move || keeper.keep(&kept))
        .map_err(doing("start the thread that keeps what was let through"))?;
    Ok(Parts {
        pipeline,
        ledger,
        seal,
        switches,
        kernel,
        network,
        baseline,
        arrivals,
        reports,
        fatal,
        fatal_sender,
        watched,
    })
}

fn desk(state: &Arc<State>, policy: &Policy) -> Result<Desk, SupervisorError> {
    let passkeys = match Passkeys::load(state)? {
        Some(passkeys) => passkeys,
        // Nothing can be approved then; what is denied or allowed by rule still is.
        None => {
            let host = sys::process::host_name().map_err(doing("read the host name"))?;
            Passkeys::new(&host)
                .map_err(|source| PasskeysError::Invalid { path: state.passkeys_file(), source })?
        }
    };
    let desk = Desk::new(policy.session().max_holds, passkeys, policy.allow_software_passkey());
    Ok(desk.with_counters(Box::new(Stored::new(Arc::clone(state)))))
}

/// The standard devices and what the policy adds.
fn devices(policy: &Policy) -> Result<Vec<kernel::DeviceRule>, SupervisorError> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let mut rules = kernel::STANDARD_DEVICES.to_vec();
    for path in &policy.session().devices {
        let meta = fs::metadata(path).map_err(doing("look at a device of [session] devices"))?;
        if !meta.file_type().is_char_device() {
            let error = io::Error::other(format!("{} is not a character device", path.display()));
            return Err(doing("allow a device of [session] devices")(error));
        }
        let number = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        rules.push(kernel::DeviceRule {
            major: number(nix::sys::stat::major(meta.rdev())),
            minor: Some(number(nix::sys::stat::minor(meta.rdev()))),
            access: kernel::DEVICE_READ | kernel::DEVICE_WRITE,
        });
    }
    Ok(rules)
}

fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Writes the record that must be on the disk before the agent's first instruction.
pub(super) fn record_start(
    prepared: &Prepared,
    connections: Option<&Connections>,
    door: &Door,
    spec: &Spec,
) -> Result<(), SupervisorError> {
    let words: Vec<String> = spec.argv.iter().map(crate::operation::Bytes::escaped).collect();
    let gates: &[&str] = if connections.is_some() { &["exec", "connect"] } else { &["exec"] };
    let network =
        connections.map(|connections| serde_json::json!({ "names_without_address": connections.unknown }));
    let detail = serde_json::json!({
        "command": words,
        "user": door.account.name(),
        "uid": door.account.identity.uid,
        "kernel": features::kernel_release(),
        "seal": prepared.seal,
        "switches": prepared.switches,
        "task_limit": prepared.limit,
        "protected_files": prepared.pipeline.gate.common.protected.len(),
        "missing_files": prepared.watched.missing,
        "unwatched_folders": prepared.watched.unwatched,
        "gates": gates,
        "guards": ["exec", "device"],
        "network": network,
    });
    let entry = Entry::new(Event::SessionStart)
        .session(&door.session)
        .policy(prepared.pipeline.policy.sha256())
        .detail(detail);
    prepared.pipeline.store.append(entry)?;
    Ok(())
}
