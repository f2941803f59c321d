//! TCP to other hosts: listed ports and networks are redirected, the rest passes.

use ana_common::network::{
    NETWORK_CAPTURE_ALL, NETWORK_DNS, NETWORK_DOT_REFUSED, NETWORK_NO_ROUTE4, NETWORK_NO_ROUTE6, ORIGIN_DNS,
};

use super::super::super::network::RefusalReason;
use super::ground::{Ground, PROXY};

const OUTER4: &str = "192.0.2.7";
const OUTER6: &str = "2001:db8::7";

#[test]
fn a_port_on_which_names_are_inspected_is_redirected_and_no_other() {
    let mut ground = Ground::new(0);
    ground.maps.inspect(443).unwrap();
    ground.redirected(OUTER4, 443, "192.0.2.7:443", 0);
    ground.redirected(OUTER6, 443, "[2001:db8::7]:443", 0);
    ground.redirected("::ffff:192.0.2.7", 443, "192.0.2.7:443", 0);
    for host in [OUTER4, OUTER6] {
        ground.direct(host, 444);
        // Unlisted, and nobody listens: as without the gate.
        ground.agent.says(&format!("connect('s', '{host}', 9)"), "ECONNREFUSED");
    }
    ground.assert_silent();
    assert!(ground.maps.health().unwrap().is_clean());
}

#[test]
fn a_protected_network_is_redirected_on_the_ports_of_its_set() {
    let mut ground = Ground::new(0);
    ground.maps.port_set(1, 22).unwrap();
    ground.maps.port_set(1, 443).unwrap();
    ground.maps.port_set(2, 0).unwrap();
    for (network, prefix, set) in
        [("192.0.2.0", 29, 1), ("192.0.2.8", 32, 2), ("2001:db8::", 125, 1), ("2001:db8::8", 128, 2)]
    {
        ground.maps.protect(network.parse().unwrap(), prefix, set).unwrap();
    }
    for (host, written) in [(OUTER4, "192.0.2.7"), (OUTER6, "[2001:db8::7]")] {
        ground.redirected(host, 22, &format!("{written}:22"), 0);
        ground.redirected(host, 443, &format!("{written}:443"), 0);
        ground.direct(host, 444);
    }
    ground.redirected("192.0.2.8", 5555, "192.0.2.8:5555", 0);
    ground.redirected("::ffff:192.0.2.8", 5555, "192.0.2.8:5555", 0);
    ground.redirected("2001:db8::8", 5555, "[2001:db8::8]:5555", 0);
    ground.direct("192.0.2.100", 22);

    ground.maps.unprotect("192.0.2.8".parse().unwrap(), 32).unwrap();
    ground.maps.unprotect("192.0.2.0".parse().unwrap(), 29).unwrap();
    ground.maps.unprotect("192.0.2.0".parse().unwrap(), 29).expect("gone already");
    ground.direct("192.0.2.8", 5555);
    ground.direct(OUTER4, 22);
    // A mapped network is the IPv4 one.
    ground.maps.protect("::ffff:192.0.2.8".parse().unwrap(), 128, 2).unwrap();
    ground.redirected("192.0.2.8", 5555, "192.0.2.8:5555", 0);
    assert!(ground.maps.protect("192.0.2.8".parse().unwrap(), 33, 2).is_err());
}

#[test]
fn an_ipv4_host_behind_nat64_is_that_host() {
    let mut ground = Ground::new(0);
    ground.maps.port_set(2, 0).unwrap();
    ground.maps.protect("192.0.2.8".parse().unwrap(), 32, 2).unwrap();
    ground.redirected("64:ff9b::c000:208", 22, "[64:ff9b::c000:208]:22", 0);
}

#[test]
fn where_all_is_captured_all_is_redirected() {
    let mut ground = Ground::new(NETWORK_CAPTURE_ALL);
    ground.redirected(OUTER4, 9, "192.0.2.7:9", 0);
    ground.redirected(OUTER6, 9, "[2001:db8::7]:9", 0);
}

#[test]
fn name_servers_are_redirected_and_encrypted_ones_refused() {
    let mut ground = Ground::new(NETWORK_DNS | NETWORK_DOT_REFUSED);
    ground.redirected(OUTER4, 53, "192.0.2.7:53", ORIGIN_DNS);
    ground.redirected(OUTER6, 53, "[2001:db8::7]:53", ORIGIN_DNS);
    ground.redirected("127.0.0.53", 53, "127.0.0.53:53", ORIGIN_DNS);
    for (host, written) in [(OUTER4, "192.0.2.7"), (OUTER6, "[2001:db8::7]")] {
        ground.agent.says(&format!("connect('s', '{host}', 853)"), "EPERM");
        ground.assert_refused(RefusalReason::EncryptedDns, &format!("{written}:853"));
    }
}

