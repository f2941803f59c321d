//! Services of this machine: what the session itself listens on is its own, anything else is asked about once.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use ana_tests::{Ground, Net, net::CLIENT, wait};

/// A service outside of the session, on the session's own side: it says `outside` to whoever comes, and counts them.
struct Outside {
    address: SocketAddr,
    visitors: Arc<AtomicUsize>,
    listener: Arc<TcpListener>,
}

impl Outside {
    fn new(net: &Net, at: IpAddr) -> Self {
        let listener = Arc::new(net.at_client(|| TcpListener::bind((at, 0))).expect("a free port"));
        let (address, visitors) = (listener.local_addr().expect("bound"), Arc::new(AtomicUsize::new(0)));
        let (door, counted) = (Arc::clone(&listener), Arc::clone(&visitors));
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = door.accept() {
                counted.fetch_add(1, Ordering::SeqCst);
                drop(stream.write_all(b"outside\n"));
                drop(stream.read(&mut [0; 16]));
            }
        });
        Self { address, visitors, listener }
    }

    fn visitors(&self) -> usize {
        self.visitors.load(Ordering::SeqCst)
    }

    /// What a session does to talk to it.
    fn call(&self) -> String {
        call(self.address)
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        use std::os::fd::AsRawFd;
        nix::sys::socket::shutdown(self.listener.as_raw_fd(), nix::sys::socket::Shutdown::Both).ok();
    }
}

/// Prints what the service says, or that it was refused.
fn call(at: SocketAddr) -> String {
    format!(
        "(exec 3<>/dev/tcp/{}/{} && read -r -t 20 line <&3 && echo \"heard $line\" || echo refused) 2>>call.err\n",
        at.ip(),
        at.port()
    )
}

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A listener of the session's own, on every kind of address.
const OWN: &str = "python3 -c '\nimport socket, threading\n\
     def serve(s):\n  while True:\n    c = s.accept()[0]; c.sendall(b\"own\\n\"); c.close()\n\
     for family, at in ((2, \"127.0.0.1\"), (10, \"::1\"), (2, \"192.0.2.1\")):\n\
     \x20 s = socket.socket(family); s.setsockopt(1, 2, 1); s.bind((at, 8123)); s.listen()\n\
     \x20 threading.Thread(target=serve, args=(s,), daemon=True).start()\n\
     print(\"listening\", flush=True); threading.Event().wait()' > own.out & own=$!\n\
     until grep -q listening own.out; do sleep 0.05; done\n\
     for host in 127.0.0.1 ::1 192.0.2.1; do (exec 3<>/dev/tcp/$host/8123; read -r line <&3; echo \"heard $line\"); done\n\
     kill $own\n";

/// Its own passes unasked; the other one is held once for each listener, and the prompt names its program.
#[test]
fn a_service_outside_is_held_once() {
    let (ground, net) = (Ground::new("local"), Net::new("local"));
    ground.connecting("[network]\nloopback = \"approve\"\n");
    let (first, second) = (Outside::new(&net, LOCALHOST), Outside::new(&net, CLIENT.0.into()));
    let script = format!("{OWN}{}{}{}read line; true", first.call(), first.call(), second.call());
    let mut session = net.launch(&ground, &["bash", "-c", &script]).start_listening();
    let question = ground.question_of(&mut session);
    assert_eq!(question.rule, "builtin:local-services", "{question:#?}");
    assert_eq!(session.stdout().matches("heard own").count(), 3, "{}", session.stderr());
    let listener = &question.connect()["listener"];
    let exe = std::fs::read_link("/proc/self/exe").expect("this program has a file");
    let name = exe.file_name().expect("a file").to_str().expect("UTF-8");
    let program = listener["program"]["text"].as_str().unwrap_or_default();
    assert!(program.ends_with(name), "{listener}");
    assert_eq!(listener["pid"], std::process::id());
    assert_eq!(listener["uid"], 0);
    assert_eq!(first.visitors(), 0);
    ground.approve(&question.id);
    let question = wait::until("the second service is asked about", || {
        let mut all = ground.pending(1);
        (!all.is_empty()).then(|| all.remove(0))
    });
    assert_eq!(session.stdout().matches("heard outside").count(), 2, "the first is known");
    assert_eq!((first.visitors(), second.visitors()), (2, 0));
    assert_eq!(question.connect()["address"], "192.0.2.1");
    ground.deny(&question.id, "not this one");
    session.hush();
    let told = session.finish().assert_code(0).stdout();
    assert_eq!(told.matches("heard outside").count(), 2, "{told}");
    assert_eq!(second.visitors(), 0);
    ground.verify();
}

