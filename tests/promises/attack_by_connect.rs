//! Ways to connect to a protected host that are not connect(2) with its address as everybody writes it: none reaches it, and
//! each does without ana.

use ana_tests::{
    Ground, Net,
    attempt::{assert_all, assert_none_granted},
    machine::{machine, path_str},
    net::{API, INNOCENT, NAMELESS, nat64},
};

/// The host is protected by its name; the attacks only use its address. Addresses alone are protected as well.
const POLICY: &str = "[[connect]]\nname = \"api\"\nhost = [\"api.protected.test\"]\nverdict = \"deny\"\n\
     [[connect]]\nname = \"machine\"\ncidr = [\"192.0.2.40\", \"2001:db8::40\"]\nverdict = \"deny\"\n";

fn program(name: &str) -> String {
    path_str(&machine().program(&format!("attack-net-{name}"))).to_owned()
}

const WAYS: [&str; 8] =
    ["plain", "mapped", "fastopen", "fastopen-connect", "mptcp", "bound", "unspec", "blocking-not"];

/// All of them, one after another, to an address without a name; and to the named host, over IPv6.
fn ways() -> Vec<String> {
    let connect = program("connect");
    let mut script = String::new();
    for way in WAYS {
        script.push_str(&format!("{connect} {way} 192.0.2.40 7777 192.0.2.20\n"));
    }
    script.push_str(&format!("{connect} six 2001:db8::10 7777\n{connect} literal 192.0.2.10 7777\n"));
    script.push_str(&format!("{} 192.0.2.10 7777\n", program("uring")));
    ["bash", "-c", &script].map(str::to_owned).into()
}

fn names() -> Vec<&'static str> {
    WAYS.into_iter().chain(["six", "literal", "uring"]).collect()
}

#[test]
fn many_ways_without_ana() {
    let (ground, net) = (Ground::bare("ways-bare"), Net::new("ways-bare"));
    let told = net.run_without_ana(&ground, &ways()).assert_code(0).stdout();
    assert_all(&told, &names(), "ok");
    assert_eq!(net.arrivals_at(API).len(), 3);
    assert_eq!(net.arrivals_at(NAMELESS).len(), WAYS.len());
}

/// With io_uring switched on: its connect is one as well.
#[test]
fn many_ways() {
    let (ground, net) = (Ground::new("ways"), Net::new("ways"));
    ground.connecting(&format!("[session]\nio_uring = true\n{POLICY}"));
    let told = net.start(&ground, &ways()).finish().assert_code(0).stdout();
    assert_none_granted(&told, &names());
    net.assert_untouched(API);
    net.assert_untouched(NAMELESS);
    // Those that are unprotected are not: the attack that began there was answered.
    assert!(!net.packets_to(INNOCENT).is_empty());
    // Each of them is in the evidence; a protocol that is no TCP is a refusal of another kind.
    assert!(ground.connections().len() >= names().len() - 1, "{:#?}", ground.connections());
    ground.verify();
}

/// The NAT64 addresses of both hosts, by TCP and UDP, and of one that nobody protects.
fn behind_a_gateway() -> Vec<String> {
    let (connect, datagram) = (program("connect"), program("datagram"));
    let (named, nameless, innocent) = (nat64(API), nat64(NAMELESS), nat64(INNOCENT));
    let script = format!(
        "{connect} by-name {named} 7777; {connect} by-name-inspected {named} 80; {connect} by-address {nameless} 7777; \
         {datagram} udp {nameless} 7777; {connect} unprotected {innocent} 7777"
    );
    ["bash", "-c", &script].map(str::to_owned).into()
}

const BEHIND: [&str; 3] = ["by-name", "by-name-inspected", "by-address"];

