//! What the agent can have stall (a file system that does not answer) keeps the agent waiting, and nobody else.

use std::{
    ffi::OsString,
    process::Command,
    time::{Duration, Instant},
};

use ana_tests::{
    Ground, Session,
    fuse::Stalling,
    machine::{linux, path_str},
    wait,
};

fn judged(ground: &Ground) {
    ground.policy(
        &(ground.head()
            + &ground.rule("deny = [[\"attack\"]]\nallow = [[\"status\"]]\notherwise = \"approve\"")),
    );
}

fn attack(ground: &Ground, how: &str, stalling: &Stalling) -> Vec<OsString> {
    let arguments: [OsString; 3] = [how.into(), ground.deploy().into(), stalling.folder.clone().into()];
    ground.attack("stall", &arguments)
}

/// The attack, for a shell that goes on.
fn in_background(ground: &Ground, how: &str, stalling: &Stalling) -> String {
    let words = attack(ground, how, stalling).into_iter().map(|word| word.into_string().expect("UTF-8"));
    format!("{} &", words.collect::<Vec<_>>().join(" "))
}

/// A shell in a session that has run `deploy status` once, so that the next ones are let through.
fn quick(name: &str) -> (Ground, Stalling, Session) {
    let ground = Ground::new(name);
    let rule = ground.rule("allow = [[\"status\", \"**\"]]\notherwise = \"deny\"");
    ground.policy(&(ground.head() + &rule));
    let stalling = Stalling::mount(&ground);
    let mut session = ground.launch(&["/bin/sh"]).start_listening();
    session.say(&format!("{} status first", path_str(&ground.deploy())));
    session.until_stdout("ran status first");
    (ground, stalling, session)
}

fn stall(ground: &Ground, how: &str, stalling: &Stalling) -> Session {
    let session = ground.start(&attack(ground, how, stalling));
    session.until_stdout("begun");
    wait::until("somebody waits for the file system", || (stalling.waiting() > 0).then_some(()));
    session
}

/// The host's own exec of the protected program, and another session's, go on.
#[track_caller]
fn others_go_on(ground: &Ground) {
    let begin = Instant::now();
    let run = Command::new(ground.deploy()).env("ANA_TEST_MARKS", "/dev/null").output().expect("it runs");
    assert!(run.status.success(), "{run:?}");
    assert!(begin.elapsed() < wait::SOON, "the host waited {:?}", begin.elapsed());
    let status = [ground.deploy().into_os_string(), "status".into()];
    ground.run(&status).assert_code(0);
    assert!(begin.elapsed() < 2 * wait::SOON, "another session waited {:?}", begin.elapsed());
    assert_eq!(ground.markers().len(), 1);
}

#[track_caller]
fn ends_unrun(ground: &Ground, session: Session) {
    session.finish_within(Duration::from_secs(40));
    assert_eq!(ground.markers().len(), 1, "only the other session's");
    ground.assert_every_run_was_decided();
    ground.verify();
}

/// The exec does not come to its file: nothing was asked, nobody else waits.
#[test]
fn a_path_that_stalls() {
    let ground = Ground::new("stall-path");
    judged(&ground);
    let stalling = Stalling::mount(&ground);
    let session = stall(&ground, "path", &stalling);
    others_go_on(&ground);
    stalling.release();
    ends_unrun(&ground, session);
}

/// The exec was let through, and does not come to its first instruction: after ten seconds it is killed, whenever the file
/// system answers. (Before Linux 6.8 an exec reads its arguments first and opens its file then: it does not come to us.)
#[test]
fn an_argument_that_stalls() {
    for how in ["argv", "envp"] {
        let ground = Ground::new("stall-argv");
        judged(&ground);
        let stalling = Stalling::mount(&ground);
        let session = stall(&ground, how, &stalling);
        others_go_on(&ground);
        if linux() < (6, 8) {
            stalling.release();
            ends_unrun(&ground, session);
            continue;
        }
        wait::until("the exec is given up", || {
            let refused = |record: &ana_tests::records::Record| {
                record.payload["detail"]["refused"]
                    .as_str()
                    .is_some_and(|why| why.contains("first instruction"))
            };
            ground.records_of("tamper").iter().any(refused).then_some(())
        });
        stalling.release();
        ends_unrun(&ground, session);
    }
}

/// A refusal cannot be told: it is refused all the same, and nobody else waits. (The process itself dies when the file
/// system answers: the kernel waits for it when it closes the file.)
#[test]
fn a_stderr_that_stalls() {
    let ground = Ground::new("stall-stderr");
    judged(&ground);
    let stalling = Stalling::mount(&ground);
    let session = stall(&ground, "stderr", &stalling);
    assert!(ground.decisions().iter().any(|record| record.denies()), "refused before it is told");
    others_go_on(&ground);
    stalling.release();
    let told =
        wait::until("the attack is over", || Some(session.stdout()).filter(|told| told.contains("ended")));
    assert!(told.contains("SIGKILL"), "{told}");
    ends_unrun(&ground, session);
}

