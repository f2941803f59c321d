//! One test's own ground: a state folder, a home, a protected program, a file for its marks. Dropping it kills what
//! is left of the test and removes everything.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{PermissionsExt, chown},
    },
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use crate::{
    machine::{BASE, admin, linux, machine, path_str},
    processes, records,
    skip::skipped,
    wait,
};

/// Names the ground in the environment of everything that a test starts, so that nothing is left over.
pub const GROUND_VARIABLE: &str = "ANA_TEST_GROUND";
/// Tells the marker program where to write.
pub const MARKS_VARIABLE: &str = "ANA_TEST_MARKS";

pub struct Ground {
    root: PathBuf,
    mounts: Mutex<Vec<PathBuf>>,
}

/// One run of a protected program, as it wrote it down itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    pub pid: i32,
    pub argv: Vec<Vec<u8>>,
    /// CLOCK_BOOTTIME, nanoseconds.
    pub at: u64,
    /// /proc/self/exe.
    pub exe: PathBuf,
}

impl Marker {
    /// The arguments after argv\[0\], as text.
    pub fn args(&self) -> Vec<String> {
        self.argv.iter().skip(1).map(|arg| String::from_utf8_lossy(arg).into_owned()).collect()
    }
}

impl Ground {
    /// A ground with a protected `deploy` that asks, and bob's software passkey.
    pub fn new(name: &str) -> Self {
        let ground = Self::bare(name);
        ground.policy(&ground.asking());
        ground.enroll();
        ground
    }

