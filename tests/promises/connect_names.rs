//! Names: what the session asks the DNS is answered by the server that it asked, and remembered; what would hide a name
//! from the gate is taken away or refused.

use ana_tests::{
    Ground, Net,
    net::{API, Https, INNOCENT, NAMELESS, Name, RESOLVER, SHARED},
};

/// What `dns.py` printed, without the line that says from whom it came.
fn answers(told: &str) -> Vec<&str> {
    told.lines().filter_map(|line| line.strip_prefix("answer ")).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The server's answers, and the server's address as theirs, over UDP and TCP, IPv4 and IPv6, connected or not.
#[test]
fn answers_are_the_servers_own() {
    let (ground, net) = (Ground::new("dns"), Net::new("dns"));
    ground.protecting_api();
    let dns = ground.script("dns.py");
    let mut script = String::new();
    for server in [RESOLVER.0.to_string(), RESOLVER.1.to_string()] {
        for how in ["", "connected", "tcp"] {
            for (name, kind) in [("api.protected.test", 1), ("www.innocent.test", 28), ("no.such.test", 1)] {
                script.push_str(&format!("python3 {dns} {server} {name} {kind} {how}\n"));
            }
        }
    }
    script.push_str("getent ahosts cname.test; getent ahosts www.innocent.test\n");
    let bare = net.run_without_ana(&ground, &["bash", "-c", &script]).assert_code(0).stdout();
    assert_eq!(answers(&bare).len(), 18, "{bare}");
    let asked = net.dns.asked().len();
    let inside = net.start(&ground, &["bash", "-c", &script]).finish().assert_code(0);
    assert_eq!(inside.stdout(), bare, "{}", inside.stderr());
    assert!(net.dns.asked().len() >= asked + 18, "the server was asked each time");
    assert!(ground.connections().is_empty(), "{:#?}", ground.connections());
}

/// A literal address is what its name is, whoever looked that up; an alias's address is its target's.
#[test]
fn an_address_of_a_protected_name_is_protected() {
    let (ground, net) = (Ground::new("dns-literal"), Net::new("dns-literal"));
    ground.protecting_api();
    let script = "curl -sS -k --max-time 20 https://192.0.2.10/literal > a.out 2>&1 & \
         curl -sS -k --max-time 20 'https://[2001:db8::10]/literal' > b.out 2>&1 & \
         bash -c 'exec 3<>/dev/tcp/192.0.2.10/7777; read line <&3' & wait";
    let mut session = net.start(&ground, &["bash", "-c", script]);
    for question in net.held(&ground, &mut session, 3, API) {
        assert!(question.connect()["names"].to_string().contains("api.protected.test"), "{question:#?}");
        ground.deny(&question.id, "a literal");
    }
    session.finish();
    net.assert_untouched(API);
    ground.verify();
}

/// Two names, one address: who shows the other name is not asked, unless the rule is about the address.
#[test]
fn a_shared_address() {
    let (ground, net) = (Ground::new("dns-shared"), Net::new("dns-shared"));
    let script =
        "curl -sS http://shared.test/innocent; curl -sS --max-time 20 http://api.protected2.test/protected";
    let rule = "[[connect]]\nname = \"two\"\nhost = [\"api.protected2.test\"]\n";
    ground.connecting(rule);
    let mut session = net.start(&ground, &["bash", "-c", script]);
    let question = ground.question_of(&mut session);
    assert_eq!(question.connect()["name"], "api.protected2.test");
    ground.deny(&question.id, "the protected one");
    session.finish().assert_stdout("1.1 shared.test /innocent");
    assert_eq!(net.arrivals_at(SHARED).len(), 1);
    ground.connecting(&format!("{rule}address = true\n"));
    let mut session = net.start(&ground, &["bash", "-c", script]);
    for _ in 0..2 {
        let question = ground.question_of(&mut session);
        ground.deny(&question.id, "this address at all");
    }
    session.finish();
    assert_eq!(net.arrivals_at(SHARED).len(), 1, "nothing more");
    ground.verify();
}

/// An alias of a protected name counts as its address where the rule is about addresses.
#[test]
fn an_alias() {
    let (ground, net) = (Ground::new("dns-alias"), Net::new("dns-alias"));
    ground.connecting("[[connect]]\nname = \"api\"\nhost = [\"api.protected.test\"]\naddress = true\n");
    let mut session = net.start(&ground, &["curl", "-sS", "http://cname.test/alias"]);
    let question = net.held(&ground, &mut session, 1, API).remove(0);
    assert_eq!(question.connect()["name"], "cname.test");
    assert!(question.connect()["names"].to_string().contains("api.protected.test"), "{question:#?}");
    ground.approve(&question.id);
    session.finish().assert_code(0).assert_stdout("1.1 cname.test /alias");
    ground.verify();
}

/// An HTTPS record loses its key for encrypted names; the addresses that it hints at are those of its name.
#[test]
fn hints_count_and_keys_go() {
    let (ground, net) = (Ground::new("dns-https"), Net::new("dns-https"));
    let key = b"encrypted-client-hello-config";
    let hints = vec![NAMELESS.0.into(), NAMELESS.1.into()];
    let https = Https { target: None, ech: key.to_vec(), hints };
    net.dns.put_name("hinted.protected.test", Name { https: Some(https), ttl: 60, ..Name::default() });
    ground.connecting("[[connect]]\nname = \"hinted\"\nhost = [\"**.protected.test\"]\n");
    let dns = ground.script("dns.py");
    let script = format!(
        "python3 {dns} {0} hinted.protected.test 65; python3 {dns} {0} hinted.protected.test 65 tcp; \
         bash -c 'exec 3<>/dev/tcp/2001:db8::40/7777; echo hello >&3; read line <&3; echo got $line'",
        RESOLVER.0
    );
    let bare = net.run_without_ana(&ground, &["bash", "-c", &script]).stdout();
    let answer = answers(&bare);
    assert_eq!(answer.len(), 2, "{bare}");
    assert!(answer[0].contains(&hex(key)) && bare.contains("got hello"), "{bare}");
    let before = net.arrivals_at(NAMELESS).len();
    let mut session = net.start(&ground, &["bash", "-c", &script]);
    let question = ground.question_of(&mut session);
    assert!(question.connect()["names"].to_string().contains("hinted.protected.test"), "{question:#?}");
    assert_eq!(net.arrivals_at(NAMELESS).len(), before);
    ground.deny(&question.id, "a hint");
    let told = session.finish().stdout();
    let cleaned = answers(&told);
    assert_eq!(cleaned.len(), 2, "{told}");
    for answer in cleaned {
        assert!(!answer.contains(&hex(key)), "the key is gone: {answer}");
        let hints = [hex(&NAMELESS.0.octets()), hex(&NAMELESS.1.octets()), hex(b"\x02h2")];
        assert!(hints.iter().all(|hint| answer.contains(hint)), "and nothing else: {answer}");
    }
    ground.verify();
}

/// Tells whether something can be sent, and how that is refused.
const TRY: &str = "
import socket, sys
for what in sys.argv[1:]:
    kind, host, port = what.split('/')
    try:
        with socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET, getattr(socket, 'SOCK_' + kind)) as s:
            s.settimeout(5)
            s.connect((host, int(port)))
            s.sendall(b'hello')
            print(what, s.recv(16).decode(), flush=True)
    except OSError as error:
        print(what, 'errno', error.errno, flush=True)
