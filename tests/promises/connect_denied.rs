//! What is not approved reaches nobody, and the program is told why in the way that it understands.

use std::time::{Duration, Instant};

use ana_tests::{
    Ground, Net,
    net::{API, INNOCENT, NAMELESS},
};

/// The two ways that curl has, each with what it says of itself: exit status, answer.
const SCRIPT: &str = "curl -sS -o plain.txt -w '%{http_code}' http://api.protected.test/plain > plain.code 2>plain.err; \
     echo plain $?; curl -sS -k https://api.protected.test/tls 2>tls.err; echo tls $?";

fn read(ground: &Ground, name: &str) -> String {
    std::fs::read_to_string(ground.home().join(name)).unwrap_or_default()
}

/// 403 with the reason for HTTP, an alert for TLS, a line on stderr for both.
#[test]
fn by_a_person() {
    let (ground, net) = (Ground::new("denied"), Net::new("denied"));
    ground.protecting_api();
    let mut session = net.start(&ground, &["bash", "-c", SCRIPT]);
    let plain = net.held(&ground, &mut session, 1, API).remove(0);
    ground.deny(&plain.id, "not today");
    session.until_stdout("plain 0");
    let tls = net.held(&ground, &mut session, 1, API).remove(0);
    ground.deny(&tls.id, "nor tomorrow");
    let finished = session.finish().assert_code(0);
    // 35: the TLS handshake failed.
    assert!(finished.stdout().contains("tls 35"), "{}", finished.stdout());
    assert_eq!(read(&ground, "plain.code"), "403");
    let body = read(&ground, "plain.txt");
    assert!(body.contains("not today") && body.contains(&plain.id), "{body}");
    let alert = read(&ground, "tls.err");
    assert!(alert.contains("access denied"), "{alert}");
    let told = read(&ground, "plain.err") + &alert;
    for (question, reason) in [(&plain, "not today"), (&tls, "nor tomorrow")] {
        let line = told.lines().find(|line| line.contains(&question.id));
        let line = line.unwrap_or_else(|| panic!("nothing of {} in {told}", question.id));
        assert!(line.contains("ana: denied: ") && line.contains(reason), "{line}");
        assert!(line.contains("api.protected.test"), "{line}");
    }
    net.assert_untouched(API);
    let denials: Vec<_> = ground.connections().into_iter().filter(|record| record.denies()).collect();
    assert_eq!(denials.len(), 2);
    assert!(denials.iter().all(|record| record.decided_by() == "person"), "{denials:#?}");
    ground.verify();
}

/// Nobody is asked, and the reason is the rule.
#[test]
fn by_a_rule() {
    let (ground, net) = (Ground::new("denied-rule"), Net::new("denied-rule"));
    ground.connecting(
        "[[connect]]\nname = \"never\"\nhost = [\"api.protected.test\"]\nverdict = \"deny\"\n\
         [[connect]]\nname = \"machine\"\ncidr = [\"192.0.2.40\", \"2001:db8::40\"]\nverdict = \"deny\"\n",
    );
    let literal = "for host in 192.0.2.40 2001:db8::40 ::ffff:192.0.2.40; do bash -c \"exec 3<>/dev/tcp/$host/7777; \
         echo hello >&3; read line <&3; echo got \\$line\" 2>literal.err; done";
    let finished =
        net.start(&ground, &["bash", "-c", &format!("{SCRIPT}; {literal}")]).finish().assert_code(0);
    assert!(finished.stdout().contains("tls 35"), "{}", finished.stdout());
    assert!(!finished.stdout().contains("got hello"), "{}", finished.stdout());
    assert_eq!(read(&ground, "plain.code"), "403");
    assert!(read(&ground, "plain.txt").contains("never"), "{}", read(&ground, "plain.txt"));
    net.assert_untouched(API);
    net.assert_untouched(NAMELESS);
    let decisions = ground.connections();
    assert!(
        decisions.iter().all(|record| record.denies() && record.decided_by() == "rule"),
        "{decisions:#?}"
    );
    assert!(decisions.len() >= 5, "{decisions:#?}");
    ground.verify();
}

/// Nobody answers: the same as a denial, after the rule's own time.
#[test]
fn by_time() {
    let (ground, net) = (Ground::new("denied-time"), Net::new("denied-time"));
    ground.connecting("[[connect]]\nname = \"api\"\nhost = [\"api.protected.test\"]\ntimeout = \"1s\"\n");
    let begin = Instant::now();
    let finished = net.start(&ground, &["bash", "-c", SCRIPT]).finish().assert_code(0);
    assert!(begin.elapsed() >= Duration::from_secs(2), "both waited: {:?}", begin.elapsed());
    assert!(finished.stdout().contains("tls 35"), "{}", finished.stdout());
    assert_eq!(read(&ground, "plain.code"), "403");
    net.assert_untouched(API);
    assert!(ground.connections().iter().all(|record| record.decided_by() == "timeout"));
    ground.verify();
}

