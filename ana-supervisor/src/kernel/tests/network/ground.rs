//! A network namespace with a process outside of the session in it, which is the proxy and all servers, and one inside.

use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use ana_common::network::{Endpoint, Network, Origin, Socket};

use super::super::super::network::{NetworkMaps, NetworkPrograms, Refusal, RefusalReason, Refusals};
use super::super::super::{Kernel, STANDARD_DEVICES, SessionCgroup};
use super::super::stage::{PATIENCE, Stage, attach, id};

/// Where the proxy listens.
pub(super) const PROXY: u16 = 4099;

/// A Python process that does what it is told.
pub(super) struct Actor {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Actor {
    fn start(mut command: Command) -> Self {
        let mut child = command
            .args(["/usr/bin/python3", "-c", include_str!("actor.py")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut actor = Self { child, stdin, stdout };
        assert_eq!(actor.ask("1 + 1"), "2", "it has started");
        actor
    }

    /// What Python says to an expression.
    #[track_caller]
    pub(super) fn ask(&mut self, expression: &str) -> String {
        let stdin = self.stdin.as_mut().unwrap();
        writeln!(stdin, "{expression}").unwrap();
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    #[track_caller]
    pub(super) fn says(&mut self, expression: &str, wanted: &str) {
        assert_eq!(self.ask(expression), wanted, "{expression}");
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.stdin.take();
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Everything is on the loopback device of a network namespace of its own; 192.0.2.0/24 and 2001:db8::/32 play the outer world.
pub(super) struct Ground {
    pub(super) maps: NetworkMaps,
    pub(super) netns: u64,
    /// In the session.
    pub(super) agent: Actor,
    /// Not.
    pub(super) outside: Actor,
    refusals: Refusals,
    runtime: tokio::runtime::Runtime,
    programs: Option<NetworkPrograms>,
    _kernel: Kernel,
    _lock: nix::fcntl::Flock<std::fs::File>,
    pub(super) stage: Stage,
}

impl Ground {
    pub(super) fn new(flags: u32) -> Self {
        let stage = Stage::new();
        let mut kernel = Kernel::load().unwrap();
        // Whoever keeps the lock is alive: another test on this machine does not tidy up after it.
        let lock = attach(&mut kernel, &stage.session, 2, &STANDARD_DEVICES, &stage.pins).unwrap();
        let mut programs = NetworkPrograms::load().unwrap();
        let directory = std::fs::File::open(&stage.session).unwrap();
        let session =
            SessionCgroup { fd: std::os::fd::AsFd::as_fd(&directory), id: id(&stage.session), level: 2 };
        programs.attach(&session, &stage.pins).unwrap();
        let maps = programs.maps();
        maps.configure(Network { proxy_port: PROXY.into(), flags }).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let refusals = runtime.block_on(async { programs.take_refusals() }).unwrap();
        let mut outside = Actor::start({
            let mut command = Command::new("/usr/bin/unshare");
            command.arg("--net");
            command
        });
        outside.says("run('ip link set lo up')", "0");
        for address in
            ["192.0.2.7/32", "192.0.2.8/32", "192.0.2.100/32", "2001:db8::7/128", "2001:db8::8/128"]
        {
            outside.says(&format!("run('ip addr add {address} dev lo nodad')"), "0");
        }
        for (name, host) in [("proxy4", "127.0.0.1"), ("proxy6", "::1")] {
            outside.says(&format!("listen('{name}', '{host}', {PROXY})"), "None");
            outside.says(&format!("bound('stub{name}', '{host}', {PROXY})"), "None");
        }
        let netns = outside.ask("cookie()").parse().unwrap();
        let agent = in_session(&stage.session, &outside);
        Self {
            maps,
            netns,
            agent,
            outside,
            refusals,
            runtime,
            programs: Some(programs),
            _kernel: kernel,
            _lock: lock,
            stage,
        }
    }

    /// One more process in the session.
    pub(super) fn another(&self) -> Actor {
        in_session(&self.stage.session, &self.outside)
    }

    /// And one more outside.
    pub(super) fn another_outside(&self) -> Actor {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.outside.pid())).arg("--");
        Actor::start(command)
    }

    /// What the programs have cost.
    pub(super) fn costs(&self) -> Vec<(&'static str, crate::sys::bpf::ProgramCounts)> {
        self.programs.as_ref().unwrap().costs()
    }

    /// As if the process that loaded the programs had ended.
    pub(super) fn forget_programs(&mut self) {
        self.programs.take();
    }

    /// The agent's socket `name` is at the proxy; where it was meant to go.
    #[track_caller]
    pub(super) fn accepted(&mut self, family: char) -> (SocketAddr, Option<Origin>) {
        let peer = self.outside.ask(&format!("accept('proxy{family}', 'held')"));
        let peer: SocketAddr = peer.parse().unwrap_or_else(|_| panic!("{peer}"));
        (peer, self.maps.take_origin(peer, self.netns).unwrap())
    }

    /// A connection to `asked` ends at the proxy, which hears of `meant`; the agent sees `shown`.
    #[track_caller]
    pub(super) fn redirected(&mut self, host: &str, port: u16, meant: &str, flags: u32) {
        self.agent.says(&format!("connect('s', '{host}', {port})"), "ok");
        let meant: SocketAddr = meant.parse().unwrap();
        let family = if meant.is_ipv4() { '4' } else { '6' };
        let (_, origin) = self.accepted(family);
        let origin = origin.unwrap_or_else(|| panic!("{host}:{port} has no origin"));
        assert_eq!(origin.destination, Endpoint::new(meant), "{host}:{port}");
        assert_eq!((origin.flags, origin.tgid), (flags, self.agent.pid()), "{host}:{port}");
        let shown: SocketAddr = self.agent.ask("peer('s')").parse().unwrap();
        assert_eq!(Endpoint::new(shown), Endpoint::new(meant), "getpeername");
    }

    /// A connection to a server of the outside goes there.
    #[track_caller]
    pub(super) fn direct(&mut self, host: &str, port: u16) {
        self.outside.says(&format!("listen('server', '{host}', {port})"), "None");
        self.agent.says(&format!("connect('s', '{host}', {port})"), "ok");
        self.outside.ask("accept('server', 'here')");
        self.agent.says("send('s', b'x')", "ok");
        self.outside.says("S['here'].recv(1)", "b'x'");
        self.outside.says("close('server')", "None");
        self.outside.says("close('here')", "None");
    }

    /// The next refusal, waited for.
    #[track_caller]
    pub(super) fn refusal(&mut self) -> Refusal {
        let next = async { tokio::time::timeout(PATIENCE, self.refusals.next()).await };
        self.runtime.block_on(next).expect("no refusal was reported").unwrap()
    }

    #[track_caller]
    pub(super) fn assert_refused(&mut self, reason: RefusalReason, to: &str) {
        let refusal = self.refusal();
        let to: SocketAddr = to.parse().unwrap();
        assert_eq!((refusal.reason, refusal.destination), (reason, Some(to)));
        assert_eq!(refusal.tgid, self.agent.pid());
        self.assert_silent();
    }

    #[track_caller]
    pub(super) fn assert_silent(&mut self) {
        assert_eq!(self.refusals.try_next().unwrap(), None);
    }

    /// What the programs keep with the agent's socket.
    pub(super) fn kept(&self, name: &str, agent: &mut Actor) -> Option<Socket> {
        let number: i32 = agent.ask(&format!("S['{name}'].fileno()")).parse().unwrap();
        let process =
            crate::sys::process::pidfd_open(nix::unistd::Pid::from_raw(agent.pid().cast_signed())).unwrap();
        let fd = crate::sys::process::descriptor_of(std::os::fd::AsFd::as_fd(&process), number).unwrap();
        self.maps.origin_of(std::os::fd::AsFd::as_fd(&fd)).unwrap()
    }
}

fn in_session(session: &Path, outside: &Actor) -> Actor {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", "echo 0 > \"$0/cgroup.procs\" && exec nsenter --net=\"$1\" -- \"$2\" \"$3\" \"$4\""])
        .arg(session)
        .arg(format!("/proc/{}/ns/net", outside.pid()));
    Actor::start(command)
}
