//! DNS over UDP goes to the stub resolver, which finds out who was asked; the asker sees that one answer.

use std::net::SocketAddr;

use ana_common::network::{NETWORK_DNS, ORIGIN_DNS, ORIGIN_UDP};

use super::ground::Ground;

const SERVERS: [(&str, &str, char); 4] = [
    ("192.0.2.7", "192.0.2.7:53", '4'),
    ("2001:db8::7", "[2001:db8::7]:53", '6'),
    ("::ffff:192.0.2.7", "192.0.2.7:53", '4'),
    ("127.0.0.53", "127.0.0.53:53", '4'),
];

/// The stub has the question, finds the server, and answers; the agent sees who it asked.
#[track_caller]
fn answered(ground: &mut Ground, name: &str, server: &str, family: char) -> SocketAddr {
    let stub = format!("stubproxy{family}");
    let question = ground.outside.ask(&format!("receive('{stub}')"));
    let peer: SocketAddr = question.strip_prefix("question from ").unwrap().parse().unwrap();
    let origin = ground.maps.udp_server(peer, ground.netns).unwrap().expect("the server is known");
    assert_eq!(origin.destination.socket_address().to_string(), server);
    assert_eq!((origin.flags, origin.tgid), (ORIGIN_DNS | ORIGIN_UDP, ground.agent.pid()));
    assert_eq!(ground.maps.udp_server(peer, ground.netns + 1).unwrap(), None);
    ground.outside.says(&format!("S['{stub}'].sendto(b'answer', ('{}', {}))", peer.ip(), peer.port()), "6");
    let answer = ground.agent.ask(&format!("receive('{name}')"));
    let from: SocketAddr = answer.strip_prefix("answer from ").unwrap().parse().unwrap();
    assert_eq!(SocketAddr::new(from.ip().to_canonical(), from.port()).to_string(), server);
    peer
}

#[test]
fn a_connected_socket_asks_who_it_meant() {
    let mut ground = Ground::new(NETWORK_DNS);
    for (host, server, family) in SERVERS {
        ground.agent.says(&format!("udp('s', '{host}', 53)"), "ok");
        let shown: SocketAddr = ground.agent.ask("peer('s')").parse().unwrap();
        assert_eq!(SocketAddr::new(shown.ip().to_canonical(), 53).to_string(), server);
        let mut peer = None;
        // A socket asks often.
        for _ in 0..3 {
            ground.agent.says("send('s', b'question')", "ok");
            peer = Some(answered(&mut ground, "s", server, family));
        }
        ground.agent.says("close('s')", "None");
        assert_eq!(ground.maps.udp_server(peer.unwrap(), ground.netns).unwrap(), None, "closed");
    }
    ground.assert_silent();
    assert!(ground.maps.health().unwrap().is_clean());
}

#[test]
fn an_unconnected_socket_asks_several() {
    let mut ground = Ground::new(NETWORK_DNS);
    for (host, server, family) in SERVERS {
        ground.agent.says(&format!("make('s', '{host}', socket.SOCK_DGRAM) and 1"), "1");
        ground.agent.says(&format!("send('s', b'question', ('{host}', 53))"), "ok");
        answered(&mut ground, "s", server, family);
    }
    for (host, server) in [("192.0.2.7", "192.0.2.7:53"), ("192.0.2.8", "192.0.2.8:53")] {
        ground.agent.says("make('s', '1.1.1.1', socket.SOCK_DGRAM) and 1", "1");
        ground.agent.says(&format!("send('s', b'question', ('{host}', 53))"), "ok");
        answered(&mut ground, "s", server, '4');
    }
    // And something else beside.
    ground.outside.says("bound('server', '192.0.2.7', 5001)", "None");
    ground.agent.says("send('s', b'x', ('192.0.2.7', 5001))", "ok");
    ground.outside.says("S['server'].recv(1)", "b'x'");
    ground.agent.says("send('s', b'question', ('192.0.2.7', 53))", "ok");
    answered(&mut ground, "s", "192.0.2.7:53", '4');
}

#[test]
fn a_socket_with_an_address_of_its_own_asks_as_well() {
    let mut ground = Ground::new(NETWORK_DNS);
    ground.agent.says("make('s', '1.1.1.1', socket.SOCK_DGRAM).bind(('192.0.2.100', 0))", "None");
    ground.agent.says("again('s', '192.0.2.7', 53)", "ok");
    ground.agent.says("send('s', b'question')", "ok");
    let peer = answered(&mut ground, "s", "192.0.2.7:53", '4');
    assert_eq!(peer.ip().to_string(), "192.0.2.100");
}

/// Nobody else gets to the stub with what a socket has left behind.
#[test]
fn a_socket_is_known_by_one_address_at_a_time() {
    let mut ground = Ground::new(NETWORK_DNS);
    ground.agent.says("make('s', '1.1.1.1', socket.SOCK_DGRAM) and 1", "1");
    let mut before: Option<SocketAddr> = None;
    for source in ["127.0.0.7", "127.0.0.8", "192.0.2.100"] {
        ground.agent.says("unspecified('s')", "ok");
        // As by IP_PKTINFO: from any address of the host's.
        let control = format!("[(0, 8, struct.pack('=I', 0) + socket.inet_aton('{source}') + bytes(4))]");
        let ask = format!("S['s'].sendmsg([b'question'], {control}, 0, ('192.0.2.7', 53))");
        ground.agent.says(&ask, "8");
        let peer = answered(&mut ground, "s", "192.0.2.7:53", '4');
        assert_eq!(peer.ip().to_string(), source);
        if let Some(before) = before.replace(peer) {
            assert_eq!(ground.maps.udp_server(before, ground.netns).unwrap(), None, "{before} after {peer}");
        }
    }
}

#[test]
fn the_c_librarys_resolver_is_served() {
    let mut ground = Ground::new(NETWORK_DNS);
    // getaddrinfo without a configuration asks 127.0.0.1; here it is enough that the question comes.
    ground.agent.says(
        "threading.Thread(target=call, args=(socket.getaddrinfo, 'x.example', 80), daemon=True).start()",
        "None",
    );
    let bytes = ground.outside.ask("S['stubproxy4'].recvfrom(512)");
    let port = bytes.rsplit(", ").next().unwrap().trim_end_matches(')').parse().unwrap();
    let peer = SocketAddr::new("127.0.0.1".parse().unwrap(), port);
    let origin = ground.maps.udp_server(peer, ground.netns).unwrap().expect("the server is known");
    assert_eq!(origin.destination.port, 53);
}

#[test]
fn what_nobody_asked_from_is_unknown() {
    let mut ground = Ground::new(NETWORK_DNS);
    let proxy = super::ground::PROXY;
    ground.outside.says(&format!("udp('s', '127.0.0.1', {proxy})"), "ok");
    ground.outside.says("send('s', b'x')", "ok");
    let text = ground.outside.ask("receive('stubproxy4')");
    let peer = text.strip_prefix("x from ").unwrap().parse().unwrap();
    assert_eq!(ground.maps.udp_server(peer, ground.netns).unwrap(), None);
}
