//! A world of a test's own: the session's network namespace, and another one with hosts in it that have names, a
//! certificate authority and real servers. Nothing leaves the machine; two tests may have the same addresses at once.

pub mod dns;
pub mod front;
mod held;
pub mod servers;
mod space;
mod tap;

use std::{
    ffi::{OsStr, OsString},
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

pub use dns::{Asked, Dns, Https, Name};
pub use front::{Arrival, Host};
pub use tap::Packet;

use crate::{
    Finished, Ground, Session,
    machine::{BASE, USER, assignment, machine, path_str},
    session::Launch,
    wait,
};
use front::{Arrivals, Doors};
use space::Space;
use tap::Tap;

/// The session's own address.
pub const CLIENT: (Ipv4Addr, Ipv6Addr) = host(1);
/// `api.protected.test`, `cname.test` and `api.prod.example`.
pub const API: (Ipv4Addr, Ipv6Addr) = host(0x10);
/// `www.innocent.test`.
pub const INNOCENT: (Ipv4Addr, Ipv6Addr) = host(0x20);
/// `shared.test` and `api.protected2.test`.
pub const SHARED: (Ipv4Addr, Ipv6Addr) = host(0x30);
/// Has no name.
pub const NAMELESS: (Ipv4Addr, Ipv6Addr) = host(0x40);
/// The DNS server's.
pub const RESOLVER: (Ipv4Addr, Ipv6Addr) = host(0x53);

/// 192.0.2.N and 2001:db8::N, N written with the same digits.
const fn host(digits: u8) -> (Ipv4Addr, Ipv6Addr) {
    let decimal = (digits >> 4) * 10 + (digits & 15);
    (Ipv4Addr::new(192, 0, 2, decimal), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, digits as u16))
}

/// The hosts whose packets are watched; the DNS server is none of them.
pub const HOSTS: [(Ipv4Addr, Ipv6Addr); 4] = [API, INNOCENT, SHARED, NAMELESS];

/// What the names are that the DNS server knows at first.
const NAMES: [(&str, (Ipv4Addr, Ipv6Addr)); 6] = [
    ("api.protected.test", API),
    ("api.prod.example", API),
    ("www.innocent.test", INNOCENT),
    ("shared.test", SHARED),
    ("api.protected2.test", SHARED),
    // Only over IPv4: see `Net::new`.
    ("four.protected.test", API),
];

/// Ports with doors. What is behind 80 and 443 changes with [`Net::web`], behind 22 with [`Net::ssh`], behind 5432 with
/// [`Net::postgres`]; until then they are what [`Host::Greeter`] is.
pub const PORTS: [u16; 8] = [22, 80, 443, 853, 5432, 7777, 8080, 8443];

/// UDP ports that send back what they get.
pub const UDP_PORTS: [u16; 3] = [443, 853, 7777];

/// Two namespaces and what runs in them. Dropping it ends everything.
pub struct Net {
    children: Mutex<Vec<Child>>,
    doors: Mutex<Doors>,
    hosts_of: Vec<(u16, Arc<Mutex<Host>>)>,
    arrivals: Arrivals,
    pub dns: Dns,
    tap: Tap,
    client: Space,
    hosts: Space,
    folder: PathBuf,
}

/// Both addresses of a host.
pub fn both(host: (Ipv4Addr, Ipv6Addr)) -> [IpAddr; 2] {
    [host.0.into(), host.1.into()]
}

/// A host's IPv4 address as it is reached from a network that has none: behind the well-known prefix (RFC 6052).
pub fn nat64(host: (Ipv4Addr, Ipv6Addr)) -> IpAddr {
    let [a, b, c, d] = host.0.octets().map(u16::from);
    Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, a << 8 | b, c << 8 | d).into()
}

/// Whether the address is one of the host's.
fn is_at(host: (Ipv4Addr, Ipv6Addr), address: IpAddr) -> bool {
    both(host).contains(&address) || nat64(host) == address
}

impl Net {
    pub fn new(name: &str) -> Self {
        Self::with_doors(name, &PORTS, &UDP_PORTS)
    }

    /// Nobody listens at the hosts but the DNS server, and nobody watches the cable, which costs every packet something: for
    /// measurements. What was sent is not known.
    pub fn closed(name: &str) -> Self {
        let net = Self::with_doors(name, &[], &[]);
        net.tap.end();
        net
    }

