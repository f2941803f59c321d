//! What is sent without a connection, and with other protocols: nothing of it reaches a protected host.

use std::{
    net::{Ipv6Addr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

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

/// Sends to a service of this machine by every name that it has, and to one of the session's own.
const LOCAL: &str = "
import socket, sys
port = int(sys.argv[1])
def say(name, host, port):
    s = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(5)
    try:
        s.sendto(b'local', (host, port)); assert s.recv(16) == b'local'
        print('attempt %s: ok' % name, flush=True)
    except OSError as error: print('attempt %s: %s' % (name, error.errno), flush=True)
for host in ('127.0.0.1', '127.9.9.9', '0.0.0.0', '192.0.2.1', '::ffff:127.0.0.1', '::1', '2001:db8::1'): say(host, host, port)
import threading
own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); own.bind(('127.0.0.1', 0))
def serve():
    data, peer = own.recvfrom(64); own.sendto(data, peer)
threading.Thread(target=serve, daemon=True).start()
say('own', '127.0.0.1', own.getsockname()[1])
";

const SPELLINGS: [&str; 4] = ["127.0.0.1", "0.0.0.0", "192.0.2.1", "::1"];

/// A UDP service outside of the session that echoes; how often it did.
fn service(net: &Net) -> (u16, Arc<AtomicUsize>) {
    let socket = net.at_client(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))).expect("a free port");
    let (port, count) = (socket.local_addr().expect("bound").port(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&count);
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    // It ends when nobody has come for some time.
    std::thread::spawn(move || {
        let mut bytes = [0; 64];
        while let Ok((length, peer)) = socket.recv_from(&mut bytes) {
            counted.fetch_add(1, Ordering::SeqCst);
            drop(socket.send_to(&bytes[..length], peer));
        }
    });
    (port, count)
}

#[test]
fn local_services_without_ana() {
    let (ground, net) = (Ground::bare("udp-local-bare"), Net::new("udp-local-bare"));
    let (port, count) = service(&net);
    let told = net.run_without_ana(&ground, &["python3", "-c", LOCAL, &port.to_string()]).stdout();
    // Two of them are answered from another address than they were sent to, which this socket does not mind.
    assert_all(&told, &SPELLINGS, "ok");
    assert_all(&told, &["own"], "ok");
    assert!(count.load(Ordering::SeqCst) >= SPELLINGS.len());
}

#[test]
fn local_services() {
    let (ground, net) = (Ground::new("udp-local"), Net::new("udp-local"));
    ground.connecting("[network]\nloopback = \"approve\"\n");
    let (port, count) = service(&net);
    let told =
        net.start(&ground, &["python3", "-c", LOCAL, &port.to_string()]).finish().assert_code(0).stdout();
    assert_all(&told, &SPELLINGS, "1");
    assert_all(&told, &["own"], "ok");
    assert_eq!(count.load(Ordering::SeqCst), 0);
    ground.verify();
}
