//! What is sent without a connection, and with other protocols: nothing of it reaches a protected host.

use ana_tests::{
    Ground, Net,
    attempt::{assert_all, assert_none_granted, attempts},
    machine::{machine, path_str},
    net::{API, INNOCENT},
};

/// Reach the host for whoever is not in a session.
const WAYS: [&str; 5] = ["udp", "connected", "sendmmsg", "unspec", "lite"];
/// Sockets that nobody gets in a session; the kernel of a test may not have them, and a user may not get them anyway.
const SOCKETS: [&str; 5] = ["sctp", "dccp", "raw", "raw-tcp", "packet"];

fn command() -> Vec<String> {
    let program = machine().program("attack-net-datagram");
    let mut script = String::new();
    for way in WAYS.into_iter().chain(SOCKETS) {
        script.push_str(&format!("{} {way} 192.0.2.10 7777 192.0.2.20\n", path_str(&program)));
    }
    ["bash", "-c", &script].map(str::to_owned).into()
}

#[test]
fn datagrams_without_ana() {
    let (ground, net) = (Ground::bare("datagram-bare"), Net::new("datagram-bare"));
    let told = net.run_without_ana(&ground, &command()).assert_code(0).stdout();
    let lite = libc::IPPROTO_UDPLITE;
    if attempts(&told).get("lite").is_some_and(|word| word != "ok") {
        ana_tests::skip::skipped("datagrams_without_ana", "no UDP-Lite in this kernel");
    } else {
        assert!(net.packets_to(API).iter().any(|packet| i32::from(packet.protocol) == lite), "{told}");
    }
    assert_all(&told, &WAYS[..4], "ok");
    assert_eq!(net.arrivals_at(API).len(), 4);
}

#[test]
fn datagrams() {
    let (ground, net) = (Ground::new("datagram"), Net::new("datagram"));
    ground.connecting("[[connect]]\nname = \"api\"\nhost = [\"api.protected.test\"]\n");
    let told = net.start(&ground, &command()).finish().assert_code(0).stdout();
    assert_none_granted(&told, &WAYS);
    assert_none_granted(&told, &SOCKETS);
    // At once, so that a program can try something else.
    assert_all(&told, &["udp", "connected", "unspec"], "EPERM");
    net.assert_untouched(API);
    // The one of two messages that goes to nobody's host.
    assert_eq!(net.arrivals_at(INNOCENT).len(), 1, "{:?}", net.arrivals());
    ground.assert_nothing_pending();
    ground.verify();
}