#[test]
fn a_gateway_without_ana() {
    let (ground, net) = (Ground::bare("nat64-bare"), Net::new("nat64-bare").with_nat64());
    let told = net.run_without_ana(&ground, &behind_a_gateway()).assert_code(0).stdout();
    assert_all(&told, &BEHIND, "ok");
    assert_all(&told, &["unprotected"], "ok");
    assert_eq!((net.arrivals_at(API).len(), net.arrivals_at(NAMELESS).len()), (2, 1));
    let is_datagram = |packet: &ana_tests::net::Packet| i32::from(packet.protocol) == libc::IPPROTO_UDP;
    assert!(net.packets_to(NAMELESS).iter().any(is_datagram), "{told}");
}

/// Whoever goes around by the network's gateway goes to the same host.
#[test]
fn a_gateway() {
    let (ground, net) = (Ground::new("nat64"), Net::new("nat64").with_nat64());
    ground.connecting(POLICY);
    let told = net.start(&ground, &behind_a_gateway()).finish().assert_code(0).stdout();
    assert_none_granted(&told, &BEHIND);
    assert_all(&told, &["udp"], "EPERM");
    assert_all(&told, &["unprotected"], "ok");
    net.assert_untouched(API);
    net.assert_untouched(NAMELESS);
    let denied = ground.connections();
    let at = |address: &str| denied.iter().filter(|record| record.connect()["address"] == address).count();
    assert_eq!((at("192.0.2.10"), at("192.0.2.40")), (2, 2), "{denied:#?}");
    assert!(denied.iter().all(|record| record.payload["rule"] != "builtin:network"), "{denied:#?}");
    ground.verify();
}

/// Approved, it goes by the gateway, as it wanted to.
#[test]
fn a_gateway_that_is_approved() {
    let (ground, net) = (Ground::new("nat64-approved"), Net::new("nat64-approved").with_nat64());
    ground.protecting_api();
    let command = [program("connect"), "by-name".into(), nat64(API).to_string(), "7777".into()];
    let mut session = net.start(&ground, &command);
    let question = net.held(&ground, &mut session, 1, API).remove(0);
    assert_eq!(question.connect()["address"], "192.0.2.10", "{question:#?}");
    ground.approve(&question.id);
    assert_all(&session.finish().assert_code(0).stdout(), &["by-name"], "ok");
    let arrivals = net.arrivals();
    assert!(arrivals.len() == 1 && arrivals[0].to.ip() == nat64(API), "{arrivals:?}");
    ground.verify();
}

/// Races of the address and of the source port, both to ports where names are looked at.
fn racing() -> Vec<String> {
    let connect = program("connect");
    let script = format!("{connect} swap 192.0.2.10 80 192.0.2.20; {connect} reuse 192.0.2.10 80 192.0.2.20");
    ["bash", "-c", &script].map(str::to_owned).into()
}

#[test]
fn races_without_ana() {
    let (ground, net) = (Ground::bare("races-bare"), Net::new("races-bare"));
    net.run_without_ana(&ground, &racing()).assert_code(0).assert_stdout("of 90");
    for words in [b"attack swap".as_slice(), b"attack reuse"] {
        let reached = net.arrivals_at(API).iter().filter(|arrival| arrival.first == words).count();
        assert!(reached > 0, "{words:?} never reached the host");
    }
}

/// Whoever keeps what a connection is for by its address, or reads the address twice, mixes them up.
#[test]
fn races() {
    let (ground, net) = (Ground::new("races"), Net::new("races"));
    ground.connecting(POLICY);
    let finished = net.start(&ground, &racing()).finish_within(std::time::Duration::from_secs(90));
    let told = finished.assert_code(0).stdout();
    net.assert_untouched(API);
    let arrivals = net.arrivals_at(INNOCENT);
    for words in [b"attack swap".as_slice(), b"attack other"] {
        let reached = arrivals.iter().filter(|arrival| arrival.first == words).count();
        assert!(reached > 3, "{reached} reached the innocent host: {told}");
    }
    assert!(arrivals.iter().all(|arrival| arrival.first != b"attack reuse"), "words for the other host");
    ground.verify();
}
