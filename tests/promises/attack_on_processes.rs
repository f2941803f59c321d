//! Nobody in the session gets into a held process, into a process outside, out of its cgroup, around the system
//! call filter, or at a terminal that is not its own.

use std::{
    fs,
    os::{
        fd::AsFd,
        unix::fs::{PermissionsExt, chown},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use ana_tests::{
    Ground, Session,
    attempt::{assert_all, assert_none_granted, attempts},
    machine::{machine, path_str},
    processes::{self, cgroup2_mount},
    wait,
};
use nix::pty::{OpenptyResult, openpty};

const WAYS_IN: [&str; 6] = ["seize", "vm-writev", "vm-readv", "prlimit", "mem-open", "pidfd-getfd"];

fn ways(label: &str) -> Vec<String> {
    WAYS_IN.iter().map(|way| format!("{label}-{way}")).collect()
}

/// A process of the session's user that is in no session.
fn outsider(ground: &Ground) -> Session {
    let session = Session::of(ground.without_ana(&["sleep", "600"]).stdin(Stdio::null()));
    wait::until("the outsider sleeps", || {
        (processes::name(session.pid()).as_deref() == Some("sleep")).then_some(())
    });
    session
}

#[test]
fn memory_without_ana() {
    let ground = Ground::bare("memory");
    let victim = outsider(&ground);
    let mut command = ground.without_ana(&ground.attack::<&str>("memory", &[]));
    let mut session = Session::of(command.stdin(Stdio::piped()));
    session.say(&format!("outside {}", victim.pid()));
    let told = session.until_stdout("done outside");
    let ways = ways("outside");
    assert_all(&told, &ways.iter().map(String::as_str).collect::<Vec<_>>(), "ok");
    assert_all(&told, &["outside-mem-write"], "ok");
}

#[test]
fn memory() {
    let ground = Ground::new("memory");
    let victim = outsider(&ground);
    let deploy = ground.deploy();
    // The attacker is the held process's own parent: it has every right that a parent can have.
    let script = format!("{} held & exec {}", deploy.display(), machine().program("attack-memory").display());
    let mut session = ground.launch(&["sh", "-c", &script]).start_listening();
    let question = ground.question_of(&mut session);
    session.say(&format!("held {}", question.pid()));
    session.say(&format!("outside {}", victim.pid()));
    let told = session.until_stdout("done outside");
    for label in ["held", "outside"] {
        let ways = ways(label);
        assert_none_granted(&told, &ways.iter().map(String::as_str).collect::<Vec<_>>());
        // Whoever it is: these are refused by their number.
        let names = ["vm-readv", "prlimit"].map(|way| format!("{label}-{way}"));
        assert_all(&told, &names.each_ref().map(String::as_str), "EPERM");
    }
    ground.assert_never_ran();
    ground.deny(&question.id, "attacked");
    session.finish();
    ground.assert_never_ran();
    assert!(processes::alive(victim.pid()), "the outsider died");
}

/// A copy of part of the cgroup tree that belongs to the session's user, to prove the attack on.
struct Delegated(PathBuf);

impl Delegated {
    fn new() -> Self {
        let top = Path::new(&cgroup2_mount()).join(format!("ana-test-{}", std::process::id()));
        let (uid, gid) = (machine().uid.as_raw(), machine().gid.as_raw());
        for folder in [top.clone(), top.join("from"), top.join("to")] {
            fs::create_dir(&folder).expect("root makes cgroups");
            chown(&folder, Some(uid), Some(gid)).expect("chown");
            for file in ["cgroup.procs", "cgroup.freeze"] {
                chown(folder.join(file), Some(uid), Some(gid)).expect("chown");
            }
        }
        Self(top)
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        for folder in ["from", "to", ""] {
            let folder = self.0.join(folder);
            wait::poll(Duration::from_secs(5), || {
                (fs::remove_dir(&folder).is_ok() || !folder.exists()).then_some(())
            });
        }
    }
}

#[test]
fn cgroup_without_ana() {
    let ground = Ground::bare("cgroup");
    let tree = Delegated::new();
    let attack = ground.attack("cgroup", &[&tree.0]);
    let mut inside = Command::new("sh");
    inside.args(["-c", "echo $$ > \"$0/from/cgroup.procs\" && exec \"$@\"", path_str(&tree.0)]);
    let outside = ground.without_ana(&attack);
    inside.arg(outside.get_program()).args(outside.get_args());
    let finished = Session::of(inside.current_dir(ground.home())).finish();
    assert_all(&finished.stdout(), &["cgroup"], "ok");
}

#[test]
fn cgroup() {
    let ground = Ground::new("cgroup");
    // The parent of a hybrid tree, so that the old hierarchies are tried as well.
    let mount = cgroup2_mount();
    let top = Path::new(&mount)
        .parent()
        .filter(|path| path.starts_with("/sys/fs/cgroup"))
        .unwrap_or(Path::new(&mount));
    let finished = ground.run(&ground.attack("cgroup", &[top]));
    assert_all(&finished.stdout(), &["cgroup"], "refused");
    assert!(finished.stdout().lines().any(|line| line.starts_with("own 0::") && line.contains("/work")));
}

#[test]
fn signals_without_ana() {
    let ground = Ground::bare("signals");
    let mut command = ground.without_ana(&ground.attack("signals", &[ground.deploy()]));
    let mut session = Session::of(command.stdin(Stdio::piped()));
    session.until_stdout("ready");
    ground.assert_never_ran();
    session.say("go");
    session.say("wait");
    session.until_stdout("done wait");
    assert_eq!(ground.markers().len(), 1, "SIGCONT alone lets a stopped program run");
}

#[test]
fn signals_do_not_thaw_a_held_process() {
    let ground = Ground::new("signals");
    let mut session = ground.launch(&ground.attack("signals", &[ground.deploy()])).start_listening();
    session.until_stdout("ready");
    session.say("go");
    let question = ground.question_of(&mut session);
    session.say("spam");
    let told = session.until_stdout("done spam");
    assert_all(&told, &["spam"], "ok");
    ground.assert_never_ran();
    assert_eq!(ground.pending(0).len(), 1, "it is still held");
    ground.approve(&question.id);
    session.say("wait");
    let finished = session.finish();
    assert_all(&finished.stdout(), &["run"], "ok");
    ground.assert_every_run_was_decided();
}

#[test]
fn a_killed_held_process_withdraws_its_question() {
    let ground = Ground::new("killed");
    let mut session = ground.launch(&ground.attack("signals", &[ground.deploy()])).start_listening();
    session.until_stdout("ready");
    session.say("go");
    let question = ground.question_of(&mut session);
    session.say("kill");
    wait::until("the question is withdrawn", || ground.pending(0).is_empty().then_some(()));
    let answer = ground.try_approve(&question.id);
    assert_eq!(answer.status.code(), Some(1), "{answer:?}");
    session.say("wait");
    session.finish();
    ground.assert_never_ran();
    assert!(ground.decisions().iter().all(|record| !record.approves()), "{:#?}", ground.decisions());
    ground.verify();
}

#[test]
fn i386_without_ana() {
    let ground = Ground::bare("i386");
    let finished = ground.run_without_ana(&abi(&ground, "i386"));
    if attempts(&finished.stdout()).get("i386-execve").map(String::as_str) == Some("ENOSYS")
        || finished.code() == 139
    {
        ana_tests::skip::skipped("i386", "this kernel runs no 32-bit system calls");
        return;
    }
    assert_eq!(ground.markers().len(), 1, "{}", finished.stdout());
}

#[test]
fn other_system_call_tables_are_refused() {
    for table in ["i386", "x32"] {
        let ground = Ground::new(table);
        let finished = ground.run(&abi(&ground, table));
        let told = attempts(&finished.stdout());
        let word = told.get(&format!("{table}-execve"));
        assert!(
            finished.code() >= 128 || word.is_some_and(|word| word == "EPERM" || word == "ENOSYS"),
            "{table}: {word:?} {}",
            finished.status
        );
        ground.assert_never_ran();
        ground.assert_nothing_pending();
    }
}

fn abi(ground: &Ground, table: &str) -> Vec<std::ffi::OsString> {
    ground.attack("abi", &[ground.deploy().into_os_string(), table.into()])
}

#[test]
fn io_uring_without_ana() {
    let ground = Ground::bare("uring");
    let finished = ground.run_without_ana(&ground.attack::<&str>("io-uring", &[]));
    assert_all(&finished.stdout(), &["io_uring_setup"], "ok");
}

#[test]
fn io_uring() {
    let ground = Ground::new("uring");
    let finished = ground.run(&ground.attack::<&str>("io-uring", &[]));
    assert_none_granted(&finished.stdout(), &["io_uring_setup"]);
}

/// A terminal as another window of the same person has it.
fn outer_terminal() -> (OpenptyResult, PathBuf) {
    let pair = openpty(None, None).expect("a pty");
    let path = nix::unistd::ttyname(pair.slave.as_fd()).expect("a name");
    chown(&path, Some(machine().uid.as_raw()), None).expect("chown");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o620)).expect("mode");
    (pair, path)
}

#[test]
fn terminal_without_ana() {
    let ground = Ground::bare("outer-tty");
    let (_pair, path) = outer_terminal();
    let finished = ground.run_without_ana(&ground.attack("terminal", &[&path]));
    assert_all(&finished.stdout(), &["open-0", "write-0"], "ok");
}

#[test]
fn terminals_outside_are_out_of_reach() {
    let ground = Ground::new("outer-tty");
    let (pair, path) = outer_terminal();
    let victim = outsider(&ground);
    let by_root = format!("/proc/{}/root{}", victim.pid(), path.display());
    let finished = ground.run(&ground.attack("terminal", &[path.clone(), by_root.into()]));
    assert_none_granted(&finished.stdout(), &["open-0", "open-1"]);
    let mut ready = [nix::poll::PollFd::new(pair.master.as_fd(), nix::poll::PollFlags::POLLIN)];
    assert_eq!(nix::poll::poll(&mut ready, 0_u8), Ok(0), "something was written to the outer terminal");
}
