//! Two network namespaces with a cable between them: where the session runs, and where the hosts are.

use std::{
    fs::{self, File},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use nix::sched::{CloneFlags, setns};

use crate::machine::admin;

/// Where `ip netns` keeps its names.
const NAMES: &str = "/run/netns";
/// Begins every name of ours; the number of the test program follows.
const PREFIX: &str = "anat-";

/// A network namespace with a name. Gone when dropped.
pub(super) struct Space {
    name: String,
}

impl Space {
    fn new(name: String) -> Self {
        admin("ip", &["netns", "add", &name]);
        Self { name }
    }

    /// Its file, as nsenter(1) takes it.
    pub(super) fn path(&self) -> PathBuf {
        Path::new(NAMES).join(&self.name)
    }

    /// Runs `work` on a thread that is inside; sockets that it makes stay there, and so do threads that it starts.
    pub(super) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let space = File::open(self.path()).expect("the namespace has a file");
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                setns(space, CloneFlags::CLONE_NEWNET).expect("root may enter its namespace");
                work()
            });
            thread.join().expect("no panic inside of the namespace")
        })
    }

    /// A command that will run inside, as root.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    /// `ip(8)` commands, one a line.
    pub(super) fn configure(&self, commands: &str) {
        use std::io::Write;
        let mut ip = Command::new("ip");
        ip.args(["-n", &self.name, "-batch", "-"]).stdin(Stdio::piped());
        let mut child = ip.spawn().expect("ip can be started");
        child.stdin.take().expect("piped").write_all(commands.as_bytes()).expect("ip reads");
        assert!(child.wait().expect("a child of ours").success(), "ip: {commands}");
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let done = Command::new("ip").args(["netns", "del", &self.name]).status();
        if !std::thread::panicking() {
            assert!(done.is_ok_and(|status| status.success()), "cannot remove {}", self.name);
        }
    }
}

/// The client's and the hosts' namespace, connected, with these addresses on the hosts' side.
pub(super) fn pair(client: (Ipv4Addr, Ipv6Addr), hosts: &[IpAddr]) -> (Space, Space) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    sweep();
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = |side: &str| format!("{PREFIX}{}-{number}{side}", std::process::id());
    let (near, far) = (Space::new(name("c")), Space::new(name("h")));
    let names = (near.name.as_str(), far.name.as_str());
    admin(
        "ip",
        &["link", "add", "c0", "netns", names.0, "type", "veth", "peer", "name", "h0", "netns", names.1],
    );
    near.configure(&format!(
        "link set lo up\nlink set c0 up\naddr add {}/24 dev c0\naddr add {}/64 dev c0 nodad\n",
        client.0, client.1
    ));
    let mut commands = "link set lo up\nlink set h0 up\n".to_owned();
    for address in hosts {
        let (length, more) = if address.is_ipv4() { (24, "") } else { (64, " nodad") };
        commands.push_str(&format!("addr add {address}/{length} dev h0{more}\n"));
    }
    far.configure(&commands);
    (near, far)
}

/// Removes the namespaces of test programs that were killed.
fn sweep() {
    for entry in fs::read_dir(NAMES).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // Two programs may sweep at once.
            drop(Command::new("ip").args(["netns", "del", &name]).stderr(Stdio::null()).status());
        }
    }
}