";

/// DNS over TLS and QUIC to a port where names are looked at: EPERM at once, so that programs fall back. A policy may
/// allow them.
#[test]
fn encrypted_dns_and_quic() {
    let (ground, net) = (Ground::new("dns-tls"), Net::new("dns-tls"));
    let program = ground.write_home("try.py", 0o644, TRY).display().to_string();
    let what =
        ["STREAM/192.0.2.20/853", "STREAM/2001:db8::20/853", "DGRAM/192.0.2.20/853", "DGRAM/192.0.2.20/443"];
    let command: Vec<&str> = ["python3", &program].into_iter().chain(what).collect();
    net.run_without_ana(&ground, &command).assert_stdout("853 hello").assert_stdout("443 hello");
    let before = net.packets_to(INNOCENT).len();
    ground.protecting_api();
    let told = net.start(&ground, &command).finish().assert_code(0).stdout();
    // EPERM is 1.
    assert_eq!(told.matches("errno 1\n").count(), what.len(), "{told}");
    assert_eq!(net.packets_to(INNOCENT).len(), before, "nothing was sent");
    ground.connecting(
        "[network]\nencrypted_dns = \"allow\"\nquic = \"allow\"\n\
         [[connect]]\nname = \"api\"\nhost = [\"api.protected.test\"]\n",
    );
    let told = net.start(&ground, &command).finish().assert_code(0).stdout();
    assert_eq!(told.matches(" hello\n").count(), what.len(), "{told}");
    ground.verify();
}

/// A known server of DNS over HTTPS is refused by its name.
#[test]
fn dns_over_https() {
    let (ground, net) = (Ground::new("dns-doh"), Net::new("dns-doh"));
    net.web();
    net.dns.put("dns.google", &[INNOCENT.0.into()]);
    let command = ["curl", "-sS", "-k", "https://dns.google/dns-query"];
    net.run_without_ana(&ground, &command).assert_code(0).assert_stdout("dns.google /dns-query");
    let before = net.arrivals_at(INNOCENT).len();
    ground.protecting_api();
    let finished = net.start(&ground, &command).finish();
    assert_eq!(finished.code(), 35, "{}", finished.stderr());
    assert_eq!(net.arrivals_at(INNOCENT).len(), before);
    ground.verify();
}
