//! Supervisor and warden killed in one go, and the session leader with them: what still holds then.

use std::fs;

use ana_tests::{
    Ground, Net, Session,
    ground::cgroups_of,
    machine,
    net::{API, NAMELESS},
    processes, records, wait,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Kills all of them as if at once: none of them can react to the end of another.
fn kill_at_once(all: &[i32]) {
    for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
        all.iter().for_each(|&pid| kill(Pid::from_raw(pid), signal).expect("root may"));
    }
    wait::until("the killed are dead", || all.iter().all(|&pid| !processes::alive(pid)).then_some(()));
}

/// Everybody who could end the session's tree: supervisor, wardens and session leader.
#[track_caller]
fn keepers(session: &Session) -> Vec<i32> {
    let supervisor = session.supervisor();
    let leaders = processes::below_named(supervisor, "ana-leader");
    assert_eq!(leaders.len(), 1, "one session leader");
    let mut all = session.wardens();
    all.extend(leaders);
    all.push(supervisor);
    all
}

/// Somebody outside is not kept waiting.
#[track_caller]
fn the_host_goes_on(ground: &Ground) {
    let command = [ground.deploy().into_os_string(), "outside".into()];
    let outside = Session::of(ground.without_ana(&command).stdin(std::process::Stdio::null()));
    outside.finish_within(wait::SOON).assert_code(0).assert_stdout("marker: ran outside");
}

/// The next start removes what is left and writes down that it was.
#[track_caller]
fn the_next_start_cleans_up(ground: &Ground, id: &str) {
    ground.run(&["true"]).assert_code(0);
    assert!(cgroups_of(id).is_empty(), "the cgroups are still there");
    let ends = ground.records_of("session-end");
    let end = ends.iter().find(|end| end.payload["session"] == id).expect("the end is recorded");
    assert_eq!(end.payload["detail"]["abandoned"], true, "{}", end.payload);
    ground.verify();
}

/// Of the protected program only [`the_host_goes_on`] has run.
#[track_caller]
fn nothing_of_the_session_ran(ground: &Ground) {
    let ran: Vec<_> = ground.markers().iter().map(ana_tests::Marker::args).collect();
    assert_eq!(ran, [["outside"]], "nothing of the session ran");
}

#[test]
fn the_session_leader_kills_what_two_keepers_left() {
    let ground = Ground::new("two-keepers");
    let mut session =
        ground.start(&["sh", "-c", &format!("{} held & sleep 1000", ground.deploy().display())]);
    let question = ground.question_of(&mut session);
    let supervisor = session.supervisor();
    let leader = processes::below_named(supervisor, "ana-leader");
    let mut both = session.wardens();
    both.push(supervisor);
    kill_at_once(&both);
    wait::until_within(wait::SOON, "the tree is dead", || {
        let inside = |pid: &i32| processes::cgroup(*pid).is_some_and(|path| path.contains(&question.session));
        let left = processes::all().into_iter().any(|pid| inside(&pid) && processes::alive(pid));
        (!left).then_some(())
    });
    wait::until("the leader has ended", || leader.iter().all(|&pid| !processes::alive(pid)).then_some(()));
    assert_ne!(session.finish_within(wait::SOON).code(), 0);
    the_host_goes_on(&ground);
    the_next_start_cleans_up(&ground, &question.session);
    nothing_of_the_session_ran(&ground);
}

