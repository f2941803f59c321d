//! UDP: what cannot be held is refused.

use ana_common::network::{
    NETWORK_CAPTURE_ALL, NETWORK_DNS, NETWORK_DOT_REFUSED, NETWORK_QUIC_ALLOWED, Network,
};

use super::super::super::network::RefusalReason;
use super::ground::{Ground, PROXY};

const OUTER: [(&str, &str); 3] =
    [("192.0.2.7", "192.0.2.7"), ("2001:db8::7", "[2001:db8::7]"), ("::ffff:192.0.2.7", "192.0.2.7")];

/// Connected and not, the datagram does not leave, and is reported once.
#[track_caller]
fn refused(ground: &mut Ground, host: &str, written: &str, port: u16, reason: RefusalReason) {
    // To connect sends nothing; resolvers do it to sort addresses.
    ground.agent.says(&format!("udp('s', '{host}', {port})"), "ok");
    ground.assert_silent();
    for _ in 0..2 {
        ground.agent.says("send('s', b'x')", "EPERM");
    }
    ground.assert_refused(reason, &format!("{written}:{port}"));
    ground.agent.says(&format!("make('u', '{host}', socket.SOCK_DGRAM) and 1"), "1");
    for _ in 0..2 {
        ground.agent.says(&format!("send('u', b'x', ('{host}', {port}))"), "EPERM");
    }
    ground.assert_refused(reason, &format!("{written}:{port}"));
}

#[track_caller]
fn passes(ground: &mut Ground, host: &str, port: u16) {
    ground.outside.says(&format!("bound('server', '{}', {port})", host.replace("::ffff:", "")), "None");
    ground.agent.says(&format!("udp('s', '{host}', {port})"), "ok");
    ground.agent.says("send('s', b'x')", "ok");
    ground.agent.says(&format!("make('u', '{host}', socket.SOCK_DGRAM) and 1"), "1");
    ground.agent.says(&format!("send('u', b'y', ('{host}', {port}))"), "ok");
    for wanted in ["b'x'", "b'y'"] {
        ground.outside.says("S['server'].recv(1)", wanted);
    }
    ground.outside.says("close('server')", "None");
    ground.assert_silent();
}

#[test]
fn what_is_listed_is_refused_and_the_rest_passes() {
    let mut ground = Ground::new(NETWORK_DOT_REFUSED | NETWORK_DNS);
    ground.maps.inspect(443).unwrap();
    ground.maps.port_set(1, 5000).unwrap();
    ground.maps.protect("192.0.2.7".parse().unwrap(), 32, 1).unwrap();
    ground.maps.protect("2001:db8::7".parse().unwrap(), 128, 1).unwrap();
    for (host, written) in OUTER {
        refused(&mut ground, host, written, 443, RefusalReason::Quic);
        refused(&mut ground, host, written, 853, RefusalReason::EncryptedDns);
        refused(&mut ground, host, written, 5000, RefusalReason::UdpProtected);
        passes(&mut ground, host, 5001);
    }
    let network =
        Network { proxy_port: PROXY.into(), flags: NETWORK_DOT_REFUSED | NETWORK_DNS | NETWORK_QUIC_ALLOWED };
    ground.maps.configure(network).unwrap();
    for (host, _) in OUTER {
        passes(&mut ground, host, 443);
    }
}

#[test]
fn where_all_is_captured_udp_is_refused() {
    let mut ground = Ground::new(NETWORK_CAPTURE_ALL);
    for (host, written) in OUTER {
        refused(&mut ground, host, written, 5001, RefusalReason::UdpDefault);
    }
}

#[test]
fn on_this_host_only_the_session_answers() {
    let mut ground = Ground::new(0);
    let mut server = ground.another();
    for (host, written) in [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")] {
        ground.outside.says(&format!("bound('server', '{host}', 5353)"), "None");
        refused(&mut ground, host, written, 5353, RefusalReason::UdpLocal);
        ground.outside.says("close('server')", "None");
        server.says(&format!("bound('server', '{host}', 5353)"), "None");
        ground.agent.says(&format!("udp('s', '{host}', 5353)"), "ok");
        ground.agent.says("send('s', b'x')", "ok");
        server.says("S['server'].recv(1)", "b'x'");
        server.says("close('server')", "None");
        ground.agent.says(&format!("udp('s', '{host}', 5353)"), "ok");
        ground.agent.says("send('s', b'x')", "ok");
        ground.agent.says("send('s', b'x')", "ECONNREFUSED");
    }
    ground.assert_silent();
}

#[test]
fn a_socket_that_connects_again_is_judged_again() {
    let mut ground = Ground::new(0);
    ground.maps.inspect(443).unwrap();
    ground.outside.says("bound('quic', '192.0.2.7', 443)", "None");
    ground.outside.says("bound('server', '192.0.2.7', 5001)", "None");
    ground.agent.says("udp('s', '192.0.2.7', 443)", "ok");
    ground.agent.says("send('s', b'x')", "EPERM");
    ground.agent.says("again('s', '192.0.2.7', 5001)", "ok");
    ground.agent.says("send('s', b'y')", "ok");
    ground.outside.says("S['server'].recv(1)", "b'y'");
    // A connect that fails leaves the socket where it was, but it was judged for elsewhere.
    ground.agent.says("again('s', '192.0.2.7', 443)", "ok");
    ground.agent.says("again('s', '255.255.255.255', 5001)", "EACCES");
    ground.agent.says("peer('s')", "192.0.2.7:443");
    ground.agent.says("send('s', b'x')", "EPERM");
    // Disconnected, what it was connected to is forgotten.
    ground.agent.says("unspecified('s')", "ok");
    ground.agent.says("send('s', b'z', ('192.0.2.7', 5001))", "ok");
    ground.outside.says("S['server'].recv(1)", "b'z'");
    ground.outside.says("S['quic'].settimeout(0.1)", "None");
    ground.outside.says("S['quic'].recv(1)", "TimeoutError: timed out");
}

#[test]
fn of_many_datagrams_at_once_each_is_judged() {
    let mut ground = Ground::new(0);
    ground.maps.inspect(443).unwrap();
    ground.outside.says("bound('server', '192.0.2.7', 5001)", "None");
    ground.agent.says("make('s', '1.1.1.1', socket.SOCK_DGRAM) and 1", "1");
    let targets = "[('192.0.2.7', 5001), ('192.0.2.7', 443), ('192.0.2.7', 5001)]";
    ground.agent.says(&format!("send_many('s', {targets})"), "1");
    ground.assert_refused(RefusalReason::Quic, "192.0.2.7:443");
    ground.outside.says("S['server'].recv(1)", "b'x'");
    ground.agent.says("send_many('s', [('192.0.2.7', 443)])", "EPERM");
}
