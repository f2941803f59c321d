//! Sockets that have no place in a session, and sockets from elsewhere.

use super::super::super::network::RefusalReason;
use super::ground::Ground;

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
    // Whether everybody may send echo requests is the system's own decision.
    ground.agent.says("call(make, 's', '1.1.1.1', socket.SOCK_DGRAM, 1) in ('ok', 'EACCES')", "True");
    ground.assert_silent();
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
