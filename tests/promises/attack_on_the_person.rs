//! Whatever a session does to be in the way, the host goes on, and the person can look, answer and end it.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use ana_tests::{
    Ground, Session,
    answers::Answer,
    attempt::assert_all,
    ground::cgroups_of,
    machine::{admin, assignment, path_str},
    processes, wait,
};

/// `status` is allowed, everything else denied.
fn status_only(ground: &Ground) {
    ground.policy(&(ground.head() + &ground.rule("allow = [[\"status\"]]\notherwise = \"deny\"")));
}

/// How long root outside takes to open the file; panics after five seconds.
#[track_caller]
fn host_opens(file: &Path) -> Duration {
    let begin = Instant::now();
    let mut cat = Command::new("cat").arg(file).stdout(Stdio::null()).spawn().expect("cat");
    let ended = wait::poll(wait::SOON, || cat.try_wait().expect("a child of ours"));
    if ended.is_none() {
        processes::end(i32::try_from(cat.id()).expect("a pid"));
    }
    assert!(ended.is_some_and(|status| status.success()), "the host cannot open {}", file.display());
    begin.elapsed()
}

/// The processes of ana that serve this ground.
fn of_ana(ground: &Ground) -> Vec<(i32, String)> {
    let needle = path_str(ground.root()).as_bytes().to_vec();
    let ours = |pid: i32| {
        let program = processes::program(pid)?;
        (program.starts_with("ana-") && processes::mentions(pid, &needle)).then_some((pid, program))
    };
    processes::all().into_iter().filter_map(ours).collect()
}

/// Descriptor 2 is a full FIFO that nobody reads: who tells the agent there is stuck when the session ends. A copy of the
/// fanotify group in it would leave every open of the protected file on the host blocked.
#[test]
fn a_stuck_message_does_not_outlive_the_session() {
    let ground = Ground::new("teller");
    status_only(&ground);
    for round in 0..3 {
        let fifo = ground.home().join(format!("fifo-{round}"));
        let finished = ground.run(&ground.attack("teller", &[ground.deploy(), fifo])).assert_code(0);
        assert_all(&finished.stdout(), &["full-fifo", "stderr"], "ok");
        assert_all(&finished.stdout(), &["open"], "EPERM");
        let took = host_opens(&ground.deploy());
        println!("the host's open took {took:?}");
        let left = of_ana(&ground);
        wait::until_within(wait::SOON, &format!("{left:?} are gone"), || {
            of_ana(&ground).is_empty().then_some(())
        });
    }
    ground.assert_never_ran();
    ground.verify();
}

/// Silent connections, from inside and from a process of the same user outside: root is not kept waiting.
#[test]
fn idle_connections_do_not_keep_root_out() {
    let ground = Ground::new("idle");
    let run = ground.state().join("run");
    let attack = ground.attack("connect", &[run.into_os_string(), "70".into()]);
    let mut command: Vec<OsString> = ["sh", "-c", "\"$0\" wanted & exec \"$@\""].map(OsString::from).into();
    command.push(ground.deploy().into());
    command.extend(attack.iter().cloned());
    let mut session = ground.launch(&command).start_listening();
    session.until_stdout("connected 70");
    let mut outside = Session::of(ground.without_ana(&attack).stdin(Stdio::piped()));
    outside.until_stdout("connected 70");

    let question = ground.question_of(&mut session);
    ground.approve(&question.id);
    wait::until("the approved program ran", || (ground.markers().len() == 1).then_some(()));
    let killed = ground.ana(&["sessions", "kill", &question.session]).output().expect("ana");
    assert!(killed.status.success(), "{killed:?}");
    session.finish().assert_code(125).assert_stderr("killed by");
    outside.hush();
    outside.finish().assert_code(0);
    ground.assert_every_run_was_decided();
    ground.verify();
}

/// The folders of holds in a session's cgroup, with the kernel's word on whether they are frozen.
fn holds(session: &str) -> Vec<(PathBuf, String)> {
    let folders = cgroups_of(session).into_iter().flat_map(|top| fs::read_dir(top).into_iter().flatten());
    folders
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("hold-")))
        .map(|path| (path.clone(), fs::read_to_string(path.join("cgroup.events")).unwrap_or_default()))
        .collect()
}

