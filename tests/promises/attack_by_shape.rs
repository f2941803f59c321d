//! Executions of unusual shape, and what the agent does to its own process before: each is asked, refused or fails as it
//! would without ana, and none is lost.

use std::{fs, path::Path};

use ana_tests::{
    Ground, Session,
    answers::Answer,
    attempt::{assert_all, attempts},
    machine::{USER, has},
    processes,
    sudoers::Sudoers,
    wait,
};

/// What every script starts with: `spawn(name, do)` tells how a child that does something ended.
const PRELUDE: &str = "\
import ctypes, errno, os, resource, signal, socket, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
deploy = sys.argv[1]
def tell(name, word): print('attempt %s: %s' % (name, word), flush=True)
def spawn(name, do):
    pid = os.fork()
    if pid == 0:
        try: do()
        except OSError as e: os._exit(100 + e.errno if e.errno < 100 else 99)
        os._exit(98)
    status = os.waitpid(pid, 0)[1]
    tell(name, 'signal %d' % os.WTERMSIG(status) if os.WIFSIGNALED(status) else 'exit %d' % os.WEXITSTATUS(status))
";

fn judged(ground: &Ground) {
    ground.policy(
        &(ground.head()
            + &ground.rule("deny = [[\"attack\"]]\nallow = [[\"status\", \"**\"]]\notherwise = \"approve\"")),
    );
}

fn python(ground: &Ground, text: &str) -> [std::ffi::OsString; 3] {
    let script = ground.write_home("attack.py", 0o644, &format!("{PRELUDE}{text}"));
    ["/usr/bin/python3".into(), script.into(), ground.deploy().into()]
}

/// 128 KiB in one argument are the most; one byte more fails, and leaves nothing behind. A tiny stack leaves no room for
/// the arguments, or for the program.
#[test]
fn the_longest_arguments_and_the_smallest_stack() {
    let ground = Ground::new("shape");
    judged(&ground);
    let finished = ground.run(&python(
        &ground,
        "run = lambda *args: lambda: os.execv(deploy, ['deploy', *args])\n\
         spawn('longest', run('status', 'x' * 131071))\n\
         spawn('too-long', run('status', 'x' * 131072))\n\
         spawn('after', run('attack'))\n\
         def small(size):\n\
         \x20   resource.setrlimit(resource.RLIMIT_STACK, (size, size))\n\
         \x20   os.execv(deploy, ['deploy', 'status', 'x' * 100000])\n\
         spawn('small-stack', lambda: small(65536))\n\
         spawn('empty', run('status', '', ''))\n",
    ));
    let said = finished.stdout();
    assert_all(&said, &["longest", "empty"], "exit 0");
    // 100 + E2BIG
    assert_all(&said, &["too-long"], "exit 107");
    assert_all(&said, &["after"], "signal 9");
    let small = attempts(&said).remove("small-stack").expect("tried");
    assert_ne!(small, "exit 0", "{said}");
    assert_eq!(ground.markers().len(), 2, "{said}");
    ground.assert_every_run_was_decided();
    ground.verify();
}

/// Nobody may trace, not even by being traced.
#[test]
fn being_traced() {
    let ground = Ground::new("traceme");
    let script =
        "tell('traceme', 'ok' if libc.ptrace(0, 0, 0, 0) == 0 else errno.errorcode[ctypes.get_errno()])";
    let outside = ground.run_without_ana(&python(&ground, script));
    assert_all(&outside.stdout(), &["traceme"], "ok");
    let inside = ground.run(&python(&ground, script));
    assert_all(&inside.stdout(), &["traceme"], "EPERM");
}

/// The first thread has ended when another one executes.
#[test]
fn the_first_thread_has_ended() {
    let ground = Ground::new("leader");
    judged(&ground);
    let script = "\
def late():
    while open('/proc/self/stat').read().rsplit(')', 1)[1].split()[0] != 'Z': time.sleep(0.01)
    try: os.execv(deploy, ['deploy', 'attack'])
    except OSError as e: tell('leaderless', errno.errorcode[e.errno]); os._exit(0)
threading.Thread(target=late).start()
libc.pthread_exit(None)
";
    let finished = ground.run(&python(&ground, script));
    let told = attempts(&finished.stdout());
    let word = told.get("leaderless").map(String::as_str);
    // Killed as denied, or refused because nobody can tell that it is alone.
    assert!(finished.code() == 137 || word == Some("EPERM"), "{word:?} {}", finished.status);
    println!("leaderless: {word:?} {}", finished.status);
    ground.assert_never_ran();
    ground.verify();
}

