//! Real clients against real servers in namespaces of their own: each is held before a single packet has gone to the host,
//! and answered once it was approved, over IPv4 and IPv6.

use std::{process::Stdio, time::Duration};

use ana_tests::{
    Finished, Ground, Net, Session,
    answers::Answer,
    machine::which,
    net::{API, servers},
    skip::skipped,
    wait,
};

/// What all of them together may take.
const LIMIT: Duration = Duration::from_secs(120);

/// The clients, each as a shell command that prints what it was answered, and what that is.
fn clients(test: &str, ground: &Ground) -> Vec<(&'static str, String, &'static str)> {
    let (node, python) = (ground.script("client.mjs"), ground.script("client.py"));
    let node = format!("node --no-warnings --experimental-websocket {node}");
    let python = format!("/usr/bin/python3 {python}");
    let curl = "curl --silent --show-error";
    let upgrade = "--http1.1 --include -H 'Connection: Upgrade' -H 'Upgrade: websocket' \
         -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=='";
    let mut all = vec![
        ("curl-1", format!("{curl} --http1.1 -4 https://api.protected.test/a"), "1.1 api.protected.test /a"),
        ("curl-2", format!("{curl} --http2 -6 https://api.protected.test/b"), "2.0 api.protected.test /b"),
        ("curl-http", format!("{curl} -6 http://api.protected.test/c"), "1.1 api.protected.test /c"),
        // It waits for frames until the server has had enough of it.
        (
            "curl-socket",
            format!("{curl} {upgrade} https://api.protected.test/d || true"),
            "101 Switching Protocols",
        ),
        ("node", format!("{node} fetch https://api.protected.test/e"), "200 1.1 api.protected.test /e"),
        ("node-socket", format!("{node} socket wss://api.protected.test/f"), "over-a-websocket"),
        (
            "requests",
            format!("{python} requests https://api.protected.test/g"),
            "200 1.1 api.protected.test /g",
        ),
        ("aiohttp", format!("{python} aiohttp https://api.prod.example/h"), "200 1.1 api.prod.example /h"),
        (
            "git",
            "git clone -q https://api.protected.test/git/ cloned && cat cloned/file".to_owned(),
            "from-git",
        ),
    ];
    match servers::go_client() {
        Some(go) => {
            let go = format!("{} https://cname.test/i", go.display());
            all.push(("go", go, "200 2.0 cname.test /i"));
        }
        None => skipped(test, "no Go"),
    }
    all
}

/// Node and the Python modules are `cargo xtask test`'s to install.
fn ready(test: &str) -> bool {
    let there = which("node").is_some();
    if !there {
        skipped(test, "no node to serve and to fetch with");
    }
    there
}

/// Starts those whose names it reads; each writes to a file of its own.
fn script(clients: &[(&str, String, &str)]) -> Vec<String> {
    let mut script = "while read name; do case $name in\n".to_owned();
    for (name, command, _) in clients {
        script.push_str(&format!("{name}) ({command}) > out.{name} 2>&1 & ;;\n"));
    }
    script.push_str("esac; done; wait");
    ["/bin/bash", "-c", &script].map(str::to_owned).into()
}

#[track_caller]
fn assert_answered(ground: &Ground, clients: &[(&str, String, &str)], finished: &Finished) {
    let told = |name: &str| std::fs::read_to_string(ground.home().join(format!("out.{name}")));
    for (name, _, expected) in clients {
        let told = told(name).unwrap_or_default();
        assert!(told.contains(expected), "{name}: no {expected:?} in {told:?}\n{}", finished.stderr());
    }
}

#[test]
fn every_client_without_ana() {
    if !ready("every_client_without_ana") {
        return;
    }
    let (ground, net) = (Ground::bare("clients-bare"), Net::new("clients-bare"));
    net.web();
    let clients = clients("every_client_without_ana", &ground);
    net.assert_untouched(API);
    let mut command = net.without_ana(&ground, &script(&clients));
    let mut session = Session::of(command.stdin(Stdio::piped()));
    clients.iter().for_each(|(name, ..)| session.say(name));
    session.hush();
    let finished = session.finish_within(LIMIT).assert_code(0);
    assert_answered(&ground, &clients, &finished);
    let arrivals = net.arrivals_at(API);
    assert!(arrivals.len() >= clients.len(), "{arrivals:?}");
    assert!(arrivals.iter().any(|arrival| arrival.to.is_ipv6()), "{arrivals:?}");
    assert!(arrivals.iter().any(|arrival| arrival.to.is_ipv4()), "{arrivals:?}");
}

/// Every one of them is a question of its own, about the program that connects; the hosts saw nothing until then. One after
/// the other: some wait for their connection for ten seconds only.
#[test]
fn every_client_is_held_and_approved() {
    if !ready("every_client_is_held_and_approved") {
        return;
    }
    let (ground, net) = (Ground::new("clients"), Net::new("clients"));
    net.web();
    let clients = clients("every_client_is_held_and_approved", &ground);
    let names = "\"api.protected.test\", \"cname.test\", \"*.prod.example\"";
    ground.connecting(&format!("[[connect]]\nname = \"api\"\nhost = [{names}]\n"));
    let mut session = net.launch(&ground, &script(&clients)).start_listening();
    let mut questions = Vec::new();
    for (name, ..) in &clients {
        let arrived = net.arrivals_at(API).len();
        session.say(name);
        let question = ground.question_of_within(&mut session, LIMIT);
        assert_eq!(net.arrivals_at(API).len(), arrived, "{name} is held, and something arrived");
        let connect = question.connect();
        assert_eq!((question.kind.as_str(), question.rule.as_str()), ("connect", "api"), "{question:#?}");
        let source = if connect["port"] == 80 { "host" } else { "sni" };
        assert_eq!(connect["name_source"], source, "{connect}");
        assert_eq!(connect["tls"], connect["port"] == 443, "{connect}");
        assert!(question.summary.contains(connect["name"].as_str().expect("a name")), "{}", question.summary);
        ground.approve(&question.id);
        wait::until("it arrives", || (net.arrivals_at(API).len() > arrived).then_some(()));
        questions.push(question);
    }
    session.hush();
    let of = |address: &str| questions.iter().filter(|q| q.connect()["address"] == address).count();
    assert!(of("192.0.2.10") >= 1 && of("2001:db8::10") >= 2, "{questions:#?}");
    // git may come back for more.
    let (finished, _) = ground.answered(session, Answer::Approve, LIMIT);
    assert_answered(&ground, &clients, &finished.assert_code(0));
    assert!(net.arrivals_at(API).len() <= ground.connections().iter().filter(|d| d.approves()).count());
    ground.verify();
}