/// Hundreds of refusals that cannot be told: what is allowed is still answered, and nothing stays frozen.
#[test]
fn a_flood_of_refusals_does_not_hold_up_what_is_allowed() {
    let ground = Ground::new("flood");
    status_only(&ground);
    let fifo = ground.home().join("fifo");
    let arguments: [OsString; 3] = [ground.deploy().into(), fifo.into(), "800".into()];
    let mut session = ground.launch(&ground.attack("saturate", &arguments)).start_listening();
    let told = wait::until_within(Duration::from_secs(90), "the flood is over", || {
        assert!(!session.ended(), "{}\n{}", session.stdout(), session.stderr());
        let told = session.stdout();
        told.contains("flood over").then_some(told)
    });
    assert!(told.contains("flood 800"), "{told}");
    assert_all(&told, &["full-fifo", "status"], "ok");
    let answered = told.split("answered after ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
    let took = Duration::from_millis(answered.unwrap_or_else(|| panic!("no time in {told}")));
    println!("the allowed program took {took:?}");
    assert!(took < wait::SOON, "the allowed program took {took:?}");

    let id = ground.records_of("session-start")[0].payload["session"].as_str().expect("an id").to_owned();
    let gone = wait::poll(wait::SOON, || holds(&id).is_empty().then_some(()));
    assert!(gone.is_some(), "left: {:#?}", holds(&id));
    assert!(!cgroups_of(&id).is_empty(), "the session is looked at while it lives");
    host_opens(&ground.deploy());
    session.say("go");
    session.finish().assert_code(0);
    wait::until("the cgroups are gone", || cgroups_of(&id).is_empty().then_some(()));
    assert_eq!(ground.markers().len(), 1);
    ground.assert_every_run_was_decided();
    ground.verify();
}

/// Builds the library for LD_PRELOAD in the session user's home; where its copy of the program goes.
fn preload(ground: &Ground) -> (PathBuf, PathBuf) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("attacks/preload.c");
    let library = ground.home().join("preload.so");
    admin("gcc", &["-shared", "-fPIC", "-o", path_str(&library), path_str(&source), "-ldl"]);
    ground.give(&library);
    (library, ground.home().join("copy"))
}

/// `deploy status` with the library in its environment.
fn preloaded(ground: &Ground) -> Vec<OsString> {
    let (library, copy) = preload(ground);
    vec![
        "/usr/bin/env".into(),
        assignment("PRELOAD_COPY", copy),
        assignment("LD_PRELOAD", library),
        ground.deploy().into(),
        "status".into(),
    ]
}

fn status_or_ask(ground: &Ground) {
    ground.policy(&(ground.head() + &ground.rule("allow = [[\"status\"]]\notherwise = \"approve\"")));
}

#[test]
fn preload_without_ana() {
    let ground = Ground::bare("preload");
    let finished = ground.run_without_ana(&preloaded(&ground)).assert_code(0);
    assert_all(&finished.stdout(), &["preload-copy"], "ok");
    assert_eq!(ground.markers()[0].args(), ["attack"]);
    assert!(ground.home().join("copy").exists());
}

/// Allowed arguments prove nothing when a library of the agent's runs first: the person is asked, and refuses.
#[test]
fn preload_with_allowed_arguments_is_asked() {
    let ground = Ground::new("preload");
    status_or_ask(&ground);
    let mut session = ground.start(&preloaded(&ground));
    let question = ground.question_of(&mut session);
    assert_eq!(question.args(), ["status"]);
    let environment = question.operation["exec"]["environment"]["changed"].to_string();
    assert!(environment.contains("LD_PRELOAD"), "{environment}");
    ground.assert_never_ran();
    ground.deny(&question.id, "a library is in the way");
    session.finish().assert_code(137);
    ground.assert_never_ran();
    assert!(!ground.home().join("copy").exists());
    ground.verify();
    // And the same without the library is what the rule says.
    ground.run(&[ground.deploy().as_os_str(), "status".as_ref()]).assert_code(0);
    assert_eq!(ground.markers().len(), 1);
}

/// Even approved, the library cannot read the program that it runs in.
#[test]
fn an_approved_preload_cannot_copy_the_program() {
    let ground = Ground::new("preload-copy");
    status_or_ask(&ground);
    let (finished, questions) = ground.run_answered(&preloaded(&ground), Answer::Approve);
    assert_eq!(questions.len(), 1, "{questions:#?}");
    assert_all(&finished.stdout(), &["preload-copy"], "EPERM");
    assert!(!ground.home().join("copy").exists());
    assert_eq!(ground.markers()[0].exe, ground.deploy());
}