/// Whatever descriptor 2 is when a denial is told: root writes nowhere that the agent could not, and the refusal stands.
#[test]
fn a_stderr_that_is_none() {
    let ground = Ground::new("fd2");
    judged(&ground);
    let secret = ground.write("secret", 0o644, "root's own text\n");
    let script = format!(
        "secret = {:?}\n\
         def to(fd): os.dup2(fd, 2); os.execv(deploy, ['deploy', 'attack'])\n\
         spawn('closed', lambda: (os.close(2), os.execv(deploy, ['deploy', 'attack'])))\n\
         spawn('all-closed', lambda: (os.closerange(0, 1024), os.execv(deploy, ['deploy', 'attack'])))\n\
         spawn('read-only', lambda: to(os.open(secret, os.O_RDONLY)))\n\
         spawn('path-only', lambda: to(os.open(secret, os.O_PATH)))\n\
         spawn('folder', lambda: to(os.open('/', os.O_RDONLY)))\n\
         spawn('null', lambda: to(os.open('/dev/null', os.O_RDWR)))\n\
         spawn('socket', lambda: to(socket.socketpair()[0].detach()))\n\
         spawn('read-end', lambda: to(os.pipe()[0]))\n\
         spawn('broken-pipe', lambda: (lambda p: (os.close(p[0]), to(p[1])))(os.pipe()))\n\
         spawn('event', lambda: to(os.eventfd(0)))\n\
         spawn('append', lambda: to(os.open('log', os.O_WRONLY | os.O_CREAT | os.O_APPEND)))\n",
        secret.display().to_string()
    );
    let finished = ground.run(&python(&ground, &script)).assert_code(0);
    let all = [
        "closed",
        "all-closed",
        "read-only",
        "path-only",
        "folder",
        "null",
        "socket",
        "read-end",
        "broken-pipe",
        "event",
        "append",
    ];
    assert_all(&finished.stdout(), &all, "signal 9");
    assert_eq!(fs::read_to_string(secret).expect("there"), "root's own text\n");
    let told = fs::read_to_string(ground.home().join("log")).expect("there");
    assert!(told.starts_with("ana: denied: ") && told.contains("deploy attack"), "{told}");
    ground.assert_never_ran();
    assert_eq!(ground.decisions().len(), all.len());
    ground.verify();
}

/// An argument on a page that the agent serves itself (userfaultfd): the kernel does not wait for it.
#[test]
fn a_page_that_the_agent_serves() {
    let ground = Ground::new("uffd");
    judged(&ground);
    // userfaultfd with and without UFFD_USER_MODE_ONLY: 323.
    let script = "\
for name, flags in (('kernel-mode', 0), ('user-mode', 1)):
    fd = libc.syscall(323, flags)
    tell(name, 'ok' if fd >= 0 else errno.errorcode[ctypes.get_errno()])
try: os.open('/dev/userfaultfd', os.O_RDWR); tell('device', 'ok')
except OSError as e: tell('device', errno.errorcode[e.errno])
";
    let told = attempts(&ground.run(&python(&ground, script)).stdout());
    assert_ne!(told["kernel-mode"], "ok", "{told:#?}");
    assert_ne!(told["device"], "ok", "{told:#?}");
}

/// What is open, and said so in the README: a copy that was made outside, one byte longer, is another program.
#[test]
fn a_copy_with_one_byte_more_is_another_program() {
    let ground = Ground::new("byte");
    let copy = ground.home().join("brought-along");
    let mut bytes = fs::read(ground.deploy()).expect("root may read");
    bytes.push(0);
    fs::write(&copy, bytes).expect("written");
    fs::set_permissions(&copy, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("mode");
    ground.give(&copy);
    ground.run(&[copy.as_os_str(), "attack".as_ref()]).assert_code(0);
    let markers = ground.markers();
    assert_eq!((markers.len(), &markers[0].exe), (1, &copy));
    assert!(ground.decisions().is_empty());
    // The protected one itself is asked as ever.
    let (_, questions) = ground.run_answered(&[ground.deploy().as_os_str(), "attack".as_ref()], Answer::Deny);
    assert_eq!(questions.len(), 1);
    assert_eq!(ground.markers().len(), 1);
}

/// Through programs that make terminals, sessions and other groups of their own.
#[test]
fn through_script_and_sg() {
    let ground = Ground::new("through");
    // sg is set-user-ID.
    ground.policy(&(ground.asking() + "[defaults]\nprivilege = \"allow\"\n"));
    let deploy = ground.deploy().display().to_string();
    let mut ways = vec![vec!["setsid".to_owned(), "-w".into(), deploy.clone(), "setsid".into()]];
    if has("script") {
        ways.push(vec!["script".into(), "-qec".into(), format!("{deploy} script"), "/dev/null".into()]);
    }
    if has("sg") {
        ways.push(vec!["sg".into(), USER.into(), "-c".into(), format!("{deploy} sg")]);
    }
    for way in &ways {
        let word = way[way.len() - 1].rsplit(' ').next().expect("a word");
        let word = if word == "/dev/null" { "script" } else { word };
        ground.clear_markers();
        let (finished, questions) = ground.run_answered(way, Answer::Deny);
        assert_eq!(questions.iter().filter(|q| q.rule == "deploy").count(), 1, "{way:?}: {questions:#?}");
        assert_ne!(finished.code(), 0, "{way:?}");
        ground.assert_never_ran();
        let (_, questions) = ground.run_answered(way, Answer::Approve);
        assert_eq!(questions.iter().filter(|q| q.rule == "deploy").count(), 1, "{way:?}: {questions:#?}");
        assert_eq!(ground.markers()[0].args(), [word], "{way:?}");
    }
    ground.verify();
}

/// A process of the same person outside of every session can end `ana-run` (said so in the README): the session ends with
/// it, and what was held dies unrun.
#[test]
fn ana_run_killed_from_outside() {
    if !has("sudo") {
        return ana_tests::skip::skipped("ana_run_killed_from_outside", "no sudo");
    }
    let ground = Ground::new("outside-kill");
    let _leave = Sudoers::new();
    let mut session = ground.launch_by_person(&[ground.deploy().as_os_str(), "held".as_ref()]).start();
    let question = ground.question_of(&mut session);
    let pid = session.pid().to_string();
    Session::of(&mut ground.without_ana(&["kill", "-9", &pid])).finish().assert_code(0);
    wait::until("the held program is dead", || (!processes::alive(question.pid())).then_some(()));
    wait::until("the session's end is recorded", || {
        (!ground.records_of("session-end").is_empty()).then_some(())
    });
    session.finish().assert_code(137);
    ground.assert_never_ran();
    assert!(ground.decisions().iter().all(|record| !record.approves()));
    assert!(!Path::new(&format!("/proc/{}", question.pid())).exists());
    ground.verify();
}
