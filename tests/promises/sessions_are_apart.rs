//! Who is inside a session cannot speak for the person; what a crashed session left is cleared by the next.

use std::{fs, path::Path};

use ana_tests::{Ground, ground::cgroups_of, machine::machine, processes, wait};

/// Inside a session the clients are refused, whatever they want.
#[test]
fn clients_inside_are_refused() {
    let ground = Ground::new("inside");
    let (ana, state) = (machine().ana("ana"), ground.state());
    for command in [
        "pending --json",
        "deny 01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "approve 01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "sessions kill 01ARZ3NDEKTSV4RRFFQ69G5FAV",
    ] {
        let script = format!("{} --state {} {command}", ana.display(), state.display());
        let finished = ground.run_shell(&script);
        assert_ne!(finished.code(), 0, "{command}: {}", finished.stdout());
        assert!(!finished.stderr().contains("panicked"), "{command}: {}", finished.stderr());
    }
}

/// A session that starts another one is still inside.
#[test]
fn one_session_does_not_answer_another() {
    let ground = Ground::new("neighbours");
    let mut held = ground.start(&[ground.deploy()]);
    let question = ground.question_of(&mut held);
    let (ana, state, key) = (machine().ana("ana"), ground.state(), ground.key());
    let script = format!(
        "{0} --state {1} approve {2} --software {3}; echo approve=$?; {0} --state {1} deny {2}; echo deny=$?",
        ana.display(),
        state.display(),
        question.id,
        key.display()
    );
    let finished = ground.run_shell(&script).assert_code(0);
    assert!(
        finished.stdout().contains("approve=1") && finished.stdout().contains("deny=1"),
        "{}",
        finished.stdout()
    );
    ground.assert_never_ran();
    ground.approve(&question.id);
    held.finish().assert_code(0);
    ground.assert_every_run_was_decided();
}

#[test]
fn sessions_are_listed_and_killed() {
    let ground = Ground::new("listed");
    let session = ground.start(&["sh", "-c", "echo up; sleep 500"]);
    session.until_stdout("up");
    let list = ground.ana(&["sessions", "--json"]).output().expect("ana");
    assert!(list.status.success(), "{list:?}");
    let list: serde_json::Value = serde_json::from_slice(&list.stdout).expect("JSON");
    let id = ground.records_of("session-start")[0].payload["session"].as_str().expect("an id").to_owned();
    assert!(list.to_string().contains(&id), "{list}");
    let killed = ground.ana(&["sessions", "kill", &id]).output().expect("ana");
    assert!(killed.status.success(), "{killed:?}");
    // Not the agent's own end: 125, and by whom.
    session.finish().assert_code(125).assert_stderr("killed by");
    wait::until("the cgroups are gone", || cgroups_of(&id).is_empty().then_some(()));
    ground.verify();
}

/// The person's end of the session is the session's end.
#[test]
fn ana_run_dead_is_session_dead() {
    let ground = Ground::new("run-killed");
    let session = ground.start(&["sh", "-c", "echo pid=$$; sleep 500"]);
    let said = session.until_stdout("pid=");
    let pid: i32 = said.trim().trim_start_matches("pid=").parse().expect("a pid");
    processes::end(session.pid());
    wait::until("the agent is dead", || (!processes::alive(pid)).then_some(()));
}

/// A crash of everything at once, by which even the warden dies: the next start kills and clears what it left.
#[test]
fn leftovers_are_cleared_at_the_next_start() {
    let ground = Ground::new("leftovers");
    // Any session that another test starts meanwhile clears them as well.
    let (agent, id) = wait::until("something was left over", || crash(&ground));

    ground.run(&["true"]).assert_code(0);
    assert!(!processes::alive(agent), "the crashed session's agent still lives");
    assert!(cgroups_of(&id).is_empty(), "{:?}", cgroups_of(&id));
    assert!(!pinned(Path::new("/sys/fs/bpf"), &id), "its programs are still pinned");
    ground.verify();
}

/// Starts a session and kills all of ana at once; gives the agent and the session's id, if something was left over.
fn crash(ground: &Ground) -> Option<(i32, String)> {
    let session = ground.start(&["sh", "-c", "echo pid=$$; sleep 500"]);
    let said = session.until_stdout("pid=");
    let agent: i32 = said.trim().trim_start_matches("pid=").parse().expect("a pid");
    let start = ground.records_of("session-start").pop().expect("it has started");
    let id = start.payload["session"].as_str().expect("an id").to_owned();
    let mut ours = processes::below(session.pid());
    ours.push(session.pid());
    // Stopped first, so that none of them sees another one die.
    let ana: Vec<i32> = ours
        .into_iter()
        .filter(|&pid| processes::name(pid).is_some_and(|name| name.starts_with("ana-")))
        .collect();
    for signal in [nix::sys::signal::Signal::SIGSTOP, nix::sys::signal::Signal::SIGKILL] {
        for &pid in &ana {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("root may");
        }
    }
    wait::until("all of ana is dead", || ana.iter().all(|&pid| !processes::alive(pid)).then_some(()));
    let left = processes::alive(agent);
    println!("the agent was left alive: {left}; cgroups left: {:?}", cgroups_of(&id));
    (!cgroups_of(&id).is_empty()).then_some((agent, id))
}

/// Whether anything below a folder carries the session's id in its name.
fn pinned(folder: &Path, id: &str) -> bool {
    fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| {
        entry.file_name().to_string_lossy().contains(id)
            || (entry.file_type().is_ok_and(|kind| kind.is_dir()) && pinned(&entry.path(), id))
    })
}

