//! This host: listeners of the session are its own, all others are protected.

use ana_common::network::{NETWORK_LOOPBACK_ANY, ORIGIN_LOCAL};

use super::super::super::network::RefusalReason;
use super::ground::{Actor, Ground};

const HOSTS: [(&str, &str); 6] = [
    ("127.0.0.1", "127.0.0.1"),
    ("0.0.0.0", "127.0.0.1"),
    ("::ffff:127.0.0.1", "127.0.0.1"),
    ("::1", "[::1]"),
    ("::", "[::1]"),
    ("127.1.2.3", "127.1.2.3"),
];

fn any(host: &str) -> &str {
    if host.contains(':') && !host.contains('.') { "::" } else { "0.0.0.0" }
}

#[test]
fn a_listener_outside_of_the_session_is_redirected() {
    let mut ground = Ground::new(0);
    for address in ["192.0.2.100", "2001:db8::8"] {
        ground.maps.own_address(address.parse().unwrap(), true).unwrap();
    }
    let own = [("192.0.2.100", "192.0.2.100"), ("2001:db8::8", "[2001:db8::8]")];
    for (host, written) in HOSTS.into_iter().chain(own) {
        ground.outside.says(&format!("listen('server', '{}', 22)", any(host)), "None");
        ground.redirected(host, 22, &format!("{written}:22"), ORIGIN_LOCAL);
        ground.outside.says("close('server')", "None");
        ground.agent.says(&format!("connect('s', '{host}', 22)"), "ECONNREFUSED");
    }
    // One listener for both families.
    ground.outside.says("listen('server', '::', 22, 'both')", "None");
    for (host, written) in HOSTS {
        ground.redirected(host, 22, &format!("{written}:22"), ORIGIN_LOCAL);
    }
    ground.outside.says("close('server')", "None");
    // An address that is no more the host's.
    ground.maps.own_address("192.0.2.100".parse().unwrap(), false).unwrap();
    ground.direct("192.0.2.100", 22);
    ground.assert_silent();
}

#[test]
fn a_listener_of_the_session_is_its_own() {
    let mut ground = Ground::new(0);
    let mut server = ground.another();
    for (host, _) in HOSTS {
        server.says(&format!("listen('server', '{}', 8080)", any(host)), "None");
        ground.agent.says(&format!("connect('s', '{host}', 8080)"), "ok");
        server.ask("accept('server', 'here')");
        ground.agent.says("send('s', b'x')", "ok");
        server.says("S['here'].recv(1)", "b'x'");
        server.says("close('server'), close('here')", "(None, None)");
    }
    ground.assert_silent();
}

/// Without bind(2), as FTP's data connections do.
#[test]
fn a_listener_without_an_address_of_its_own_is_the_sessions_as_well() {
    let mut ground = Ground::new(0);
    for host in ["127.0.0.1", "::1"] {
        let mut server = ground.another();
        server.says(&format!("make('server', '{host}').listen()"), "None");
        let port: u16 = server.ask("S['server'].getsockname()[1]").parse().unwrap();
        ground.agent.says(&format!("connect('s', '{host}', {port})"), "ok");
        server.ask("accept('server', 'here')");
        ground.agent.says("send('s', b'x')", "ok");
        server.says("S['here'].recv(1)", "b'x'");
        // So is a UDP socket that has sent something.
        server.says(&format!("udp('u', '{host}', 9)"), "ok");
        server.says("unspecified('u')", "ok");
        server.says(&format!("send('u', b'x', ('{host}', 9))"), "ok");
        let port: u16 = server.ask("S['u'].getsockname()[1]").parse().unwrap();
        ground.agent.says(&format!("udp('v', '{host}', {port})"), "ok");
        ground.agent.says("send('v', b'y')", "ok");
    }
    ground.assert_silent();
}

#[test]
fn where_all_listeners_are_free_they_are() {
    let mut ground = Ground::new(NETWORK_LOOPBACK_ANY);
    for host in ["127.0.0.1", "::1"] {
        ground.direct(host, 22);
    }
}

/// What connect(2) could not see is seen when the first packet leaves.
#[test]
fn another_listener_than_the_one_that_was_found_does_not_answer() {
    let mut ground = Ground::new(0);
    for (host, written) in [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")] {
        // Bound to the device: found by packets only.
        ground
            .outside
            .says(&format!("listen('server', '{host}', 22, (socket.SO_BINDTODEVICE, b'lo'))"), "None");
        ground.agent.says("make('s', '{host}').settimeout(0.3)".replace("{host}", host).as_str(), "None");
        ground.agent.says(&format!("again('s', '{host}', 22)"), "timeout");
        ground.assert_refused(RefusalReason::Listener, &format!("{written}:22"));
        ground.outside.says("waits('server')", "0");
        ground.outside.says("close('server')", "None");
    }
    // A group of listeners that one of the session has joined: whoever the kernel chooses.
    let group = "(socket.SO_REUSEPORT, 1)";
    ground.outside.says(&format!("listen('server', '127.0.0.1', 8080, {group})"), "None");
    ground.agent.says(&format!("listen('mine', '127.0.0.1', 8080, {group})"), "None");
    for _ in 0..40 {
        ground.agent.says("make('s', '127.0.0.1').settimeout(0.02)", "None");
        let result = ground.agent.ask("again('s', '127.0.0.1', 8080)");
        assert!(["ok", "timeout"].contains(&result.as_str()), "{result}");
    }
    ground.outside.says("waits('server')", "0");
}

