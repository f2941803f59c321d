//! The machine under test: root, the built binaries, the unprivileged user.

use std::{
    ffi::OsString,
    fs::{self, File},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use nix::{
    fcntl::{Flock, FlockArg},
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::{Gid, Uid, User},
};

/// The unprivileged user whose agents the tests run.
pub const USER: &str = "anatest";
/// Where the tests keep everything: root-owned with root-owned ancestors, as a real state folder.
pub const BASE: &str = "/var/lib/ana-tests";

/// What was found, once per process.
pub struct Machine {
    /// Folder with copies of the attack programs and the marker.
    pub programs: PathBuf,
    pub uid: Uid,
    pub gid: Gid,
}

impl Machine {
    /// One of ana-run, ana, ana-key and ana-supervisor, at a root-owned place that [`USER`] can reach.
    pub fn ana(&self, name: &str) -> PathBuf {
        static BIN: OnceLock<PathBuf> = OnceLock::new();
        let install =
            || locked(|| install("ana", &product_dir(), &["ana", "ana-run", "ana-key", "ana-supervisor"]));
        BIN.get_or_init(install).join(name)
    }

    /// One of this package's own programs (`marker`, `attack-…`).
    pub fn program(&self, name: &str) -> PathBuf {
        let path = self.programs.join(name);
        assert!(path.exists(), "{} is not built: run cargo xtask test", path.display());
        path
    }
}

/// From here on, what this thread starts has a bpffs of its own: what is left of its sessions is not cleaned away by the
/// starts of other tests. (Not for longer than a minute: then they find the cgroups.)
pub fn away_from_other_starts() {
    unshare(CloneFlags::CLONE_NEWNS).expect("root may have mounts of its own");
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("root may keep its mounts");
    mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), MsFlags::empty(), Some("mode=700"))
        .expect("root may mount bpffs");
}

/// The machine, made ready by whoever asks first.
pub fn machine() -> &'static Machine {
    static MACHINE: OnceLock<Machine> = OnceLock::new();
    MACHINE.get_or_init(prepare)
}

/// The build folder that this very test program lies in.
pub fn target_dir() -> PathBuf {
    let exe = std::env::current_exe().expect("a running program has a path");
    // target/<profile>/deps/<test>, or target/<profile>/<program>
    let mut above = exe.ancestors().skip(1).filter(|folder| !folder.ends_with("deps"));
    above.nth(1).expect("cargo's layout").to_owned()
}

/// The Python of a virtual environment in `folder` with these of PyPI's packages, made once.
pub fn virtual_python(folder: &Path, packages: &[&str]) -> PathBuf {
    let (python, ready) = (folder.join("bin/python"), folder.join("ready"));
    locked(|| {
        if !ready.exists() {
            admin("/usr/bin/python3", &["-m", "venv", "--clear", path_str(folder)]);
            admin(path_str(&python), &[&["-m", "pip", "install", "--quiet"], packages].concat());
            fs::write(&ready, "").expect("root writes");
        }
    });
    python
}

/// The kernel's version: (6, 12).
pub fn linux() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("proc");
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse().ok());
    numbers.next().zip(numbers.next()).unwrap_or_else(|| panic!("{release}"))
}