/// Every spelling of the same listener.
fn spellings(outside: &Outside) -> String {
    let port = outside.address.port();
    let hosts = [
        "127.0.0.1",
        "127.1.2.3",
        "0.0.0.0",
        "0.0.0.1",
        "::ffff:127.0.0.1",
        "localhost",
        "192.0.2.1",
        "::1",
        "::",
    ];
    hosts
        .iter()
        .map(|host| {
            format!(
                "(exec 3<>/dev/tcp/{host}/{port} && read -r -t 20 line <&3 && echo \"heard $line\" || echo refused) 2>/dev/null\n"
            )
        })
        .collect()
}

#[test]
fn none_is_reached_where_they_are_denied() {
    let (ground, net) = (Ground::new("local-deny"), Net::new("local-deny"));
    ground.connecting("[network]\nloopback = \"deny\"\n");
    let outside = Outside::new(&net, Ipv6Addr::UNSPECIFIED.into());
    let script = format!("{OWN}{}", spellings(&outside));
    let told = net.start(&ground, &["bash", "-c", &script]).finish().assert_code(0).stdout();
    assert_eq!(told.matches("heard own").count(), 3, "{told}");
    assert!(!told.contains("heard outside"), "{told}");
    assert_eq!(outside.visitors(), 0);
    ground.verify();
}

#[test]
fn all_are_reached_where_any_is_allowed() {
    let (ground, net) = (Ground::new("local-any"), Net::new("local-any"));
    ground.connecting("[network]\nloopback = \"any\"\n");
    let outside = Outside::new(&net, Ipv6Addr::UNSPECIFIED.into());
    let told = net.start(&ground, &["bash", "-c", &spellings(&outside)]).finish().assert_code(0).stdout();
    assert!(told.matches("heard outside").count() >= 5, "{told}");
    assert!(ground.connections().is_empty());
    ground.verify();
}

/// Nobody listens: that is what the program is told, and nobody is asked.
#[test]
fn a_port_without_a_listener_is_refused() {
    let (ground, net) = (Ground::new("local-none"), Net::new("local-none"));
    ground.connecting("[network]\nloopback = \"approve\"\n");
    let script = "for host in 127.0.0.1 ::1 192.0.2.1; do bash -c \"exec 3<>/dev/tcp/$host/9\"; done; true";
    let told = net.start(&ground, &["bash", "-c", script]).finish().assert_code(0).stderr();
    let refused = |host: &str| told.contains(&format!("/dev/tcp/{host}/9: Connection refused"));
    assert!(["127.0.0.1", "::1", "192.0.2.1"].into_iter().all(refused), "{told}");
    assert!(ground.connections().is_empty());
}

#[test]
fn every_spelling_without_ana() {
    let (ground, net) = (Ground::bare("local-bare"), Net::new("local-bare"));
    let outside = Outside::new(&net, Ipv6Addr::UNSPECIFIED.into());
    let script = format!("{OWN}{}", spellings(&outside));
    let told = net.run_without_ana(&ground, &["bash", "-c", &script]).assert_code(0).stdout();
    assert_eq!(told.matches("heard own").count(), 3, "{told}");
    assert!(told.matches("heard outside").count() >= 5, "{told}");
}