/// Who holds a lease on a file (F_SETLEASE) keeps those waiting who open it; the kernel opens it for each event, too.
#[test]
fn a_lease_on_a_listed_file() {
    let ground = Ground::new("stall-lease");
    let listed = ground.home().join("listed");
    let rule = ground.rule("allow = [[\"status\", \"**\"]]\notherwise = \"deny\"");
    let own = format!("[[exec]]\nname = \"own\"\nfile = [{listed:?}]\notherwise = \"deny\"\n");
    ground.policy(&(ground.head() + &rule + &own));
    let script = ground.write_home("lease.py", 0o644, LEASE);
    let mut session = ground.launch(&["/bin/sh"]).start_listening();
    let (deploy, home) = (ground.deploy(), ground.home());
    session.say(&format!("{} status first", path_str(&deploy)));
    session.until_stdout("ran status first");
    session.say(&format!("/usr/bin/python3 {} {}", path_str(&script), path_str(&home)));
    session.until_stdout("attempt lease: ok");
    // If it executes the file before that has been marked, it waits for its own lease (45 s, proc_sys_fs(5)).
    wait::until_within(Duration::from_secs(60), "the attack is over", || {
        session.stdout().contains("attempt exec: ").then_some(())
    });
    let begin = Instant::now();
    let run = Command::new(&deploy).env("ANA_TEST_MARKS", "/dev/null").output().expect("it runs");
    assert!(run.status.success(), "{run:?}");
    session.say(&format!("{} status second", path_str(&deploy)));
    session.until_stdout("ran status second");
    assert!(begin.elapsed() < wait::SOON, "the host waited {:?}", begin.elapsed());
    assert!(!session.stdout().contains("attempt exec: ran"), "{}", session.stdout());
    session.hush();
    session.finish_within(Duration::from_secs(40));
    ground.verify();
}

/// Puts a program with a lease on it where one is listed, and executes it. (The lease is broken after 45 s, or when its
/// holder ends.)
const LEASE: &str = "
import fcntl, os, shutil, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
made, listed = (os.path.join(sys.argv[1], name) for name in ('made', 'listed'))
shutil.copy('/bin/true', made)
file = os.open(made, os.O_RDONLY)
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print('attempt lease: ok', flush=True)
os.rename(made, listed)
child = os.fork()
if child == 0:
    os.close(file)
    try: os.execv(listed, ['listed'])
    except OSError as error: os._exit(100 + error.errno)
status = os.waitpid(child, 0)[1]
print('attempt exec:', 'ran' if status == 0 else status, flush=True)
";

/// Ten looks at arguments that do not come: nothing else that executes a protected program waits, wherever it is.
#[test]
fn ten_arguments_that_stall() {
    let (ground, stalling, mut session) = quick("stall-ten");
    let deploy = path_str(&ground.deploy()).to_owned();
    for how in ["argv", "envp"] {
        for _ in 0..5 {
            session.say(&in_background(&ground, how, &stalling));
        }
    }
    wait::until("all have begun", || (session.stdout().matches("begun").count() == 10).then_some(()));
    wait::until("somebody waits for the file system", || (stalling.waiting() > 0).then_some(()));
    let mut inside = Duration::ZERO;
    for round in 0..20 {
        let begin = Instant::now();
        session.say(&format!("{deploy} status {round}; echo round {round}: $?"));
        session.until_stdout(&format!("round {round}: 0"));
        inside = inside.max(begin.elapsed());
    }
    let mut outside = Duration::ZERO;
    for _ in 0..20 {
        let begin = Instant::now();
        let run = Command::new(ground.deploy()).env("ANA_TEST_MARKS", "/dev/null").output().expect("it runs");
        assert!(run.status.success(), "{run:?}");
        outside = outside.max(begin.elapsed());
    }
    let status = [ground.deploy().into_os_string(), "status".into(), "another session".into()];
    let begin = Instant::now();
    ground.run(&status).assert_code(0);
    let other = begin.elapsed();
    println!("inside at most {inside:?}, outside at most {outside:?}, another session {other:?}");
    assert!(inside < wait::SOON, "the session waited {inside:?}");
    assert!(outside < wait::SOON, "the host waited {outside:?}");
    assert!(other < wait::SOON, "another session waited {other:?}");
    assert_eq!(ground.markers().len(), 22, "only what was allowed");
    stalling.release();
    session.hush();
    session.finish_within(Duration::from_secs(60));
    assert_eq!(ground.markers().len(), 22, "none of the ten ran");
    ground.assert_every_run_was_decided();
    ground.verify();
}

/// Its first thread, whose name is no text, reads a file that does not come; then its second one executes something, which
/// kills the first, and waits for its end.
const STUCK: &str = "
import ctypes, os, sys, threading, time
def other():
    while not os.path.exists(sys.argv[2]): time.sleep(0.01)
    os.execv('/bin/true', ['true'])