    fn with_doors(name: &str, ports: &[u16], udp_ports: &[u16]) -> Self {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        // The folders, the user, and what earlier test programs left.
        machine();
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let folder = Path::new(BASE).join(format!("{name}-net-{}-{count}", std::process::id()));
        fs::create_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("mode");
        let watched: Vec<IpAddr> = HOSTS.into_iter().flat_map(both).collect();
        let all: Vec<IpAddr> = watched.iter().copied().chain(both(RESOLVER)).collect();
        let (client, hosts) = space::pair(CLIENT, &all);
        let arrivals = Arrivals::default();
        let (mut doors, mut hosts_of) = (Doors::default(), Vec::new());
        let (tap, dns) = hosts.inside(|| {
            for &port in ports {
                let host = Arc::new(Mutex::new(Host::Greeter));
                doors.open(port, Arc::clone(&host), &arrivals);
                hosts_of.push((port, host));
            }
            for &address in &watched {
                udp_ports.iter().for_each(|&port| doors.open_udp((address, port).into(), &arrivals));
            }
            let at = both(RESOLVER).map(|address| SocketAddr::new(address, 53));
            let watched = watched.clone();
            let tap = Tap::start(move |to| watched.contains(&to) || HOSTS.map(nat64).contains(&to));
            (tap, Dns::start(&at))
        });
        for (name, host) in NAMES {
            dns.put(name, &both(host));
        }
        dns.put("four.protected.test", &[API.0.into()]);
        let alias = Name { cname: Some("api.protected.test".to_owned()), ttl: 60, ..Name::default() };
        dns.put_name("cname.test", alias);
        let net = Self {
            children: Mutex::default(),
            doors: Mutex::new(doors),
            hosts_of,
            arrivals,
            dns,
            tap,
            client,
            hosts,
            folder,
        };
        net.write("resolv.conf", &format!("nameserver {}\noptions timeout:2\n", RESOLVER.0));
        net.write("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\nservices: files\n");
        net.write("hosts", "127.0.0.1 localhost\n::1 localhost\n");
        net
    }