/// A start clears what crashed sessions left, never what another start is just making.
#[test]
fn sessions_that_start_together_do_not_harm_each_other() {
    let ground = Ground::new("together");
    for _ in 0..12 {
        let all: Vec<_> = (0..5).map(|_| ground.start(&["true"])).collect();
        for session in all {
            session.finish().assert_code(0);
        }
    }
    assert_eq!(ground.records_of("session-end").len(), 60);
    ground.verify();
}

/// Two sessions with one state folder: each question is its own session's.
#[test]
fn two_sessions_at_once() {
    let ground = Ground::new("both");
    let mut one = ground.start(&[ground.deploy().as_os_str(), "one".as_ref()]);
    let mut two = ground.start(&[ground.deploy().as_os_str(), "two".as_ref()]);
    let all = wait::until("both questions", || {
        assert!(!one.ended() && !two.ended(), "one ended early:\n{}\n{}", one.stderr(), two.stderr());
        let all = ground.pending(1);
        (all.len() == 2).then_some(all)
    });
    assert_ne!(all[0].session, all[1].session);
    for question in &all {
        if question.args() == ["one"] {
            ground.approve(&question.id);
        } else {
            ground.deny(&question.id, "only one");
        }
    }
    one.finish().assert_code(0);
    two.finish().assert_code(137);
    assert_eq!(ground.markers().len(), 1);
    ground.assert_every_run_was_decided();
    ground.verify();
}

/// Outside of every session the program is what it always was, even while one is held inside.
#[test]
fn outside_nothing_is_asked() {
    let ground = Ground::new("outside");
    let mut session = ground.start(&[ground.deploy().as_os_str(), "inside".as_ref()]);
    let question = ground.question_of(&mut session);
    let outside = ground.run_without_ana(&[ground.deploy().as_os_str(), "outside".as_ref()]);
    outside.assert_code(0).assert_stdout("marker: ran outside");
    fs::copy(ground.deploy(), ground.root().join("copy")).expect("root reads the protected program");
    assert_eq!(ground.pending(0).len(), 1);
    assert_eq!(ground.markers().len(), 1);
    ground.approve(&question.id);
    session.finish().assert_code(0);
    assert_eq!(ground.decisions().len(), 1, "what happens outside is no decision of ours");
    ground.verify();
}

/// After the session the marks are gone: nobody asks any more.
#[test]
fn after_the_session_nothing_is_left() {
    let ground = Ground::new("after");
    ground.run(&["true"]).assert_code(0);
    let id = ground.records_of("session-start")[0].payload["session"].as_str().expect("an id").to_owned();
    assert!(cgroups_of(&id).is_empty(), "{:?}", cgroups_of(&id));
    assert!(!pinned(Path::new("/sys/fs/bpf"), &id), "its programs are still pinned");
    let run = ground.state().join("run");
    let left: Vec<_> = fs::read_dir(&run).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    assert!(left.iter().all(|path| path.extension().is_none_or(|end| end != "sock")), "{left:?}");
    assert!(left.iter().all(|path| !path.to_string_lossy().contains(&id)), "{left:?}");
    ground.run_without_ana(&[ground.deploy()]).assert_code(0);
}

/// A socket that nobody listens on (the session is just starting, or has died) is no session: the others are listed and
/// answered, and who waits goes on waiting.
#[test]
fn a_socket_that_nobody_serves_is_no_session() {
    let ground = Ground::new("unserved");
    let first = ground.start(&[ground.deploy()]);
    let id = wait::until("a question", || ground.pending(1).pop()).id;
    // Older and younger than every session; a start would remove them, so they come after it.
    let run = ground.state().join("run");
    let unserved = ["00000000000000000000000000", "7ZZZZZZZZZZZZZZZZZZZZZZZZZ"];
    let sockets = unserved.map(|name| run.join(format!("{name}.sock")));
    let bind =
        || sockets.each_ref().map(|path| drop(std::os::unix::net::UnixListener::bind(path).expect("bound")));
    bind();
    assert_eq!(ground.pending(0).len(), 1);
    let listed = ground.ana(&["sessions", "--json"]).output().expect("ana can be started");
    assert!(listed.status.success() && listed.stderr.is_empty(), "{listed:?}");
    ground.approve(&id);
    first.finish().assert_code(0);

    // They alone.
    assert!(ground.pending(0).is_empty());
    let told = ground.try_deny(&id, "too late");
    assert!(String::from_utf8_lossy(&told.stderr).contains("no session is running here"), "{told:?}");
    let told = ground.ana(&["sessions", "kill", unserved[0]]).output().expect("ana can be started");
    assert!(!told.status.success());
    assert!(String::from_utf8_lossy(&told.stderr).contains("has ended already"), "{told:?}");

    // Who waits sees the session that starts then. That start removes them, and what another one has not finished.
    let unfinished = run.join("00000000000000000000000000.bind");
    drop(std::os::unix::net::UnixListener::bind(&unfinished).expect("bound"));
    let waiting =
        ground.ana(&["pending", "--json", "--wait", "60"]).stdout(std::process::Stdio::piped()).spawn();
    let waiting = waiting.expect("ana can be started");
    let watches =
        |fd: fs::DirEntry| fs::read_link(fd.path()).is_ok_and(|to| to == Path::new("anon_inode:inotify"));
    let descriptors = format!("/proc/{}/fd", waiting.id());
    wait::until("it waits", || fs::read_dir(&descriptors).ok()?.flatten().any(watches).then_some(()));
    let second = ground.start(&[ground.deploy()]);
    let seen = waiting.wait_with_output().expect("it ends");
    let seen: serde_json::Value = serde_json::from_slice(&seen.stdout).expect("JSON");
    ground.approve(seen[0]["id"].as_str().expect("one question"));
    assert!(!unfinished.exists() && sockets.iter().all(|path| !path.exists()));
    second.finish().assert_code(0);
    ground.verify();
}
