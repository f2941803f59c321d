//! What is written down of a connection; and when there is a gate for connections at all, and what is left of it when its
//! keepers die.

use std::{fs, path::Path, time::Duration};

use ana_tests::{
    Ground, Net, answers::Answer, machine::which, net::API, processes, records, skip::skipped, wait,
};
use nix::sys::signal::{Signal, kill};

/// Destination, name, program, who asked; and how much went each way.
#[test]
fn what_is_written_down() {
    if which("node").is_none() {
        return skipped("what_is_written_down", "no node to serve TLS");
    }
    let (ground, net) = (Ground::new("evidence-net"), Net::new("evidence-net"));
    net.web();
    ground.protecting_api();
    let command = ["curl", "-sS", "-4", "--data-binary", "@body", "https://api.protected.test/posted"];
    ground.write_home("body", 0o644, &"x".repeat(50_000));
    let mut session = net.start(&ground, &command);
    let question = net.held(&ground, &mut session, 1, API).remove(0);
    ground.approve(&question.id);
    session.finish().assert_code(0).assert_stdout("/posted 50000");
    let decision = ground.connections().remove(0);
    assert_eq!(decision.id(), question.id);
    let connect = decision.connect();
    let expected = serde_json::json!({"address": "192.0.2.10", "port": 443, "transport": "tcp", "tls": true,
        "name": "api.protected.test", "name_source": "sni", "confirmed": true});
    for (key, value) in expected.as_object().expect("an object") {
        assert_eq!(&connect[key], value, "{key} in {connect}");
    }
    assert!(connect["alpn"].to_string().contains("h2"), "{connect}");
    let argv = ana_tests::answers::words(connect);
    assert!(argv.iter().any(|word| word == b"https://api.protected.test/posted"), "{connect}");
    assert_eq!(connect.get("encrypted_hello"), None, "{connect}");
    assert_eq!(connect["program"]["path"]["text"], "/usr/bin/curl", "{connect}");
    assert_eq!(connect["program"]["sha256"].as_str().map(str::len), Some(43), "{connect}");
    let requester = &decision.payload["operation"]["requester"];
    assert!(requester["ancestry"].is_array() && requester["pid"].is_u64(), "{requester}");
    let outcome = wait::until("the connection's end is written down", || ground.records_of("outcome").pop());
    let number = |key: &str| {
        outcome.payload["detail"][key].as_u64().unwrap_or_else(|| panic!("no {key}: {outcome:?}"))
    };
    assert!((50_000..80_000).contains(&number("bytes_sent")), "{}", outcome.payload);
    assert!((100..20_000).contains(&number("bytes_received")), "{}", outcome.payload);
    assert!(number("milliseconds") < 30_000, "{}", outcome.payload);
    ground.verify();
}

/// The pins of a session that belong to the gate of connections.
fn net_pins(ground: &Ground) -> Vec<String> {
    let id = records::session_ids(&ground.state()).pop().expect("a session");
    let mut found = Vec::new();
    let mut next = vec![Path::new("/sys/fs/bpf").to_owned()];
    while let Some(folder) = next.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                next.push(path);
            } else if path.to_string_lossy().contains(&id) {
                found.extend(entry.file_name().into_string());
            }
        }
    }
    found.retain(|name| name.starts_with("net-"));
    found
}

/// A policy without `[network]` and `[[connect]]` attaches nothing, and a connection is what it is without ana.
#[test]
fn without_rules_nothing_is_attached() {
    let (ground, net) = (Ground::new("no-gate"), Net::new("no-gate"));
    let script = "curl -sS http://api.protected.test/free; echo done; read line";
    let mut session = net.launch(&ground, &["bash", "-c", script]).start_listening();
    session.until_stdout("1.1 api.protected.test /free\ndone");
    assert_eq!(net_pins(&ground), Vec::<String>::new());
    session.hush();
    session.finish();
    assert!(ground.decisions().is_empty());
    // The same with rules: the names are those that were looked for.
    ground.protecting_api();
    let mut session = net.launch(&ground, &["bash", "-c", "echo begun; read line"]).start_listening();
    session.until_stdout("begun");
    assert!(!net_pins(&ground).is_empty());
    session.hush();
    session.finish();
}

