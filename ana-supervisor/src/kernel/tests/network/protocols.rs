//! Sockets that have no place in a session, and sockets from elsewhere.

use ana_common::network::{NETWORK_CAPTURE_ALL, Network};

use super::super::super::network::RefusalReason;
use super::ground::{Ground, PROXY};

#[test]
fn only_tcp_udp_and_echo_sockets_are_made() {
    let mut ground = Ground::new(0);
    for host in ["1.1.1.1", "::2"] {
        for (kind, protocol) in [
            ("SOCK_STREAM", 262), // MPTCP
            ("SOCK_STREAM", 132), // SCTP
            ("SOCK_SEQPACKET", 132),
            ("SOCK_DGRAM", 136), // UDP-Lite
            ("SOCK_RAW", 255),
            ("SOCK_RAW", 6),
            ("SOCK_RAW", 17),
            ("SOCK_RAW", 1),
            ("SOCK_RAW", 47),
        ] {
            let make = format!("call(make, 's', '{host}', socket.{kind}, {protocol})");
            let (without, within) = (ground.outside.ask(&make), ground.agent.ask(&make));
            if without != "ok" {
                // This kernel has none of these.
                assert_eq!(within, without, "{kind} {protocol}");
                continue;
            }
            assert_eq!(within, "EPROTONOSUPPORT", "{kind} {protocol}");
            let refusal = ground.refusal();
            assert_eq!((refusal.reason, refusal.destination), (RefusalReason::Protocol, None));
            assert_eq!((refusal.protocol, refusal.tgid), (protocol, ground.agent.pid()));
        }
        for (kind, protocol) in
            [("SOCK_STREAM", 0), ("SOCK_STREAM", 6), ("SOCK_DGRAM", 0), ("SOCK_DGRAM", 17)]
        {
            ground.agent.says(&format!("call(make, 's', '{host}', socket.{kind}, {protocol})"), "ok");
        }
    }
    ground.assert_silent();
}

/// Where the system lets everybody send echo requests, they carry bytes both ways.
#[test]
fn echo_requests_are_no_tunnel() {
    let mut ground = Ground::new(0);
    ground.outside.says("run('echo 0 100000 > /proc/sys/net/ipv4/ping_group_range')", "0");
    ground.maps.port_set(1, 443).unwrap();
    for protected in ["192.0.2.8", "2001:db8::8"] {
        ground
            .maps
            .protect(protected.parse().unwrap(), if protected.contains(':') { 128 } else { 32 }, 1)
            .unwrap();
    }
    ground.maps.own_address("192.0.2.100".parse().unwrap(), true).unwrap();
    let ping = |ground: &mut Ground, host: &str, wanted: &str| {
        let (protocol, kind) = if host.contains(':') { (58, 128) } else { (1, 8) };
        ground.agent.says(&format!("make('s', '{host}', socket.SOCK_DGRAM, {protocol}) and 1"), "1");
        let request = format!("struct.pack('>BBHHH', {kind}, 0, 0, 0, 1) + b'data'");
        ground.agent.says(&format!("send('s', {request}, ('{host}', 0))"), wanted);
        ground.agent.says(&format!("call(S['s'].connect, ('{host}', 0))"), "ok");
        ground.agent.says(&format!("send('s', {request})"), wanted);
    };
    for host in ["192.0.2.7", "2001:db8::7"] {
        ping(&mut ground, host, "ok");
        ground.agent.says("S['s'].recv(100)[-4:]", "b'data'");
    }
    ground.assert_silent();
    for host in ["192.0.2.8", "2001:db8::8", "127.0.0.1", "::1", "192.0.2.100"] {
        // Of IPv6 the kernel does not say what became of it.
        let silent = host.contains(':');
        ping(&mut ground, host, if silent { "ok" } else { "EPERM" });
        ground.agent.says("S['s'].settimeout(0.1)", "None");
        ground.agent.says("S['s'].recv(100)", "TimeoutError: timed out");
        let refusal = ground.refusal();
        let to = refusal.destination.map(|to| to.ip().to_string());
        assert_eq!((refusal.reason, to.as_deref()), (RefusalReason::Echo, Some(host)));
        ground.assert_silent();
    }
    // One that is left from before does not help.
    ground.agent.says("make('s', '1.1.1.1', socket.SOCK_DGRAM, 1) and 1", "1");
    let network = Network { proxy_port: PROXY.into(), flags: NETWORK_CAPTURE_ALL };
    ground.maps.configure(network).unwrap();
    ground.agent.says("send('s', struct.pack('>BBHHH', 8, 0, 0, 0, 1), ('192.0.2.7', 0))", "EPERM");
    assert_eq!(ground.refusal().reason, RefusalReason::Echo);
    for (host, protocol) in [("1.1.1.1", 1), ("::2", 58)] {
        let make = format!("call(make, 's', '{host}', socket.SOCK_DGRAM, {protocol})");
        ground.agent.says(&make, "EPROTONOSUPPORT");
        assert_eq!(ground.refusal().reason, RefusalReason::Protocol);
    }
}

/// The hooks belong to the cgroup in which a socket was made. Who gets one from outside has an accomplice there, who could
/// as well pass on bytes.
#[test]
fn a_socket_from_outside_is_not_covered() {
    let mut ground = Ground::new(0);
    ground.maps.inspect(443).unwrap();
    let path = ground.stage.programs.join("passed");
    let path = path.to_str().unwrap();
    ground.outside.says("listen('server', '192.0.2.7', 443)", "None");
    ground.outside.says("make('s', '1.1.1.1') and 1", "1");
    ground.outside.says(&format!("pass_on('s', '{path}')"), "None");
    ground.agent.says(&format!("take_over('s', '{path}')"), "None");
    ground.agent.says("again('s', '192.0.2.7', 443)", "ok");
    ground.outside.says("waits('server')", "1");
    let mut agent = ground.another();
    std::mem::swap(&mut agent, &mut ground.agent);
    assert_eq!(ground.kept("s", &mut agent), None);
    ground.agent = agent;

    // The other way round, the session's socket stays the session's.
    let back = format!("{path}-back");
    ground.agent.says("make('mine', '1.1.1.1') and 1", "1");
    ground.agent.says(&format!("pass_on('mine', '{back}')"), "None");
    ground.outside.says(&format!("take_over('mine', '{back}')"), "None");
    ground.outside.says("again('mine', '192.0.2.7', 443)", "ok");
    assert!(ground.accepted('4').1.is_some());
}