    /// A file of this world, which everybody may read.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.join(name);
        fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("mode");
        path
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Runs `work` in the session's network namespace; the sockets that it makes stay there.
    pub fn at_client<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.client.inside(work)
    }

    /// Runs `work` in the hosts' network namespace.
    pub fn at_hosts<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.hosts.inside(work)
    }

    /// Leads every host's NAT64 address to that host, where its doors take it for another address of theirs.
    pub fn with_nat64(self) -> Self {
        self.client.configure("route add 64:ff9b::/96 dev c0\n");
        let addresses = HOSTS.map(|host| format!("addr add {}/128 dev h0 nodad\n", nat64(host)));
        self.hosts.configure(&addresses.concat());
        self
    }

    /// An address that takes every packet and answers none.
    pub fn silent(&self) -> Ipv4Addr {
        let address = host(0x99).0;
        let nobody = "02:00:00:00:00:99";
        self.client.configure(&format!("neigh replace {address} lladdr {nobody} dev c0 nud permanent\n"));
        address
    }

    /// Puts something else behind a port.
    pub fn put(&self, port: u16, host: Host) {
        let door = self.hosts_of.iter().find(|(at, _)| *at == port).expect("one of PORTS");
        *door.1.lock().expect("nobody panics with it") = host;
    }

    /// Opens one more port at every host.
    pub fn open(&self, port: u16, host: Host) {
        self.hosts.inside(|| {
            let mut doors = self.doors.lock().expect("nobody panics with it");
            doors.open(port, Arc::new(Mutex::new(host)), &self.arrivals);
        });
    }

    /// What leads a command, run by root, into the session's side of this world.
    fn way_in(&self) -> Vec<OsString> {
        let net = format!("--net={}", self.client.path().display());
        let mut script = String::from("set -e\n");
        for name in ["resolv.conf", "nsswitch.conf", "hosts"] {
            script.push_str(&format!("mount --bind {}/{name} /etc/{name}\n", self.folder.display()));
        }
        script.push_str("exec \"$@\"");
        let mut words: Vec<OsString> =
            ["nsenter", &net, "--", "unshare", "--mount", "--", "/bin/sh", "-c"].map(OsString::from).into();
        words.extend([script.into(), "sh".into()]);
        words
    }

    /// What the clients need to trust the hosts, in `env(1)`'s form.
    fn trust(&self) -> Vec<OsString> {
        let bundle = servers::authority().join("ca.pem");
        let names = [
            "SSL_CERT_FILE",
            "CURL_CA_BUNDLE",
            "REQUESTS_CA_BUNDLE",
            "NODE_EXTRA_CA_CERTS",
            "GIT_SSL_CAINFO",
        ];
        names.iter().map(|name| assignment(name, &bundle)).collect()
    }

    /// The command with what it needs to trust the hosts.
    fn trusting<S: AsRef<OsStr>>(&self, command: &[S]) -> Vec<OsString> {
        let mut all = vec![OsString::from("/usr/bin/env")];
        all.extend(self.trust());
        all.extend(command.iter().map(|part| part.as_ref().to_owned()));
        all
    }

    /// `ana-run` in this world, not yet started: [`Ground::launch`], but for the network.
    pub fn launch<S: AsRef<OsStr>>(&self, ground: &Ground, command: &[S]) -> Launch {
        let mut launch = ground.launch(&self.trusting(command));
        let mut way = self.way_in();
        let run = launch.command();
        way.push(run.get_program().to_owned());
        way.extend(run.get_args().map(OsStr::to_owned));
        let mut entered = Command::new(&way[0]);
        entered.args(&way[1..]).current_dir(ground.home());
        entered.env(crate::ground::GROUND_VARIABLE, ground.root());
        *run = entered;
        launch
    }

    /// Starts a command in a session in this world.
    #[track_caller]
    pub fn start<S: AsRef<OsStr>>(&self, ground: &Ground, command: &[S]) -> Session {
        self.launch(ground, command).start()
    }

    /// The same command as the same user in the same world, but without ana.
    pub fn without_ana<S: AsRef<OsStr>>(&self, ground: &Ground, command: &[S]) -> Command {
        let way = self.way_in();
        let mut outside = Command::new(&way[0]);
        outside
            .args(&way[1..])
            .args(["setpriv", "--reuid", USER, "--regid", USER, "--clear-groups", "--"])
            .args(self.trusting(command))
            .env_clear()
            .envs(ground.environment())
            .current_dir(ground.home());
        outside
    }

    /// Runs a command to its end without ana.
    #[track_caller]
    pub fn run_without_ana<S: AsRef<OsStr>>(&self, ground: &Ground, command: &[S]) -> Finished {
        Session::of(self.without_ana(ground, command).stdin(Stdio::null())).finish()
    }

    /// Starts a server in the hosts' namespace; it ends with this world, and with the test's thread.
    fn server(&self, command: &mut Command) {
        let child = command.stdin(Stdio::null()).spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        self.children.lock().expect("nobody panics with it").push(child);
    }

    /// Waits until something accepts connections at this address of the hosts' namespace.
    fn wait_for(&self, at: SocketAddr) {
        self.hosts.inside(|| {
            wait::until(&format!("a server at {at}"), || std::net::TcpStream::connect(at).ok().map(drop));
        });
    }

    /// Every connection to a host so far, and every datagram that a host took.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.arrivals.all()
    }

    /// The connections to a host so far, by all of its addresses.
    pub fn arrivals_at(&self, host: (Ipv4Addr, Ipv6Addr)) -> Vec<Arrival> {
        self.arrivals().into_iter().filter(|arrival| is_at(host, arrival.to.ip())).collect()
    }

    /// Every packet to a host so far but ICMPv6, whatever its protocol: a host that has none has not seen a SYN.
    pub fn packets_to(&self, host: (Ipv4Addr, Ipv6Addr)) -> Vec<Packet> {
        self.flush();
        let neighbours = u8::try_from(libc::IPPROTO_ICMPV6).expect("a protocol is a byte");
        let all = self.tap.packets().into_iter();
        all.filter(|packet| is_at(host, packet.to) && packet.protocol != neighbours).collect()
    }

    /// Waits until everything that was sent before has been seen.
    fn flush(&self) {
        static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mark = format!("flush {count}");
        let to = (NAMELESS.0, 9);
        self.client.inside(|| {
            let socket = UdpSocket::bind((CLIENT.0, 0)).expect("a port");
            drop(socket.send_to(mark.as_bytes(), to));
            // The datagram may be refused (an earlier one was answered by ICMP), or lost behind a burst.
            wait::until("the cable shows what was sent", || {
                let seen = self.tap.packets().iter().any(|packet| packet.bytes.ends_with(mark.as_bytes()));
                if !seen {
                    drop(socket.send_to(mark.as_bytes(), to));
                }
                seen.then_some(())
            });
        });
    }

    /// Panics if anything at all was sent to the host.
    #[track_caller]
    pub fn assert_untouched(&self, host: (Ipv4Addr, Ipv6Addr)) {
        let packets: Vec<_> = self.packets_to(host).into_iter().filter(|packet| !is_mark(packet)).collect();
        assert!(packets.is_empty(), "sent to {}: {packets:?}", host.0);
    }
}

/// What [`Net::flush`] sends.
fn is_mark(packet: &Packet) -> bool {
    packet.port == 9 && packet.bytes.get(8..).is_some_and(|rest| rest.starts_with(b"flush "))
}

impl Drop for Net {
    fn drop(&mut self) {
        for child in self.children.get_mut().expect("nobody panics with it") {
            drop(child.kill());
            drop(child.wait());
        }
        let removed = fs::remove_dir_all(&self.folder);
        if !std::thread::panicking() {
            removed.unwrap_or_else(|e| panic!("{}: {e}", path_str(&self.folder)));
        }
    }
}