threading.Thread(target=other).start()
ctypes.CDLL(None).prctl(15, b'\\xff\\xfe', 0, 0, 0)
print('started', os.getpid(), flush=True)
open(sys.argv[1], 'rb').read()
";

/// Has a process of the session wait for the file system so that nothing can end it.
fn stick(ground: &Ground, stalling: &Stalling, session: &mut Session) -> i32 {
    let (script, go) = (ground.write_home("stuck.py", 0o644, STUCK), ground.home().join("go"));
    let words = [&script, &stalling.folder.join("file"), &go].map(|path| path_str(path).to_owned());
    session.say(&format!("python3 {} &", words.join(" ")));
    let told = session.until_stdout("started ");
    let pid = told.split("started ").nth(1).and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    let pid: i32 = pid.expect("its number");
    wait::until("it waits for the file system", || (stalling.waiting() > 0).then_some(()));
    ground.write_home("go", 0o644, "");
    let killed = || {
        let status =
            String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/status")).ok()?).into_owned();
        let pending = status.lines().find_map(|line| line.strip_prefix("SigPnd:\t"))?.to_owned();
        (u64::from_str_radix(&pending, 16).ok()? & 0x100 != 0).then_some(())
    };
    wait::until("its first thread has been killed", killed);
    pid
}

/// What waits for a file system cannot be killed before that answers, so the session does not come to its end. Nobody in it
/// runs any more, and nobody else waits: neither when the agent ends, nor when the supervisor is killed, or hangs.
#[track_caller]
fn keeps_nobody_waiting(end: impl FnOnce(&mut Session)) {
    use ana_tests::processes::alive;

    let (ground, stalling, mut session) = quick("stall-dead");
    let stuck = stick(&ground, &stalling, &mut session);
    let (supervisor, wardens) = (session.supervisor(), session.wardens());
    end(&mut session);
    let limit = Duration::from_secs(60);
    wait::until_within(limit, "the supervisor has ended", || (!alive(supervisor)).then_some(()));
    assert_eq!(wardens.iter().filter(|&&pid| alive(pid)).count(), 1);
    let host = Session::of(&mut ground.without_ana(&[ground.deploy().into_os_string(), "host".into()]));
    let ran = host.finish_within(wait::SOON).assert_code(0).stdout();
    assert!(ran.contains("ran host"), "{ran}");
    let status = [ground.deploy().into_os_string(), "status".into(), "another session".into()];
    ground.run(&status).assert_code(0);
    assert!(alive(stuck), "the file system has not answered yet");
    stalling.release();
    wait::until("it and the warden have ended", || {
        wardens.iter().chain([&stuck]).all(|&pid| !alive(pid)).then_some(())
    });
    session.finish();
    ground.verify();
}

#[test]
fn what_cannot_be_killed_when_the_agent_ends() {
    keeps_nobody_waiting(Session::hush);
}

#[test]
fn what_cannot_be_killed_when_the_supervisor_is() {
    keeps_nobody_waiting(|session| ana_tests::processes::end(session.supervisor()));
}

#[test]
fn what_cannot_be_killed_when_the_supervisor_hangs() {
    keeps_nobody_waiting(|session| {
        let supervisor = nix::unistd::Pid::from_raw(session.supervisor());
        nix::sys::signal::kill(supervisor, nix::sys::signal::Signal::SIGSTOP).expect("root may");
    });
}

/// The file system has taken a look's request and does not answer: the looking thread cannot be killed. It has no
/// descriptors, so that the fanotify group goes with the rest of the supervisor, and nobody waits for an answer.
#[test]
fn a_supervisor_that_dies_while_it_looks() {
    let (ground, stalling, mut session) = quick("stall-look");
    let deploy = path_str(&ground.deploy()).to_owned();
    session.say(&in_background(&ground, "argv", &stalling));
    wait::until("somebody waits for the file system", || (stalling.waiting() > 0).then_some(()));
    let wardens = session.wardens();
    ana_tests::processes::end(session.supervisor());
    // A shell in between: whoever starts a program waits for its exec.
    let mut host = Command::new("/bin/sh")
        .args(["-c", &format!("{deploy} host; exit $?")])
        .env("ANA_TEST_MARKS", "/dev/null")
        .spawn()
        .expect("it is started");
    let limit = Duration::from_secs(15);
    let begin = Instant::now();
    let ran = wait::poll(limit, || host.try_wait().expect("a child of ours"));
    println!("the host's exec: {ran:?} after {:?}", begin.elapsed());
    stalling.release();
    host.wait().expect("it ends once the file system has answered");
    assert!(ran.is_some(), "the host's exec of a protected program waited for a file system of the agent's");
    session.finish();
    wait::until("the warden has ended", || {
        wardens.iter().all(|&pid| !ana_tests::processes::alive(pid)).then_some(())
    });
}