/// Runs an administrator's command to its end, or panics with what it said.
#[track_caller]
pub fn admin(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(
        output.status.success(),
        "{program} {args:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether a program is somewhere in the PATH.
pub fn has(program: &str) -> bool {
    which(program).is_some()
}

/// The path of a program in the system's folders (not in root's home, where a user cannot go).
pub fn which(program: &str) -> Option<PathBuf> {
    ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"]
        .iter()
        .map(|folder| Path::new(folder).join(program))
        .find(|path| path.exists())
}

fn prepare() -> Machine {
    assert!(
        Uid::effective().is_root(),
        "these tests start supervisors and make users: run them as root (sudo -E cargo test -p ana-tests)"
    );
    fs::create_dir_all(BASE).expect("/var/lib can be written");
    fs::set_permissions(BASE, fs::Permissions::from_mode(0o755)).expect("the folder is root's");
    locked(|| {
        sweep();
        let user = user();
        let programs = install("programs", &own_dir(), &own_programs());
        Machine { programs, uid: user.uid, gid: user.gid }
    })
}

/// Removes the grounds of test programs that were killed: `<test>-<pid>-<count>`.
fn sweep() {
    for entry in fs::read_dir(BASE).expect("just made").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.rsplit('-').nth(1).and_then(|part| part.parse::<u32>().ok()) else { continue };
        if Path::new(&format!("/proc/{pid}")).exists() {
            continue;
        }
        let mounts = fs::read_to_string("/proc/self/mounts").expect("/proc is mounted");
        let below = |line: &str| {
            line.split(' ').nth(1).filter(|m| m.starts_with(path_str(&entry.path()))).map(str::to_owned)
        };
        mounts.lines().filter_map(below).for_each(|mount| drop(admin("umount", &["-l", &mount])));
        if let Err(error) = fs::remove_dir_all(entry.path()) {
            eprintln!("{}: {error}", entry.path().display());
        }
    }
}

/// Two test programs may start at once; one prepares, the other waits and finds it done.
pub(crate) fn locked<T>(prepare: impl FnOnce() -> T) -> T {
    let lock = File::create(Path::new(BASE).join("lock")).expect("the lock can be made");
    let lock = Flock::lock(lock, FlockArg::LockExclusive).expect("the lock can be taken");
    let prepared = prepare();
    drop(lock);
    prepared
}

fn user() -> User {
    if let Some(user) = User::from_name(USER).expect("passwd can be read") {
        return user;
    }
    admin("useradd", &["--create-home", "--shell", "/bin/bash", USER]);
    User::from_name(USER).expect("passwd can be read").expect("useradd made the user")
}

/// Where the product was built: `ANA_BIN_DIR`, or `release` beside the folder that this test was built in.
fn product_dir() -> PathBuf {
    let folder = std::env::var_os("ANA_BIN_DIR").map_or_else(|| target_dir().join("release"), PathBuf::from);
    assert!(
        folder.join("ana-run").exists(),
        "no ana-run in {}: run cargo xtask test (or set ANA_BIN_DIR)",
        folder.display()
    );
    folder
}

fn own_dir() -> PathBuf {
    let exe = std::env::current_exe().expect("a running program has a path");
    exe.ancestors().skip(1).find(|folder| !folder.ends_with("deps")).expect("cargo's layout").to_owned()
}

fn own_programs() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(own_dir())
        .expect("the build folder can be read")
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| {
            let ours = name == "marker" || name == "agent-tokio";
            let many = ["attack-", "bench-"].iter().any(|prefix| name.starts_with(prefix));
            !name.contains('.') && (ours || many)
        })
        .collect();
    names.sort();
    names
}

/// Copies programs to a root-owned place that every user can reach; a checkout may lie in root's home.
fn install<S: AsRef<str>>(folder: &str, from: &Path, names: &[S]) -> PathBuf {
    // Of this checkout's own: the suites of two may run at once.
    let mut hash = std::hash::DefaultHasher::new();
    std::hash::Hash::hash(&target_dir(), &mut hash);
    let checkout = format!("{:016x}", std::hash::Hasher::finish(&hash));
    let to = Path::new(BASE).join("installed").join(checkout).join(folder);
    fs::create_dir_all(&to).expect("the folder can be made");
    for name in names {
        let name = name.as_ref();
        let (source, goal) = (from.join(name), to.join(name));
        if same(&source, &goal) {
            continue;
        }
        // Replaced by renaming: another test program may be running the old one.
        let fresh = to.join(format!(".{name}.{}", std::process::id()));
        admin("cp", &["--preserve=timestamps", path_str(&source), path_str(&fresh)]);
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)).expect("mode");
        fs::rename(&fresh, &goal).expect("rename");
    }
    to
}

fn same(a: &Path, b: &Path) -> bool {
    match (fs::metadata(a), fs::metadata(b)) {
        (Ok(a), Ok(b)) => a.len() == b.len() && a.mtime() == b.mtime() && a.mtime_nsec() == b.mtime_nsec(),
        _ => false,
    }
}

/// A path of the tests' own, which are all UTF-8.
pub fn path_str(path: &Path) -> &str {
    path.to_str().expect("the tests' own paths are UTF-8")
}

/// Environment variables as `env(1)` takes them.
pub fn assignment(name: &str, value: impl AsRef<std::ffi::OsStr>) -> OsString {
    let mut text = OsString::from(name);
    text.push("=");
    text.push(value);
    text
}