/// A rule for one program is none for another one: what asks is the file, not what it calls itself.
#[test]
fn a_rule_for_a_program() {
    let (ground, net) = (Ground::new("denied-exe"), Net::new("denied-exe"));
    let curl = std::fs::canonicalize("/usr/bin/curl").expect("curl is installed");
    ground.connecting(&format!(
        "[[exec]]\nname = \"curl\"\nfile = [{curl:?}]\notherwise = \"allow\"\n\
         [[connect]]\nname = \"curl may\"\nhost = [\"api.protected.test\"]\nexe = [{curl:?}]\nverdict = \"allow\"\n\
         [[connect]]\nname = \"others may not\"\nhost = [\"api.protected.test\"]\nverdict = \"deny\"\n"
    ));
    let python = "import socket; s = socket.create_connection(('api.protected.test', 80)); \
         s.sendall(b'GET /python HTTP/1.1\\r\\nHost: api.protected.test\\r\\n\\r\\n'); print(s.recv(4096))";
    ground.write_home("fetch.py", 0o644, python);
    let script = "curl -sS http://api.protected.test/curl; cp /usr/bin/python3 ./curl; ./curl fetch.py";
    let finished = net.start(&ground, &["bash", "-c", script]).finish().assert_code(0);
    finished.assert_stdout("1.1 api.protected.test /curl").assert_stdout("403");
    let firsts: Vec<_> = net.arrivals_at(API).into_iter().map(|arrival| arrival.first).collect();
    assert_eq!(firsts.len(), 1, "{firsts:?}");
    assert!(firsts[0].starts_with(b"GET /curl "), "{firsts:?}");
    ground.verify();
}

/// `[network] default = "deny"` with a list: only what is on it.
#[test]
fn by_default() {
    let (ground, net) = (Ground::new("denied-default"), Net::new("denied-default"));
    ground.connecting(
        "[network]\ndefault = \"deny\"\n[[connect]]\nname = \"docs\"\nhost = [\"www.innocent.test\"]\nverdict = \"allow\"\n",
    );
    let script = "curl -sS http://www.innocent.test/yes; curl -sS http://api.protected.test/no; \
         bash -c 'exec 3<>/dev/tcp/192.0.2.40/7777; echo hello >&3; read line <&3; echo got $line'; \
         bash -c 'echo hello > /dev/udp/192.0.2.40/7777 && echo sent'; true";
    let finished = net.start(&ground, &["bash", "-c", script]).finish().assert_code(0);
    let told = finished.stdout();
    assert!(told.contains("1.1 www.innocent.test /yes"), "{told}");
    assert!(!told.contains("1.1 api.protected.test") && !told.contains("got hello"), "{told}");
    assert!(!told.contains("sent"), "{told}");
    assert_eq!(net.arrivals_at(INNOCENT).len(), 1);
    net.assert_untouched(API);
    net.assert_untouched(NAMELESS);
    ground.verify();
}

/// `[network] default = "approve"`: what no rule names is asked about, whatever its port and its protocol.
#[test]
fn what_no_rule_names() {
    let (ground, net) = (Ground::new("asked-default"), Net::new("asked-default"));
    ground.connecting("[network]\ndefault = \"approve\"\n");
    let script = "bash -c 'exec 3<>/dev/tcp/192.0.2.40/7777; echo hello >&3; read line <&3; echo got $line'";
    let mut session = net.start(&ground, &["bash", "-c", script]);
    let question = net.held(&ground, &mut session, 1, NAMELESS).remove(0);
    assert_eq!(question.rule, "builtin:network", "{question:#?}");
    ground.approve(&question.id);
    session.finish().assert_code(0).assert_stdout("got hello");
    ground.verify();
}

/// What they fetch is there for whoever is not in a session.
#[test]
fn nobody_without_ana() {
    let (ground, net) = (Ground::bare("denied-bare"), Net::new("denied-bare"));
    net.run_without_ana(&ground, &["bash", "-c", SCRIPT]).assert_code(0);
    assert_eq!(read(&ground, "plain.code"), "200");
    assert_eq!(net.arrivals_at(API).len(), 2);
}
