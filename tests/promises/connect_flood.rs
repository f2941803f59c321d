//! An agent that floods the gate is refused half a million times and more; the supervisor goes on, the evidence stays small and
//! says how much it does not say, and the session ends when it is told to.

use std::time::{Duration, Instant};

use ana_tests::{Ground, Net, net::NAMELESS, wait};
use nix::sys::signal::Signal;

/// Two processes that send to ever other destinations, each this many datagrams; none leaves.
fn flood(each: &str) -> String {
    format!(
        "for k in 1 2; do python3 -c '\nimport socket, itertools, sys\ns = socket.socket(2, 2)\n\
         k = int(sys.argv[1])\nfor n in {each}:\n  try: s.sendto(b\"x\", (\"203.0.113.%d\" % (n & 255), \
         1000 + ((n >> 8) + k * 30000) % 60000)); print(\"sent\", flush=True)\n  except OSError: pass\n\
         print(\"refused\", n + 1, flush=True)' $k & pids=\"$pids $!\"; done"
    )
}

const EACH: u64 = 290_000;

#[test]
fn refusals_are_counted() {
    let (ground, net) = (Ground::new("flood"), Net::new("flood"));
    ground.connecting("[network]\ndefault = \"approve\"\n");
    let script = format!(
        "{}; slowest=0; for i in $(seq 40); do a=$(date +%s%N); getent ahostsv4 www.innocent.test > found || echo lost; \
         b=$(date +%s%N); [ $((b - a)) -gt $slowest ] && slowest=$((b - a)); sleep 0.1; done; \
         echo \"slowest $((slowest / 1000000))\"; wait $pids",
        flood(&format!("range({EACH})"))
    );
    let begun = Instant::now();
    let told = net.start(&ground, &["bash", "-c", &script]).finish_within(Duration::from_secs(120));
    let (took, out) = (begun.elapsed(), told.assert_code(0).stdout());
    assert_eq!(out.matches(&format!("refused {EACH}")).count(), 2, "{out}");
    assert!(!out.contains("sent") && !out.contains("lost"), "{out}");
    let slowest = out.lines().find_map(|line| line.strip_prefix("slowest ")?.parse::<u64>().ok());
    assert!(slowest.is_some_and(|slowest| slowest < 3000), "{out}");
    let recorded = ground.connections();
    assert!(recorded.iter().all(|record| record.denies()));
    let losses = ground.records_of("loss");
    println!("{took:?}, slowest {slowest:?}, {} records, {} notes of loss", recorded.len(), losses.len());
    for loss in &losses {
        println!("{}", loss.payload["detail"]);
    }
    let limit = 62 + took.as_secs() * 2;
    assert!((20..=limit).contains(&(recorded.len() as u64)), "{}", recorded.len());
    assert!(losses.len() as u64 <= 2 + took.as_secs() / 10, "{}", losses.len());
    let counted: u64 = losses.iter().filter_map(|loss| loss.payload["detail"]["count"].as_u64()).sum();
    // Which of the kernel's counters was interrupted is not known, and the same refusal again is one.
    let all = counted + recorded.len() as u64;
    assert!((EACH * 2 * 9 / 10..=EACH * 2).contains(&all), "{all}");
    ground.verify();
}

#[test]
fn a_session_ends_in_the_middle_of_a_flood() {
    let (ground, net) = (Ground::new("flood-end"), Net::new("flood-end"));
    ground.connecting("[network]\ndefault = \"approve\"\n");
    let script = format!("{}; sleep 4; echo flooding; wait", flood("itertools.count()"));
    let session = net.start(&ground, &["bash", "-c", &script]);
    session.until_stdout("flooding");
    let begun = Instant::now();
    session.signal(Signal::SIGTERM);
    session.finish_within(Duration::from_secs(20));
    wait::until("the end is written down", || ground.records_of("session-end").pop());
    println!("ended after {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(!ground.records_of("loss").is_empty());
    ground.verify();
}

/// A question to a server that may not be asked goes nowhere, and that is written down.
#[test]
fn dns_to_any_other_server_is_a_refusal() {
    let (ground, net) = (Ground::new("flood-dns"), Net::new("flood-dns"));
    ground.connecting("[network]\ndefault = \"approve\"\n");
    // It keeps the socket: of a closed one nobody knows any more whom it asked.
    let script = "import socket, sys\ns = socket.socket(2, 2)\nfor n in range(300): s.sendto(b\"x\" * 40, (\"192.0.2.40\", 53))\n\
         print(\"sent\", flush=True); sys.stdin.read()";
    let mut session = net.launch(&ground, &["python3", "-c", script]).start_listening();
    session.until_stdout("sent");
    wait::until("the refusal is written down", || (!ground.connections().is_empty()).then_some(()));
    session.hush();
    session.finish().assert_code(0);
    let recorded = ground.connections();
    assert_eq!(recorded.len(), 1, "{recorded:#?}");
    let connect = recorded[0].connect();
    assert!(recorded[0].denies(), "{connect}");
    assert_eq!((&connect["address"], &connect["port"]), (&"192.0.2.40".into(), &53.into()));
    assert_eq!(connect["transport"], "udp", "{connect}");
    net.assert_untouched(NAMELESS);
    ground.verify();
}