/// Connects again and again, and says how that ended.
const TRIES: &str = "
import errno, socket, sys, time
while True:
    try:
        with socket.create_connection(('192.0.2.10', 80), 5) as s:
            s.sendall(b'GET /try HTTP/1.1\\r\\nHost: api.protected.test\\r\\n\\r\\n')
            print('said', s.recv(16), flush=True)
    except OSError as error:
        print(errno.errorcode.get(error.errno, error), flush=True)
    time.sleep(0.01)
";

/// Whoever would have to decide is dead, and those who end the tree are kept from it: nothing is let through.
#[test]
fn a_dead_supervisor_lets_nothing_through() {
    let (ground, net) = (Ground::new("net-death"), Net::new("net-death"));
    ground.connecting("[[connect]]\nname = \"api\"\nhost = [\"api.protected.test\"]\nverdict = \"allow\"\n");
    let session = net.start(&ground, &["python3", "-c", TRIES]);
    session.until_stdout("said b'HTTP/1.1 200 OK");
    let stopped = session.wardens();
    let supervisor = session.supervisor();
    let send = |pid: i32, signal: Signal| kill(nix::unistd::Pid::from_raw(pid), signal).expect("it is there");
    // ana-run and the wardens would end the tree at once.
    session.signal(Signal::SIGSTOP);
    stopped.iter().for_each(|&pid| send(pid, Signal::SIGSTOP));
    processes::end(supervisor);
    wait::until("the supervisor is dead", || (!processes::alive(supervisor)).then_some(()));
    let before = net.arrivals_at(API).len();
    // The session may be ended by its leader before it has tried once more.
    let refused =
        wait::poll(Duration::from_secs(3), || session.stdout().contains("ECONNREFUSED").then_some(()));
    println!("seen after the supervisor's death: {refused:?}");
    // One connection may have been on its way.
    assert!(net.arrivals_at(API).len() <= before + 1, "{:?}", net.arrivals_at(API));
    stopped
        .iter()
        .for_each(|&pid| kill(nix::unistd::Pid::from_raw(pid), Signal::SIGCONT).unwrap_or_default());
    session.signal(Signal::SIGCONT);
    assert_ne!(session.finish().code(), 0);
    let id = records::session_ids(&ground.state()).pop().expect("a session");
    wait::until("nothing of the session lives", || {
        let inside = |pid: &i32| processes::cgroup(*pid).is_some_and(|path| path.contains(&id));
        processes::all().into_iter().find(|pid| inside(pid) && processes::alive(*pid)).is_none().then_some(())
    });
    // The next start accounts for it.
    ground.run(&["true"]).assert_code(0);
    ground.verify();
}

/// Killed while a connection waits: the host never hears of it.
#[test]
fn a_held_connection_dies_with_its_supervisor() {
    let (ground, net) = (Ground::new("net-death-held"), Net::new("net-death-held"));
    ground.protecting_api();
    let mut session = net.start(&ground, &["curl", "-sS", "http://api.protected.test/held"]);
    net.held(&ground, &mut session, 1, API);
    processes::end(session.supervisor());
    assert_ne!(session.finish().code(), 0);
    net.assert_untouched(API);
}

/// What the session's programs see: the address that they asked for, and their own.
#[test]
fn a_socket_shows_the_address_that_was_asked_for() {
    let (ground, net) = (Ground::new("peername"), Net::new("peername"));
    let program = "import socket
for host in ('192.0.2.10', '2001:db8::10'):
    with socket.create_connection((host, 80)) as s:
        s.sendall(b'GET / HTTP/1.1\\r\\nHost: api.protected.test\\r\\n\\r\\n'); s.recv(16)
        print(s.getpeername()[:2])
";
    ground.connecting("[[connect]]\nname = \"api\"\nhost = [\"api.protected.test\"]\n");
    let bare = net.run_without_ana(&ground, &["python3", "-c", program]).assert_code(0).stdout();
    let session = net.start(&ground, &["python3", "-c", program]);
    let (finished, questions) = ground.answered(session, Answer::Approve, Duration::from_secs(30));
    assert_eq!(finished.assert_code(0).stdout(), bare);
    assert_eq!(questions.len(), 2);
    ground.verify();
}
