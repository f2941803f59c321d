//! UDP: what cannot be held is refused.

use ana_common::network::{
    NETWORK_CAPTURE_ALL, NETWORK_DNS, NETWORK_DOT_REFUSED, NETWORK_LOOPBACK_ANY, NETWORK_QUIC_ALLOWED,
    Network,
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
    // A connect that fails leaves the socket where it was.
    ground.agent.says("again('s', '192.0.2.7', 443)", "ok");
    ground.agent.says("again('s', '255.255.255.255', 5001)", "EPERM");
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

/// Without the call that was judged: what counts is the packet.
#[test]
fn a_disconnected_socket_is_not_where_it_was() {
    let mut ground = Ground::new(NETWORK_DNS);
    ground.maps.inspect(443).unwrap();
    for (host, server, family) in [("192.0.2.7", "192.0.2.8", '4'), ("2001:db8::7", "2001:db8::8", '6')] {
        ground.outside.says(&format!("bound('quic', '{host}', 443)"), "None");
        ground.agent.says(&format!("udp('s', '{host}', 443)"), "ok");
        ground.agent.says("unspecified('s')", "ok");
        // Whoever asks a name server is known as one that asks.
        ground.agent.says(&format!("send('s', b'question', ('{server}', 53))"), "ok");
        ground.outside.ask(&format!("receive('stubproxy{family}')"));
        for _ in 0..2 {
            ground.agent.says(&format!("send('s', b'x', ('{host}', 443))"), "EPERM");
        }
        ground.outside.says("S['quic'].settimeout(0.1)", "None");
        ground.outside.says("S['quic'].recv(1)", "TimeoutError: timed out");
    }
}

#[test]
fn what_was_kept_back_is_judged_when_it_leaves() {
    let mut ground = Ground::new(0);
    ground.maps.inspect(443).unwrap();
    for (host, written) in [("192.0.2.7", "192.0.2.7"), ("2001:db8::7", "[2001:db8::7]")] {
        ground.outside.says(&format!("bound('quic', '{host}', 443)"), "None");
        ground.agent.says(&format!("make('s', '{host}', socket.SOCK_DGRAM).bind(('', 0))"), "None");
        ground.agent.says("S['s'].setsockopt(17, 1, 1)", "None");
        ground.agent.says(&format!("again('s', '{host}', 443)"), "ok");
        ground.agent.says("send('s', b'corked')", "ok");
        ground.agent.says("unspecified('s')", "ok");
        // Whether to let go is an error differs between kernels.
        ground.agent.says("call(S['s'].setsockopt, 17, 1, 0) in ('ok', 'EPERM')", "True");
        ground.assert_refused(RefusalReason::Quic, &format!("{written}:443"));
        ground.outside.says("S['quic'].settimeout(0.1)", "None");
        ground.outside.says("S['quic'].recv(1)", "TimeoutError: timed out");
    }
}

/// The same on this host, where the listener counts.
#[test]
fn what_was_kept_back_for_a_listener_outside_is_refused() {
    let mut ground = Ground::new(0);
    for (host, written) in [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")] {
        ground.agent.says(&format!("make('s', '{host}', socket.SOCK_DGRAM).bind(('', 0))"), "None");
        ground.agent.says("S['s'].setsockopt(17, 1, 1)", "None");
        ground.agent.says(&format!("again('s', '{host}', 5353)"), "ok");
        ground.agent.says("send('s', b'corked')", "ok");
        ground.outside.says(&format!("bound('server', '{host}', 5353)"), "None");
        ground.agent.says("unspecified('s')", "ok");
        ground.agent.says("call(S['s'].setsockopt, 17, 1, 0) in ('ok', 'EPERM')", "True");
        ground.assert_refused(RefusalReason::UdpLocal, &format!("{written}:5353"));
        ground.outside.says("S['server'].settimeout(0.1)", "None");
        ground.outside.says("S['server'].recv(1)", "TimeoutError: timed out");
    }
}

/// One that is bound to the device is found by packets only, and of a group that the session has joined whoever the kernel
/// chooses.
#[test]
fn only_the_sessions_listener_gets_a_datagram() {
    let mut ground = Ground::new(0);
    ground.outside.says("bound('server', '127.0.0.1', 22, (socket.SO_BINDTODEVICE, b'lo'))", "None");
    ground.agent.says("udp('s', '127.0.0.1', 22)", "ok");
    ground.agent.says("send('s', b'x')", "EPERM");
    ground.assert_refused(RefusalReason::UdpLocal, "127.0.0.1:22");
    let group = "(socket.SO_REUSEPORT, 1)";
    ground.outside.says(&format!("bound('group', '127.0.0.1', 8080, {group})"), "None");
    ground.agent.says(&format!("bound('mine', '127.0.0.1', 8080, {group})"), "None");
    for _ in 0..40 {
        let sent = ground.agent.ask("udp('s', '127.0.0.1', 8080) == 'ok' and send('s', b'x')");
        assert!(["ok", "EPERM"].contains(&sent.as_str()), "{sent}");
    }
    for server in ["server", "group"] {
        ground.outside.says(&format!("S['{server}'].settimeout(0.1)"), "None");
        ground.outside.says(&format!("S['{server}'].recv(1)"), "TimeoutError: timed out");
    }
}

/// A thread that connects elsewhere and nowhere while another one sends.
#[test]
fn no_race_leads_to_what_is_refused() {
    let mut ground = Ground::new(0);
    ground.maps.inspect(443).unwrap();
    ground.outside.says("bound('quic', '192.0.2.7', 443)", "None");
    ground.outside.says("bound('server', '192.0.2.7', 5001)", "None");
    ground.agent.says("udp('s', '192.0.2.7', 5001)", "ok");
    ground.agent.says("wander('s', 20000, [('192.0.2.7', 5001), None, ('192.0.2.7', 443)])", "True");
    ground.outside.says("S['quic'].settimeout(0.1)", "None");
    ground.outside.says("S['quic'].recv(1)", "TimeoutError: timed out");
    ground.outside.says("S['server'].recv(1)", "b'x'");
}

/// The first packet of a source route goes elsewhere than to whom it was sent, and so does every later one.
#[test]
fn a_source_route_is_no_way_around() {
    let mut ground = Ground::new(0);
    ground.maps.inspect(443).unwrap();
    let route = "S['s'].setsockopt(0, 4, bytes([131, 7, 4]) + socket.inet_aton('192.0.2.100') + bytes(1))";
    ground.agent.says("make('s', '1.1.1.1', socket.SOCK_DGRAM) and 1", "1");
    ground.agent.says(route, "None");
    ground.agent.says("send('s', b'x', ('192.0.2.7', 5001))", "EPERM");
    assert_eq!(ground.refusal().reason, RefusalReason::Packet);
    ground.agent.says("make('s', '1.1.1.1').settimeout(0.3)", "None");
    ground.agent.says(route, "None");
    ground.agent.says("again('s', '192.0.2.7', 443) != 'ok'", "True");
    assert_eq!(ground.refusal().reason, RefusalReason::Packet);
}

/// Who listens at 0.0.0.0 or :: hears what is sent to all.
#[test]
fn what_goes_to_everybody_is_refused() {
    let mut ground = Ground::new(0);
    let link = "run('ip link add far type veth peer name end && ip link set far up && ip link set end up && ip addr add 198.51.100.1/24 brd + dev far && ip route add default dev far && ip addr add 127.9.9.9/24 dev lo')";
    ground.outside.says(link, "0");
    ground.maps.own_address("198.51.100.1".parse().unwrap(), true).unwrap();
    for address in ["198.51.100.255", "127.9.9.255"] {
        ground.maps.broadcast_address(address.parse().unwrap(), true).unwrap();
    }
    let everybody = [
        "255.255.255.255",
        "198.51.100.255",
        "127.255.255.255",
        "127.9.9.255",
        "224.0.0.1",
        "ff02::1",
        "ff01::1",
    ];
    ground.outside.says("bound('server4', '', 5353)", "None");
    ground
        .outside
        .says("make('server6', '::', socket.SOCK_DGRAM).setsockopt(41, socket.IPV6_V6ONLY, 1)", "None");
    ground.outside.says("S['server6'].bind(('::', 5353))", "None");
    ground.outside.says("[S[s].settimeout(0.1) for s in ('server4', 'server6')] and 1", "1");
    for address in everybody {
        let device = if address.starts_with("ff") { ", 0, DEVICE" } else { "" };
        ground.agent.says("globals().update(DEVICE=socket.if_nametoindex('lo'))", "None");
        ground.agent.says(
            &format!("make('s', '{address}', socket.SOCK_DGRAM).setsockopt(1, socket.SO_BROADCAST, 1)"),
            "None",
        );
        ground.agent.says(&format!("send('s', b'x', ('{address}', 5353{device}))"), "EPERM");
        ground.assert_refused(RefusalReason::UdpLocal, &socket_address(address, 5353));
        ground.agent.says(&format!("call(S['s'].connect, ('{address}', 5353{device}))"), "EPERM");
        for server in ["server4", "server6"] {
            ground.outside.says(&format!("S['{server}'].recv(1)"), "TimeoutError: timed out");
        }
    }
    ground.assert_silent();
    let network = Network { proxy_port: PROXY.into(), flags: NETWORK_LOOPBACK_ANY };
    ground.maps.configure(network).unwrap();
    ground
        .agent
        .says("make('s', '1.1.1.1', socket.SOCK_DGRAM).setsockopt(1, socket.SO_BROADCAST, 1)", "None");
    ground.agent.says("send('s', b'x', ('127.255.255.255', 5353))", "ok");
    ground.outside.says("S['server4'].recv(1)", "b'x'");
}

fn socket_address(address: &str, port: u16) -> String {
    std::net::SocketAddr::new(address.parse().unwrap(), port).to_string()
}
