//! What was approved once is used for something else: a grant for a name at another address, an approval of one request for
//! another behind the same proxy.

use std::net::SocketAddr;

use ana_tests::{
    Ground, Net,
    net::{API, Host, INNOCENT, NAMELESS},
};

/// Shows the protected name at the host's own address, and at another one.
const SCRIPT: &str = "curl -sS -4 http://api.protected.test/own; \
     curl -sS --resolve api.protected.test:80:192.0.2.20 http://api.protected.test/other; true";

#[test]
fn a_name_elsewhere_without_ana() {
    let (ground, net) = (Ground::bare("grant-bare"), Net::new("grant-bare"));
    net.run_without_ana(&ground, &["bash", "-c", SCRIPT]).assert_code(0);
    assert_eq!((net.arrivals_at(API).len(), net.arrivals_at(INNOCENT).len()), (1, 1));
}

/// A grant for a name is for the addresses that the supervisor itself knows it by.
#[test]
fn a_name_elsewhere() {
    let (ground, net) = (Ground::new("grant-name"), Net::new("grant-name"));
    ground.connecting(
        "[[connect]]\nname = \"api\"\nhost = [\"api.protected.test\"]\nport = [80]\nfor = \"session\"\n",
    );
    let mut session = net.start(&ground, &["bash", "-c", SCRIPT]);
    let question = net.held(&ground, &mut session, 1, API).remove(0);
    assert_eq!(question.connect()["confirmed"], true, "{question:#?}");
    ground.approve(&question.id);
    let other = net.held(&ground, &mut session, 1, INNOCENT).remove(0);
    assert_eq!(other.connect()["address"], "192.0.2.20", "{other:#?}");
    assert_eq!(other.connect().get("confirmed"), None, "it is said that it is not known: {other:#?}");
    ground.deny(&other.id, "not there");
    session.finish();
    assert_eq!((net.arrivals_at(API).len(), net.arrivals_at(INNOCENT).len()), (1, 0));
    ground.verify();
}

/// One connection to a proxy, three requests: for a listed host, for one that nobody listed, and a tunnel to it.
const PROXY: &str = "
import socket, sys
def ask(*requests):
    with socket.create_connection(('192.0.2.40', 8080)) as s:
        s.settimeout(10)
        for request in requests:
            s.sendall(request.replace('|', '\\r\\n').encode())
            try:
                print(repr(s.recv(400)), flush=True)
            except OSError as error:
                print(error, flush=True)
                return
good = 'GET http://www.innocent.test/ HTTP/1.1|Host: www.innocent.test||'
ask(good, good)
ask(good, 'GET http://api.protected.test/ HTTP/1.1|Host: api.protected.test||')
ask(good, 'CONNECT api.protected.test:443 HTTP/1.1|Host: api.protected.test||')
";

fn proxy(ground: &Ground, net: &Net) -> Vec<String> {
    // It says again what it hears.
    net.put(8080, Host::Proxy(SocketAddr::from(([192, 0, 2, 10], 80))));
    let script = ground.write_home("proxy.py", 0o644, PROXY).display().to_string();
    ["/usr/bin/python3", &script].map(str::to_owned).into()
}

/// Every word that the proxy heard.
fn heard(net: &Net) -> String {
    let packets = net.packets_to(NAMELESS);
    packets.iter().map(|packet| String::from_utf8_lossy(&packet.bytes).into_owned()).collect()
}

#[test]
fn a_second_request_without_ana() {
    let (ground, net) = (Ground::bare("second-bare"), Net::new("second-bare"));
    let command = proxy(&ground, &net);
    net.run_without_ana(&ground, &command).assert_code(0);
    let heard = heard(&net);
    assert!(heard.contains("CONNECT api.protected.test"), "{heard}");
    assert!(heard.contains("GET http://api.protected.test"), "{heard}");
}

/// Where only what is listed is reached, a proxy is asked for nothing else, however late.
#[test]
fn a_second_request() {
    let (ground, net) = (Ground::new("second"), Net::new("second"));
    ground.connecting(
        "[network]\ndefault = \"deny\"\n\
         [[connect]]\nname = \"proxy\"\ncidr = [\"192.0.2.40\"]\nverdict = \"allow\"\n\
         [[connect]]\nname = \"good\"\nhost = [\"www.innocent.test\"]\nverdict = \"allow\"\n",
    );
    let command = proxy(&ground, &net);
    net.start(&ground, &command).finish().assert_code(0);
    let heard = heard(&net);
    assert_eq!(heard.matches("GET http://www.innocent.test").count(), 4, "{heard}");
    assert!(!heard.contains("api.protected.test"), "{heard}");
    ground.verify();
}