/// Nobody is left to kill the agent. What is pinned in the kernel refuses for it: a held image stays frozen, a protected
/// program does not run. (The agent itself goes on; protected files can be read.)
#[test]
fn the_guard_refuses_when_nobody_is_left() {
    machine::away_from_other_starts();
    let ground = Ground::new("three-keepers");
    let (go, status) = (ground.home().join("go"), ground.home().join("status"));
    let script = format!(
        "trap '' PIPE HUP; {0} held & until [ -e {1} ]; do sleep 0.05; done; {0} unheld; \
         echo $? > {2}.new; mv {2}.new {2}; while :; do sleep 1; done",
        ground.deploy().display(),
        go.display(),
        status.display()
    );
    let mut session = ground.start(&["sh", "-c", &script]);
    let question = ground.question_of(&mut session);
    kill_at_once(&keepers(&session));
    the_host_goes_on(&ground);
    fs::write(&go, "").expect("root may");
    let code = wait::until("the agent tries", || fs::read_to_string(&status).ok());
    assert_eq!(code.trim(), "137", "the guard kills what nobody holds");
    assert!(processes::alive(question.pid()), "nobody kills what is held");
    let hold = processes::cgroup(question.pid()).expect("it lives");
    let events =
        fs::read_to_string(format!("{}{hold}/cgroup.events", processes::cgroup2_mount())).expect("events");
    assert!(events.contains("frozen 1"), "{events}");
    let told = session.finish_within(wait::SOON);
    assert_ne!(told.code(), 0);
    assert!(told.stderr().contains("something of the session still runs"), "{}", told.stderr());
    the_next_start_cleans_up(&ground, &question.session);
    nothing_of_the_session_ran(&ground);
    assert!(!processes::alive(question.pid()));
}

/// Says once how it fares with a protected host; and of both, that one and another, when it is told to.
const CALLER: &str = "
import errno, os, signal, socket, sys, time
signal.signal(signal.SIGHUP, signal.SIG_IGN)
def call(host, port):
    try:
        with socket.create_connection((host, port), 20) as s:
            s.sendall(b'GET /call HTTP/1.1\\r\\nHost: api.protected.test\\r\\n\\r\\n')
            return s.recv(4).decode() or 'nothing'
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
print('called', call('192.0.2.10', 80), flush=True)
go, status = sys.argv[1:]
while not os.path.exists(go): time.sleep(0.02)
with open(status + '.new', 'w') as file: file.write(call('192.0.2.10', 80) + ' ' + call('192.0.2.40', 7777))
os.rename(status + '.new', status)
while True: signal.pause()
";

/// What leads to the proxy is pinned in the kernel as well: who is led there finds nobody. What nobody protects goes on.
#[test]
fn connections_are_refused_when_nobody_is_left() {
    machine::away_from_other_starts();
    let (ground, net) = (Ground::new("net-keepers"), Net::new("net-keepers"));
    ground.connecting("[[connect]]\nname = \"api\"\nhost = [\"api.protected.test\"]\nverdict = \"allow\"\n");
    let (go, status) = (ground.home().join("go"), ground.home().join("status"));
    let command = ["python3", "-c", CALLER, machine::path_str(&go), machine::path_str(&status)];
    let session = net.start(&ground, &command);
    session.until_stdout("called HTTP");
    let before = net.packets_to(API).len();
    kill_at_once(&keepers(&session));
    fs::write(&go, "").expect("root may");
    let told = wait::until("the agent tries", || fs::read_to_string(&status).ok());
    assert_eq!(told, "ECONNREFUSED HTTP");
    let begin = |packet: &&ana_tests::net::Packet| is_syn(packet);
    let after = net.packets_to(API);
    assert_eq!(after[before..].iter().filter(begin).count(), 0, "{:?}", &after[before..]);
    assert_eq!((net.arrivals_at(API).len(), net.arrivals_at(NAMELESS).len()), (1, 1));
    assert_ne!(session.finish_within(wait::SOON).code(), 0);
    let id = records::session_ids(&ground.state()).pop().expect("a session");
    the_next_start_cleans_up(&ground, &id);
}

/// The first packet of a TCP connection.
fn is_syn(packet: &ana_tests::net::Packet) -> bool {
    i32::from(packet.protocol) == libc::IPPROTO_TCP
        && packet.bytes.get(13).is_some_and(|flags| flags & 0x12 == 2)
}
