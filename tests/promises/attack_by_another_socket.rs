//! Sockets that are not what they seem: handed over the session's border, opened in a namespace of one's own, the proxy's
//! own, and the way out over a service of this machine.

use std::path::PathBuf;

use ana_tests::{
    Ground, Net, Session,
    attempt::{assert_all, assert_none_granted, attempts},
    machine::{machine, path_str},
    net::{API, both},
    skip::skipped,
    wait,
};

const POLICY: &str = "[[connect]]\nname = \"api\"\nhost = [\"api.protected.test\"]\nverdict = \"deny\"\n";

fn pass(part: &str, ground: &Ground) -> Vec<String> {
    let (program, path) = (machine().program("attack-net-pass"), meeting(ground));
    [path_str(&program), part, path_str(&path), "192.0.2.10", "7777"].map(str::to_owned).into()
}

fn meeting(ground: &Ground) -> PathBuf {
    ground.home().join("meeting")
}

/// Somebody outside who waits for the session's attacker.
fn outside(net: &Net, ground: &Ground, part: &str) -> Session {
    let mut command = net.without_ana(ground, &pass(part, ground));
    let session = Session::of(command.stdin(std::process::Stdio::null()));
    session.until_stdout("listening");
    session
}

#[test]
fn handed_over_without_ana() {
    let (ground, net) = (Ground::bare("handed-bare"), Net::new("handed-bare"));
    let giver = outside(&net, &ground, "give");
    let told = net.run_without_ana(&ground, &pass("take", &ground)).assert_code(0).stdout();
    assert_all(&told, &["fresh", "connected"], "ok");
    drop(giver);
    std::fs::remove_file(meeting(&ground)).expect("the meeting is over");
    let borrower = outside(&net, &ground, "borrow");
    net.run_without_ana(&ground, &pass("lend", &ground)).assert_code(0);
    assert_all(&borrower.finish().stdout(), &["borrowed"], "ok");
}

/// A socket belongs to the session that opened it, whoever connects it.
#[test]
fn a_socket_of_the_session_lent_to_somebody_outside() {
    let (ground, net) = (Ground::new("lent"), Net::new("lent"));
    ground.connecting(POLICY);
    let borrower = outside(&net, &ground, "borrow");
    net.start(&ground, &pass("lend", &ground)).finish().assert_code(0);
    assert_none_granted(&borrower.finish().stdout(), &["borrowed"]);
    net.assert_untouched(API);
    ground.verify();
}

/// How far the hooks go: who has a helper outside needs no socket of its. This says what is so, and the README that it is.
#[test]
fn a_socket_from_outside_is_its_givers() {
    let (ground, net) = (Ground::new("given"), Net::new("given"));
    ground.connecting(POLICY);
    let giver = outside(&net, &ground, "give");
    let told = net.start(&ground, &pass("take", &ground)).finish().assert_code(0).stdout();
    println!("a socket from outside: {:?}", attempts(&told));
    assert_all(&told, &["meet"], "ok");
    drop(giver);
    ground.verify();
}

/// Opens a socket, and goes to a network namespace of its own before it connects; then the same in the other order.
const APART: &str = "
import ctypes, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def say(name, error=None): print('attempt %s: %s' % (name, 'ok' if error is None else error), flush=True)
def reach(name, s):
    try:
        s.settimeout(5); s.connect(('192.0.2.10', 7777)); s.sendall(b'apart\\n'); assert s.recv(16) == b'apart\\n'
        say(name)
    except OSError as error: say(name, error.errno or repr(error))
before = socket.socket()
say('unshare', None if libc.unshare(0x10000000 | 0x40000000) == 0 else ctypes.get_errno())
reach('before', before)
reach('after', socket.socket())
";

#[test]
fn apart_without_ana() {
    let (ground, net) = (Ground::bare("apart-bare"), Net::new("apart-bare"));
    let told = net.run_without_ana(&ground, &["python3", "-c", APART]).assert_code(0).stdout();
    assert_all(&told, &["before"], "ok");
    assert_none_granted(&told, &["after"]);
}