    /// A ground without policy and passkey.
    pub fn bare(name: &str) -> Self {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        // Makes the machine ready first: the folders, the user.
        machine();
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let root = Path::new(BASE).join(format!("{name}-{}-{count}", std::process::id()));
        let ground = Self { root, mounts: Mutex::default() };
        for (folder, mode) in
            [("", 0o755), ("state", 0o755), ("bin", 0o755), ("keys", 0o700), ("home", 0o755)]
        {
            let path = ground.root.join(folder);
            fs::create_dir(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("mode");
        }
        ground.give(&ground.home());
        ground.install("marker", "deploy");
        ground.install("marker", "benign");
        fs::write(ground.marks(), "").expect("the marks can be made");
        ground.give(&ground.marks());
        ground
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    pub fn home(&self) -> PathBuf {
        self.root.join("home")
    }

    pub fn marks(&self) -> PathBuf {
        self.home().join("marks")
    }

    /// The protected program.
    pub fn deploy(&self) -> PathBuf {
        self.root.join("bin/deploy")
    }

    /// The same program under a name of the same length that no rule lists.
    pub fn benign(&self) -> PathBuf {
        self.root.join("bin/benign")
    }

    pub fn key(&self) -> PathBuf {
        self.root.join("keys/bob.key")
    }

    /// Puts one of this package's programs at `bin/NAME`, root-owned.
    pub fn install(&self, program: &str, name: &str) -> PathBuf {
        let path = self.root.join("bin").join(name);
        fs::copy(machine().program(program), &path).expect("the program can be copied");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("mode");
        path
    }

    /// Writes a file below the ground with a mode, root-owned.
    pub fn write(&self, name: &str, mode: u32, text: &str) -> PathBuf {
        let path = self.root.join(name);
        fs::create_dir_all(path.parent().expect("below the root")).expect("folder");
        fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("mode");
        path
    }

    /// Writes a file into the session user's home, owned by that user.
    pub fn write_home(&self, name: &str, mode: u32, text: &str) -> PathBuf {
        let path = self.write(&format!("home/{name}"), mode, text);
        for folder in path.ancestors().take_while(|p| p.starts_with(self.home())) {
            self.give(folder);
        }
        path
    }

    /// Hands a file to the session's user.
    pub fn give(&self, path: &Path) {
        let machine = machine();
        chown(path, Some(machine.uid.as_raw()), Some(machine.gid.as_raw()))
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }

    /// The command of an attack program of this package.
    pub fn attack<S: AsRef<OsStr>>(&self, name: &str, arguments: &[S]) -> Vec<OsString> {
        let mut command = vec![machine().program(&format!("attack-{name}")).into_os_string()];
        command.extend(arguments.iter().map(|argument| argument.as_ref().to_owned()));
        command
    }

    pub fn policy(&self, text: &str) {
        self.write("state/policy.toml", 0o644, text);
    }

    /// The policy's head: software passkeys are allowed, as in every test.
    pub fn head(&self) -> String {
        "version = 1\nallow_software_passkey = true\n".to_owned()
    }

    /// Whether a policy of `[session] namespaces = true` and `rules` has a session. Before Linux 6.5 it has none, and says
    /// so, which this sees to; the rest of the test is counted as skipped.
    #[track_caller]
    pub fn with_namespaces(&self, test: &str, rules: &str) -> bool {
        self.policy(&format!("{}[session]\nnamespaces = true\n{rules}", self.head()));
        let there = linux() >= (6, 5);
        if !there {
            let before = self.markers().len();
            let refused = self.run(&[self.deploy(), "status".into()]).assert_code(125);
            assert!(refused.stderr().contains("it needs Linux 6.5 or later"), "{}", refused.stderr());
            assert_eq!(self.markers().len(), before, "a protected program ran: {:#?}", self.markers());
            skipped(test, "no session has namespaces before Linux 6.5");
        }
        there
    }

    /// A policy under which every run of `deploy` is asked.
    pub fn asking(&self) -> String {
        self.head() + &self.rule("otherwise = \"approve\"")
    }

    /// `[[exec]]` for `deploy` with these further lines.
    pub fn rule(&self, lines: &str) -> String {
        format!("[[exec]]\nname = \"deploy\"\nfile = [{:?}]\n{lines}\n", path_str(&self.deploy()))
    }

    /// Enrols bob with a software passkey.
    pub fn enroll(&self) {
        self.enroll_as("bob", &self.key());
    }

    #[track_caller]
    pub fn enroll_as(&self, name: &str, key: &Path) {
        let output = self
            .ana(&["passkey", "enroll", "--name", name, "--software"])
            .arg(key)
            .output()
            .expect("ana can be started");
        assert!(output.status.success(), "enrolment failed: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// `ana ARGS --state STATE`, run by root outside of every session.
    pub fn ana(&self, args: &[&str]) -> Command {
        let mut command = Command::new(machine().ana("ana"));
        command.arg("--state").arg(self.state()).args(args).env(GROUND_VARIABLE, &self.root);
        command.stdin(std::process::Stdio::null());
        command
    }

    /// What the session's processes get on top of everything else, in `env(1)`'s form.
    pub fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        vec![
            ("HOME", self.home()),
            ("PATH", PathBuf::from("/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")),
            (GROUND_VARIABLE, self.root.clone()),
            (MARKS_VARIABLE, self.marks()),
        ]
    }

    /// The same command as in a session, as the same user, but without ana: what an attack is proven on.
    pub fn without_ana<S: AsRef<OsStr>>(&self, command: &[S]) -> Command {
        let mut outside = Command::new("setpriv");
        outside
            .args(["--reuid", crate::machine::USER, "--regid", crate::machine::USER, "--clear-groups", "--"])
            .args(command)
            .env_clear()
            .envs(self.environment())
            .current_dir(self.home());
        outside
    }

    /// Every run of the protected program so far, however it was called or copied.
    pub fn markers(&self) -> Vec<Marker> {
        let benign = self.benign();
        self.all_markers().into_iter().filter(|marker| marker.exe != benign).collect()
    }

    /// Every run of the marker program, `benign` included.
    pub fn all_markers(&self) -> Vec<Marker> {
        let text = fs::read_to_string(self.marks()).expect("the marks can be read");
        // The last line may be in the middle of being written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(parse_marker).collect()
    }

    /// Forgets the marks of a proof, before the attack is repeated under ana.
    pub fn clear_markers(&self) {
        fs::write(self.marks(), "").expect("the marks can be written");
    }

    /// Mounts a file system on a folder of the ground; unmounted when the ground goes.
    pub fn mount(&self, args: &[&str], folder: &Path) {
        fs::create_dir_all(folder).expect("folder");
        let mut all = args.to_vec();
        all.push(path_str(folder));
        admin("mount", &all);
        self.mounts().push(folder.to_owned());
    }

    fn mounts(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        self.mounts.lock().expect("nobody panics with it")
    }

    /// Kills what is left of the test.
    fn clear(&self) {
        let needle = self.root.as_os_str().as_bytes();
        let own = i32::try_from(std::process::id()).expect("a pid");
        let left = || processes::all().into_iter().filter(|&p| p != own && processes::mentions(p, needle));
        for session in records::session_ids(&self.state()) {
            end_cgroup(&session);
        }
        wait::poll(Duration::from_secs(3), || left().next().is_none().then_some(()));
        wait::poll(Duration::from_secs(10), || {
            let rest: Vec<i32> = left().collect();
            rest.iter().for_each(|&pid| processes::end(pid));
            rest.is_empty().then_some(())
        });
        for session in records::session_ids(&self.state()) {
            end_cgroup(&session);
        }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        self.clear();
        for folder in self.mounts().iter().rev() {
            // Lazily: a supervisor that a failing test left behind may still have a file open in it.
            let done = Command::new("umount").arg("-l").arg(folder).status();
            if !std::thread::panicking() {
                assert!(done.is_ok_and(|s| s.success()), "cannot unmount {}", folder.display());
            }
        }
        if std::thread::panicking() && std::env::var_os("ANA_TEST_KEEP").is_some() {
            return;
        }
        // The last one of a session that a test has killed may still be writing in it.
        let removed = wait::poll(wait::LIMIT, || match fs::remove_dir_all(&self.root) {
            Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => None,
            other => Some(other),
        });
        if !matches!(removed, Some(Ok(()))) && !std::thread::panicking() {
            panic!("{}: {removed:?}", self.root.display());
        }
    }
}

/// Kills and removes what a session left in the cgroup tree.
fn end_cgroup(session: &str) {
    for top in cgroups_of(session) {
        if fs::write(top.join("cgroup.kill"), "1").is_err() {
            continue;
        }
        wait::poll(Duration::from_secs(5), || remove_tree(&top).then_some(()));
    }
}

/// The folders of a session in the cgroup tree: none once it has been cleaned up.
pub fn cgroups_of(session: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut next = vec![PathBuf::from(processes::cgroup2_mount())];
    while let Some(folder) = next.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if entry.file_name() == session {
                found.push(entry.path());
            } else {
                next.push(entry.path());
            }
        }
    }
    found
}

fn remove_tree(top: &Path) -> bool {
    for entry in fs::read_dir(top).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    fs::remove_dir(top).is_ok() || !top.exists()
}

/// A mark may follow a part of one: whoever is killed while it writes across two pages has written the first.
fn parse_marker(line: &str) -> Marker {
    let line = line.rfind("{\"pid\":").map_or(line, |begin| &line[begin..]);
    let value: serde_json::Value =
        serde_json::from_str(line).unwrap_or_else(|e| panic!("marker {line:?}: {e}"));
    let argv = value["argv"].as_array().expect("argv").iter().map(|arg| unhex(arg.as_str().expect("hex")));
    Marker {
        pid: i32::try_from(value["pid"].as_i64().expect("pid")).expect("a pid"),
        argv: argv.collect(),
        at: value["at"].as_u64().expect("at"),
        exe: PathBuf::from(OsString::from_vec(unhex(value["exe"].as_str().expect("exe")))),
    }
}

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ascii"), 16).expect("hex"))
        .collect()
}
