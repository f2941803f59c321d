//! A session cannot end, stall, trace or talk to what watches it.

use std::{fs, os::unix::fs::PermissionsExt, process::Stdio};

use ana_tests::{
    Ground, Session,
    attempt::{assert_all, assert_none_granted, attempts},
    machine::machine,
    processes, wait,
};

#[test]
fn kill_without_ana() {
    let ground = Ground::bare("kill");
    let victim = Session::of(ground.without_ana(&["sleep", "600"]).stdin(Stdio::null()));
    // What leads into it is root's.
    wait::until("the victim sleeps", || {
        (processes::name(victim.pid()).as_deref() == Some("sleep")).then_some(())
    });
    let finished = ground.run_without_ana(&ground.attack("kill", &["victim", &victim.pid().to_string()]));
    assert_all(&finished.stdout(), &["victim-seize", "victim-mem", "victim-stop", "victim-kill"], "ok");
    victim.finish().assert_code(137);
}

/// Run by root, all of ana's processes are root's.
#[test]
fn kill() {
    let ground = Ground::new("kill");
    let mut session = ground.launch(&["sh", "-c", "read pids; exec $pids"]).start_listening();
    let supervisor = session.supervisor();
    let mut arguments = vec!["run".to_owned(), session.pid().to_string()];
    arguments.extend(["supervisor".to_owned(), supervisor.to_string()]);
    for warden in session.wardens() {
        arguments.extend(["warden".to_owned(), warden.to_string()]);
    }
    let attack = ground.attack("kill", &arguments);
    let line: Vec<String> = attack.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    session.say(&line.join(" "));
    let finished = session.finish();
    for label in ["run", "supervisor", "warden"] {
        let tried =
            ["seize", "mem", "environ", "stop", "continue", "kill"].map(|what| format!("{label}-{what}"));
        assert_none_granted(&finished.stdout(), &tried.each_ref().map(String::as_str));
    }
    ground.verify();
}

#[test]
fn flock_without_ana() {
    let ground = Ground::bare("flock");
    let log = ground.write("log", 0o644, "a log that everybody may read\n");
    let mut command = ground.without_ana(&ground.attack("flock", &[log]));
    let session = Session::of(command.stdin(Stdio::piped()));
    let told = session.until_stdout("ready");
    assert_all(&told, &["lock-log"], "ok");
}

#[test]
fn flock() {
    let ground = Ground::new("flock");
    // A first session leaves evidence to lock.
    ground.run(&["true"]).assert_code(0);
    let state = ground.state();
    let arguments =
        [state.join("evidence"), state.join("keys"), state.join("keys/signing"), state.join("policy.toml")];
    let attack = ground.attack("flock", &arguments);
    let script = format!("{} hold & exec \"$@\"", ground.deploy().display());
    let mut command = vec!["sh".into(), "-c".into(), script.into(), "sh".into()];
    command.extend(attack);
    let mut session = ground.launch(&command).start_listening();
    let told = session.until_stdout("ready");
    for (name, word) in attempts(&told) {
        assert!(!name.ends_with(".jsonl") || word != "ok", "{name} was granted:\n{told}");
    }
    let question = ground.question_of(&mut session);
    ground.approve(&question.id);
    wait::until("the program runs while locks are tried", || (ground.markers().len() == 1).then_some(()));
    session.finish();
    ground.verify();
}

/// The evidence is nobody's to read or lock but root's.
#[test]
fn the_log_is_roots_alone() {
    let ground = Ground::new("modes");
    ground.run(&["true"]).assert_code(0);
    let evidence = ground.state().join("evidence");
    let mode = |path: &std::path::Path| fs::metadata(path).expect("there").permissions().mode() & 0o7777;
    assert_eq!(mode(&evidence), 0o700);
    for entry in fs::read_dir(&evidence).expect("readable").flatten() {
        assert_eq!(mode(&entry.path()), 0o600, "{}", entry.path().display());
    }
    assert_eq!(mode(&ground.key()), 0o600);
    let signing = ground.state().join("keys/signing");
    for path in [signing.clone()]
        .into_iter()
        .chain(fs::read_dir(&signing).into_iter().flatten().flatten().map(|e| e.path()))
    {
        assert_eq!(mode(&path) & 0o077, 0, "{}", path.display());
    }
}

/// A process in the session cannot answer its own question: not with the client, not on the socket.
#[test]
fn socket() {
    let ground = Ground::new("socket");
    let socket = machine().program("attack-socket");
    let ana = machine().ana("ana");
    let (run, state) = (ground.state().join("run"), ground.state());
    let client = format!(
        "{} {} {} --state {} approve $id --software {}",
        socket.display(),
        run.display(),
        ana.display(),
        state.display(),
        ground.key().display()
    );
    let script = format!("{} wanted & read id; {client}; wait", ground.deploy().display());
    let mut session = ground.launch(&["sh", "-c", &script]).start_listening();
    let question = ground.question_of(&mut session);
    session.say(&question.id);
    let told = session.until_stdout("attempt client");
    assert_none_granted(&told, &["client"]);
    assert_eq!(ground.pending(0).len(), 1, "the question is still open");
    ground.assert_never_ran();
    ground.deny(&question.id, "asked by the session itself");
    session.finish();
    ground.assert_never_ran();
    ground.verify();
}