/// Packets to a container behind an address translation leave by its device, not by the loopback one.
#[test]
fn what_nobody_listens_on_does_not_leave_the_host() {
    let mut ground = Ground::new(0);
    ground.maps.own_address("192.0.2.200".parse().unwrap(), true).unwrap();
    ground.outside.says(
        "run('ip link add far type veth peer name end && ip link set far up && ip link set end up')",
        "0",
    );
    ground.outside.says("run('ip route add 192.0.2.200/32 dev far src 192.0.2.7')", "0");
    ground.agent.says("make('s', '1.1.1.1').settimeout(0.3)", "None");
    ground.agent.says("again('s', '192.0.2.200', 80)", "timeout");
    ground.assert_refused(RefusalReason::Listener, "192.0.2.200:80");
}

/// Which listener the agent would have reached at 127.0.0.1:22.
#[track_caller]
fn named(ground: &mut Ground) -> u64 {
    ground.agent.says("connect('s', '127.0.0.1', 22)", "ok");
    let (_, origin) = ground.accepted('4');
    let origin = origin.unwrap();
    assert_eq!(origin.flags, ORIGIN_LOCAL);
    origin.listener
}

fn inode(actor: &mut Actor, name: &str) -> u64 {
    actor.ask(&format!("os.fstat(S['{name}'].fileno()).st_ino")).parse().unwrap()
}

#[test]
fn the_listener_that_was_found_is_named_and_no_other() {
    let mut ground = Ground::new(0);
    ground.outside.says("listen('server', '0.0.0.0', 22)", "None");
    let wanted = inode(&mut ground.outside, "server");
    assert_ne!(wanted, 0);
    assert_eq!(named(&mut ground), wanted);
    // Of the same port, but not for IPv4.
    ground.agent.says("listen('mine', '::', 22)", "None");
    assert_eq!(named(&mut ground), wanted);
    ground.outside.says("close('server')", "None");
    ground.agent.says("close('mine')", "None");
    ground.outside.says("listen('both', '::', 22, 'both')", "None");
    let both = inode(&mut ground.outside, "both");
    assert_eq!(named(&mut ground), both);
    // What goes elsewhere names none.
    ground.maps.inspect(443).unwrap();
    ground.agent.says("connect('s', '192.0.2.7', 443)", "ok");
    assert_eq!(ground.accepted('4').1.unwrap().listener, 0);
}

/// A program of the group's chooses by the packet. The session's member is found by the look-up of some packets, and the
/// other one gets them all.
#[test]
fn a_group_with_a_program_is_outside() {
    let mut ground = Ground::new(0);
    let group = "(socket.SO_REUSEPORT, 1)";
    ground.outside.says(&format!("listen('server', '127.0.0.1', 8080, {group})"), "None");
    ground.outside.says(&format!("bound('udp', '127.0.0.1', 8080, {group})"), "None");
    ground.agent.says(&format!("listen('mine', '127.0.0.1', 8080, {group})"), "None");
    ground.agent.says(&format!("bound('own', '127.0.0.1', 8080, {group})"), "None");
    // `return 0`: the group's first, which is the one outside.
    ground
        .agent
        .says("globals().update(CODE=ctypes.create_string_buffer(struct.pack('HBBI', 6, 0, 0, 0)))", "None");
    for name in ["mine", "own"] {
        let attach = "setsockopt(1, 51, struct.pack('HxxxxxxQ', 1, ctypes.addressof(CODE)))";
        ground.agent.says(&format!("S['{name}'].{attach}"), "None");
    }
    for _ in 0..40 {
        ground.agent.says("make('s', '127.0.0.1').settimeout(0.02)", "None");
        let result = ground.agent.ask("again('s', '127.0.0.1', 8080)");
        assert!(["ok", "timeout"].contains(&result.as_str()), "{result}");
        ground.agent.says("udp('u', '127.0.0.1', 8080)", "ok");
        ground.agent.says("send('u', b'x')", "EPERM");
    }
    ground.outside.says("waits('server')", "0");
    ground.outside.says("S['udp'].settimeout(0.1)", "None");
    ground.outside.says("S['udp'].recv(1)", "TimeoutError: timed out");
}
