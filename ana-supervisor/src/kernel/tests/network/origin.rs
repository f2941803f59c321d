//! The origin of a redirected connection: handed over once, to the right peer, and not after its socket.

use std::net::SocketAddr;

use super::super::stage::key;
use super::ground::Ground;

#[test]
fn an_origin_is_taken_once_and_by_nobody_else() {
    let mut ground = Ground::new(0);
    ground.maps.inspect(443).unwrap();
    for (host, family) in [("192.0.2.7", '4'), ("2001:db8::7", '6')] {
        ground.agent.says(&format!("connect('s', '{host}', 443)"), "ok");
        let peer: SocketAddr =
            ground.outside.ask(&format!("accept('proxy{family}', 'held')")).parse().unwrap();
        assert_eq!(ground.maps.take_origin(peer, ground.netns + 1).unwrap(), None, "another namespace");
        let other = SocketAddr::new(peer.ip(), peer.port() ^ 1);
        assert_eq!(ground.maps.take_origin(other, ground.netns).unwrap(), None, "another peer");
        let origin = ground.maps.take_origin(peer, ground.netns).unwrap().unwrap();
        assert_eq!(ground.maps.take_origin(peer, ground.netns).unwrap(), None, "taken");

        assert_eq!(origin.tgid, ground.agent.pid());
        assert_eq!(origin.netns, ground.netns);
        assert_eq!(origin.started, super::super::expected::started(origin.tgid));
        assert_eq!(origin.exe, key(std::path::Path::new("/usr/bin/python3")));
        assert!(origin.boot_ns > 0 && origin.boot_ns < crate::sys::boottime::now().unwrap());
        let mut agent = ground.another();
        std::mem::swap(&mut agent, &mut ground.agent);
        assert_eq!(ground.kept("s", &mut agent).unwrap().origin, origin);
        ground.agent = agent;
    }
}

#[test]
fn what_nobody_was_redirected_from_has_no_origin() {
    let mut ground = Ground::new(0);
    // Another local user comes to the proxy by itself.
    let proxy = super::ground::PROXY;
    ground.outside.says(&format!("connect('s', '127.0.0.1', {proxy})"), "ok");
    assert_eq!(ground.accepted('4').1, None);
}

#[test]
fn an_origin_is_gone_when_its_socket_is() {
    let mut ground = Ground::new(0);
    ground.maps.inspect(443).unwrap();
    for (host, family) in [("192.0.2.7", '4'), ("2001:db8::7", '6')] {
        let reset = "S['s'].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))";
        ground.agent.says(&format!("connect('s', '{host}', 443)"), "ok");
        let peer: SocketAddr = ground.agent.ask("local('s')").parse().unwrap();
        ground.agent.says(reset, "None");
        ground.agent.says("close('s')", "None");
        assert_eq!(ground.maps.take_origin(peer, ground.netns).unwrap(), None, "closed before accept");

        ground.agent.says(&format!("connect('s', '{host}', 443)"), "ok");
        let peer: SocketAddr = ground.agent.ask("local('s')").parse().unwrap();
        ground.agent.says("unspecified('s')", "ok");
        assert_eq!(ground.maps.take_origin(peer, ground.netns).unwrap(), None, "disconnected");
        ground.outside.ask(&format!("waits('proxy{family}')"));

        // Half closed is not closed.
        ground.agent.says(&format!("connect('s', '{host}', 443)"), "ok");
        ground.agent.says("S['s'].shutdown(socket.SHUT_WR)", "None");
        assert!(ground.accepted(family).1.is_some());
    }
}

/// The proxy sees addresses and ports only, so no two sockets of a session may have the same.
#[test]
fn a_source_address_of_ones_own_is_no_trick() {
    let mut ground = Ground::new(0);
    ground.maps.inspect(443).unwrap();
    let bind = "[S['s'].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1), S['s'].bind(('127.0.0.9', 7777))] and 1";
    ground.agent.says("make('s', '1.1.1.1') and 1", "1");
    ground.agent.says(bind, "1");
    ground.agent.says("again('s', '192.0.2.7', 443)", "ok");
    let mut second = ground.another();
    second.says("make('s', '1.1.1.1') and 1", "1");
    second.says(bind, "1");
    second.says("again('s', '192.0.2.8', 443)", "EADDRNOTAVAIL");
    let (peer, origin) = ground.accepted('4');
    assert_eq!(peer.to_string(), "127.0.0.9:7777");
    assert_eq!(origin.unwrap().destination.socket_address().to_string(), "192.0.2.7:443");
    // An outer address of the host's works as well.
    ground.agent.says("make('s', '1.1.1.1').bind(('192.0.2.100', 7777))", "None");
    ground.agent.says("again('s', '192.0.2.8', 443)", "ok");
    let (peer, origin) = ground.accepted('4');
    assert_eq!(peer.to_string(), "192.0.2.100:7777");
    assert!(origin.is_some());
}

#[test]
fn the_gate_outlives_its_loader() {
    let mut ground = Ground::new(0);
    ground.maps.inspect(443).unwrap();
    let names: Vec<_> = std::fs::read_dir(&ground.stage.pins)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("net-"))
        .collect();
    assert_eq!(names.len(), 14, "{names:?}");
    ground.forget_programs();
    ground.redirected("192.0.2.7", 443, "192.0.2.7:443", 0);
}