#[test]
fn the_proxy_itself_cannot_be_reached() {
    let mut ground = Ground::new(0);
    for (host, written) in [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("::1", "[::1]"),
        ("::", "[::1]"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("::ffff:0.0.0.0", "127.0.0.1"),
    ] {
        for connect in ["connect", "udp"] {
            ground.agent.says(&format!("{connect}('s', '{host}', {PROXY})"), "EPERM");
            ground.assert_refused(RefusalReason::Proxy, &format!("{written}:{PROXY}"));
        }
        ground.agent.says(&format!("make('u', '{host}', socket.SOCK_DGRAM) and 1"), "1");
        ground.agent.says(&format!("send('u', b'x', ('{host}', {PROXY}))"), "EPERM");
        ground.assert_refused(RefusalReason::Proxy, &format!("{written}:{PROXY}"));
    }
    ground.outside.says("waits('proxy4'), waits('proxy6')", "(0, 0)");
}

#[test]
fn without_a_proxy_what_would_be_redirected_is_refused() {
    let mut ground = Ground::new(0);
    ground.maps.configure(ana_common::network::Network::default()).unwrap();
    ground.maps.inspect(443).unwrap();
    ground.agent.says("connect('s', '192.0.2.7', 443)", "EPERM");
    ground.assert_refused(RefusalReason::Full, "192.0.2.7:443");
    ground.agent.says("connect('s', '2001:db8::7', 443)", "EPERM");
    ground.assert_refused(RefusalReason::Full, "[2001:db8::7]:443");
    ground.direct(OUTER4, 444);
}

/// The proxy is dead: its port is closed, the programs stay.
#[test]
fn a_dead_proxy_is_a_refused_connection() {
    let mut ground = Ground::new(0);
    ground.maps.inspect(443).unwrap();
    ground.outside.says("close('proxy4'), close('proxy6')", "(None, None)");
    ground.agent.says("connect('s', '192.0.2.7', 443)", "ECONNREFUSED");
    ground.agent.says("connect('s', '2001:db8::7', 443)", "ECONNREFUSED");
}

#[test]
fn where_there_is_no_route_the_client_hears_of_it() {
    let mut ground = Ground::new(NETWORK_NO_ROUTE6);
    ground.maps.inspect(443).unwrap();
    ground.agent.says("connect('s', '2001:db8::7', 443)", "ENETUNREACH");
    ground.redirected(OUTER4, 443, "192.0.2.7:443", 0);
    ground.redirected("::ffff:192.0.2.7", 443, "192.0.2.7:443", 0);
    let network = ana_common::network::Network { proxy_port: PROXY.into(), flags: NETWORK_NO_ROUTE4 };
    ground.maps.configure(network).unwrap();
    ground.agent.says("connect('s', '192.0.2.7', 443)", "ENETUNREACH");
    ground.redirected(OUTER6, 443, "[2001:db8::7]:443", 0);
}

#[test]
fn a_device_does_not_lead_around_the_proxy() {
    let mut ground = Ground::new(0);
    ground.maps.inspect(443).unwrap();
    ground
        .agent
        .says("make('s', '1.1.1.1').setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'lo')", "None");
    ground.agent.says("again('s', '192.0.2.7', 443)", "EPERM");
    ground.assert_refused(RefusalReason::Device, "192.0.2.7:443");
}

#[test]
fn fast_open_is_a_connect() {
    let mut ground = Ground::new(0);
    ground.maps.inspect(443).unwrap();
    ground.outside.says("run('echo 3 > /proc/sys/net/ipv4/tcp_fastopen')", "0");
    for (host, family, written) in [(OUTER4, '4', "192.0.2.7:443"), (OUTER6, '6', "[2001:db8::7]:443")] {
        for _ in 0..2 {
            ground.agent.says(&format!("make('s', '{host}').settimeout(None)"), "None");
            ground.agent.says(&format!("send('s', b'hello', FASTOPEN, ('{host}', 443))"), "ok");
            let (_, origin) = ground.accepted(family);
            assert_eq!(origin.unwrap().destination.socket_address().to_string(), written);
            ground.outside.says("S['held'].recv(5)", "b'hello'");
        }
    }
}

#[test]
fn a_socket_that_connects_again_is_judged_again() {
    let mut ground = Ground::new(0);
    ground.maps.inspect(443).unwrap();
    ground.redirected(OUTER4, 443, "192.0.2.7:443", 0);
    ground.agent.says("unspecified('s')", "ok");
    ground.outside.says("listen('server', '192.0.2.7', 80)", "None");
    ground.agent.says("again('s', '192.0.2.7', 80)", "ok");
    ground.agent.says("peer('s')", "192.0.2.7:80");
    ground.agent.says("unspecified('s')", "ok");
    ground.agent.says("again('s', '192.0.2.8', 443)", "ok");
    let (_, origin) = ground.accepted('4');
    assert_eq!(origin.unwrap().destination.socket_address().to_string(), "192.0.2.8:443");
    ground.agent.says("peer('s')", "192.0.2.8:443");
}

#[test]
fn who_changes_the_address_meanwhile_gets_what_was_judged() {
    let mut ground = Ground::new(0);
    ground.maps.inspect(443).unwrap();
    ground.outside.says("listen('server', '192.0.2.7', 80)", "None");
    ground.outside.says("S['server'].listen(4096), S['proxy4'].listen(4096)", "(None, None)");
    let seen = ground.agent.ask("swap(3000, ('192.0.2.7', 443), ('192.0.2.7', 80))");
    // Whoever is shown the protected port is at the proxy, and nobody else.
    let both = "[('192.0.2.7:443', True), ('192.0.2.7:80', False)]";
    assert!(seen == both || seen == "[('192.0.2.7:443', True)]", "{seen}");
    assert_eq!(seen, both, "the thread had its chances");
}