#[test]
fn apart() {
    let (ground, net) = (Ground::new("apart"), Net::new("apart"));
    for unshared in [false, true] {
        ground.connecting(POLICY);
        if unshared && !ground.with_namespaces("apart", POLICY) {
            continue;
        }
        let told = net.start(&ground, &["python3", "-c", APART]).finish().assert_code(0).stdout();
        assert_eq!(attempts(&told)["unshare"] == "ok", unshared, "{told}");
        assert_none_granted(&told, &["before", "after"]);
    }
    net.assert_untouched(API);
    ground.verify();
}

/// Whatever listens on loopback is talked to, from inside of the session and by somebody else: nobody gets anything
/// through the proxy that was not asked for the usual way.
#[test]
fn the_proxy_itself() {
    let (ground, net) = (Ground::new("proxy"), Net::new("proxy"));
    ground.connecting(
        "[network]\nloopback = \"any\"\n[[connect]]\nname = \"api\"\nhost = [\"api.protected.test\"]\nverdict = \"allow\"\n",
    );
    let program = machine().program("attack-net-proxy");
    // Allowed as it is: the rule is not what refuses.
    let script = format!("curl -sS http://api.protected.test/; {} '200 OK'; read line", path_str(&program));
    let mut session = net.launch(&ground, &["bash", "-c", &script]).start_listening();
    session.until_stdout("listeners");
    let reached = net.arrivals_at(API).len();
    assert_eq!(reached, 1, "{}", session.stdout());
    let outside = net.run_without_ana(&ground, &[path_str(&program), "200 OK"]).assert_code(0).stdout();
    session.hush();
    let inside = session.finish().stdout();
    for told in [&inside, &outside] {
        let all = attempts(told);
        assert!(!all.is_empty(), "the proxy listens somewhere: {told}");
        assert!(all.values().all(|word| word != "ok"), "{told}");
    }
    assert!(attempts(&inside).values().any(|word| word == "EPERM"), "{inside}");
    assert_eq!(net.arrivals_at(API).len(), reached, "nothing more");
    ground.verify();
}

/// Out of the session by a service of this machine, which is outside.
fn over_ssh(net: &Net, ground: &Ground, test: &str) -> Option<Vec<String>> {
    let Some(mut command) = net.ssh_at_client(ground) else {
        skipped(test, "no OpenSSH server");
        return None;
    };
    command
        .extend(["-p", "2222", "127.0.0.1", "curl", "-sS", "http://192.0.2.10/over-ssh"].map(str::to_owned));
    Some(command)
}

#[test]
fn ssh_to_localhost_without_ana() {
    let (ground, net) = (Ground::bare("localhost-bare"), Net::new("localhost-bare"));
    let Some(command) = over_ssh(&net, &ground, "ssh_to_localhost_without_ana") else { return };
    net.run_without_ana(&ground, &command).assert_code(0).assert_stdout("/over-ssh");
}

#[test]
fn ssh_to_localhost() {
    let (ground, net) = (Ground::new("localhost"), Net::new("localhost"));
    let Some(command) = over_ssh(&net, &ground, "ssh_to_localhost") else { return };
    ground.connecting(POLICY);
    let mut session = net.start(&ground, &command);
    let question = ground.question_of(&mut session);
    assert_eq!(question.rule, "builtin:local-services");
    let listener = question.connect()["listener"]["program"]["text"].to_string();
    assert!(listener.contains("sshd"), "{question:#?}");
    ground.deny(&question.id, "not that way");
    assert_ne!(session.finish().code(), 0);
    wait::never_during(std::time::Duration::from_millis(300), "ssh leads out", || {
        let arrivals = net.arrivals();
        arrivals.iter().any(|arrival| both(API).contains(&arrival.to.ip())).then(|| format!("{arrivals:?}"))
    });
    ground.verify();
}
