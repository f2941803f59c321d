//! A session cgroup with a guard on it, and processes in it.

use std::{
    fs::{self, File},
    io::Write,
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::fcntl::Flock;

use super::super::{
    DeviceRule, FileKey, Kernel, KernelError, KillReason, Maps, Report, Reports, STANDARD_DEVICES,
    SessionCgroup,
};
use super::super::{identity, pins};

/// Nothing here takes that long; a test that waits longer has failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// A session's cgroup with one hold in it, and a directory for programs.
pub(super) struct Stage {
    pub(super) session: PathBuf,
    pub(super) hold: PathBuf,
    pub(super) programs: PathBuf,
    pub(super) pins: PathBuf,
    base: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

/// One test at a time: while one thread copies a program, a process forked by another has it open for writing until its
/// own exec, and the program would be "busy".
static TURN: Mutex<()> = Mutex::new(());

impl Stage {
    pub(super) fn new() -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test loads eBPF programs and makes cgroups: run it as root"
        );
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let base = cgroup2().join(format!("ana-test-{name}"));
        let session = base.join("session");
        let hold = session.join("hold");
        fs::create_dir_all(&hold).unwrap();
        let programs = std::env::temp_dir().join(format!("ana-test-{name}"));
        fs::create_dir_all(&programs).unwrap();
        Self {
            session,
            hold,
            programs,
            pins: Path::new(pins::BASE).join(format!("test-{name}")),
            base,
            _turn: turn,
        }
    }

    /// A new program: a copy of `original`, and its identity.
    pub(super) fn program(&self, name: &str, original: &str) -> (PathBuf, FileKey) {
        let path = self.programs.join(name);
        fs::copy(original, &path).unwrap();
        let key = key(&path);
        (path, key)
    }

    /// An executable script.
    pub(super) fn script(&self, name: &str, text: &str) -> (PathBuf, FileKey) {
        let path = self.programs.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let key = key(&path);
        (path, key)
    }

    pub(super) fn guard(&self, kernel: Kernel) -> Guard {
        self.guard_with(kernel, 2, &STANDARD_DEVICES)
    }

    pub(super) fn guard_with(&self, mut kernel: Kernel, level: u32, devices: &[DeviceRule]) -> Guard {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let reports = runtime.block_on(async { kernel.take_reports() }).unwrap();
        let lock = attach(&mut kernel, &self.session, level, devices, &self.pins).unwrap();
        Guard { maps: kernel.maps(), _kernel: kernel, _lock: lock, reports, runtime }
    }

    pub(super) fn attach(&self, kernel: &mut Kernel, level: u32, devices: &[DeviceRule]) {
        attach(kernel, &self.session, level, devices, &self.pins).unwrap();
    }

    /// What becomes of one more start with the same pins.
    pub(super) fn attach_at(&self, pins: &Path) -> Result<Flock<File>, KernelError> {
        attach(&mut Kernel::load().unwrap(), &self.session, 2, &[], pins)
    }

    /// Runs a program in a cgroup to its end.
    pub(super) fn run(&self, cgroup: &Path, command: &[&str]) -> ExitStatus {
        self.start(cgroup, command).go()
    }

    /// A process in `cgroup` that executes `command` when it is told to.
    pub(super) fn start(&self, cgroup: &Path, command: &[&str]) -> Actor {
        let child = Command::new("/bin/sh")
            .args(["-c", "echo 0 > \"$0/cgroup.procs\" && read go && exec \"$@\""])
            .arg(cgroup)
            .args(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Actor(child)
    }
}

pub(super) fn attach(
    kernel: &mut Kernel,
    session: &Path,
    level: u32,
    devices: &[DeviceRule],
    pins: &Path,
) -> Result<Flock<File>, KernelError> {
    let directory = File::open(session).unwrap();
    let session = SessionCgroup { fd: directory.as_fd(), id: id(session), level };
    kernel.attach(&session, devices, pins)
}

impl Drop for Stage {
    fn drop(&mut self) {
        let until = Instant::now() + PATIENCE;
        let mut done = pins::unpin(&self.pins).is_ok();
        for cgroup in [&self.hold, &self.session, &self.base] {
            // The last process of a cgroup takes a moment to leave it after it was waited for.
            while fs::remove_dir(cgroup).is_err() && cgroup.exists() {
                if Instant::now() > until {
                    done = false;
                    break;
                }
                thread::yield_now();
            }
        }
        done &= fs::remove_dir_all(&self.programs).is_ok();
        assert!(done || thread::panicking(), "the stage of the test could not be removed");
    }
}

/// A process that waits to be told to go.
pub(super) struct Actor(Child);

impl Actor {
    pub(super) fn tgid(&self) -> u32 {
        self.0.id()
    }

    pub(super) fn go(mut self) -> ExitStatus {
        self.0.stdin.take().unwrap().write_all(b"\n").unwrap();
        self.0.wait().unwrap()
    }
}

/// A guard that is attached, and its reports.
pub(super) struct Guard {
    pub(super) maps: Maps,
    _kernel: Kernel,
    /// Whoever keeps it is alive: a test elsewhere on this machine does not tidy up after it.
    _lock: Flock<File>,
    reports: Reports,
    runtime: tokio::runtime::Runtime,
}

impl Guard {
    /// The next report, waited for.
    pub(super) fn next(&mut self) -> Report {
        let next = async { tokio::time::timeout(PATIENCE, self.reports.next()).await };
        self.runtime.block_on(next).expect("no report came").unwrap()
    }

    /// The guard has killed one, for this reason, and nothing else was reported.
    #[track_caller]
    pub(super) fn assert_killed(&mut self, expected: KillReason) {
        match self.next() {
            Report::Killed { reason, still_alive: false, .. } => assert_eq!(reason, expected),
            other => panic!("{other:?}"),
        }
        self.assert_silent();
    }

    /// Nothing more was reported. Reports are in the ring before the process goes on, so no waiting is needed.
    pub(super) fn assert_silent(&mut self) {
        assert_eq!(self.reports.try_next().unwrap(), None);
    }
}

pub(super) fn key(path: &Path) -> FileKey {
    identity::file_key(File::open(path).unwrap().as_fd()).unwrap()
}

/// A cgroup's id.
pub(super) fn id(cgroup: &Path) -> u64 {
    fs::metadata(cgroup).unwrap().ino()
}

fn cgroup2() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mount =
        mounts.lines().find(|line| line.contains(" - cgroup2 ")).expect("cgroup2 is mounted somewhere");
    PathBuf::from(mount.split(' ').nth(4).unwrap())
}

/// Did SIGKILL end it?
pub(super) fn was_killed(status: ExitStatus) -> bool {
    std::os::unix::process::ExitStatusExt::signal(&status) == Some(libc::SIGKILL)
}
