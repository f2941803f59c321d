//! Started by a person, not by root: `ana-run` stays the person's, the supervisor comes through sudo, and the agent,
//! which has the same uid as `ana-run`, cannot touch it.

use ana_tests::{
    Ground,
    attempt::assert_none_granted,
    machine::{USER, has, machine, path_str},
    processes,
    skip::skipped,
    sudoers::Sudoers,
    terminal::Terminal,
    wait,
};

/// Whether this machine has sudo; says so if not.
fn sudo(test: &str) -> bool {
    let there = has("sudo");
    if !there {
        skipped(test, "no sudo");
    }
    there
}

#[test]
fn it_is_held_and_approved() {
    if !sudo("it_is_held_and_approved") {
        return;
    }
    let ground = Ground::new("person");
    let _leave = Sudoers::new();
    let script = format!("id -u; umask; pwd; echo var=$MINE; exec {} go", ground.deploy().display());
    let mut launch = ground.launch_by_person(&["sh", "-c", &script]);
    launch.command().env("MINE", "kept");
    let mut session = launch.start();
    let question = ground.question_of(&mut session);
    assert_eq!(question.args(), ["go"]);
    ground.approve(&question.id);
    let said = session.finish().assert_code(0).stdout();
    assert!(said.starts_with(&format!("{}\n", machine().uid)), "{said}");
    assert!(said.contains(path_str(&ground.home())) && said.contains("var=kept"), "{said}");
    assert!(said.contains("marker: ran go"), "{said}");
    ground.assert_every_run_was_decided();
    ground.verify();
}

/// `ana-run` has the agent's own uid: only the seal keeps the agent from it. Where there is none (Linux before 6.12), the
/// session ends with it.
#[test]
fn the_agent_cannot_touch_ana_run() {
    if !sudo("the_agent_cannot_touch_ana_run") {
        return;
    }
    let ground = Ground::new("person-kill");
    let _leave = Sudoers::new();
    let mut session =
        ground.launch_by_person(&["sh", "-c", "while read -r line; do $line; done"]).start_listening();
    wait::until("the session is up", || (!ground.records_of("session-start").is_empty()).then_some(()));
    assert_eq!(processes::uid(session.pid()), Some(machine().uid.as_raw()), "ana-run is the person's");
    let mut arguments = vec!["supervisor".to_owned(), session.supervisor().to_string()];
    for warden in session.wardens() {
        arguments.extend(["warden".to_owned(), warden.to_string()]);
    }
    let line = |arguments: &[String]| {
        let attack = ground.attack("kill", arguments);
        attack.iter().map(|part| part.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
    };
    session.say(&line(&arguments));
    session.until_stdout("attempt warden-kill");
    // Where that works, nobody is left to pass on what it says.
    session.say(&line(&["run".to_owned(), session.pid().to_string()]));
    session.hush();
    let finished = session.finish();
    let sealed = ground.sealed();
    let untouched: &[&str] =
        if sealed { &["supervisor", "warden", "run"] } else { &["supervisor", "warden"] };
    for label in untouched {
        let tried =
            ["seize", "mem", "environ", "stop", "continue", "kill"].map(|what| format!("{label}-{what}"));
        assert_none_granted(&finished.stdout(), &tried.each_ref().map(String::as_str));
    }
    if !sealed {
        assert_eq!(finished.code(), 128 + 9, "it was killed");
    }
    ground.verify_at_end();
}

/// The whole main job as a person meets it: in a terminal, with sudo, answered inline.
#[test]
fn in_a_terminal() {
    if !sudo("in_a_terminal") {
        return;
    }
    let ground = Ground::new("person-tty");
    let _leave = Sudoers::new();
    let terminal = Terminal::of_person(&ground);
    let before = terminal.settings("before");
    let run = format!("{} --state {}", machine().ana("ana-run").display(), ground.state().display());
    terminal.line(&format!("{run} -- {} inline", ground.deploy().display()));
    terminal.until_question();
    terminal.answer_yes();
    terminal.until_shows("marker: ran inline");
    terminal.until_prompt();
    assert_eq!(terminal.settings("after"), before);
    terminal.line(&format!("{run} -- sh -c 'echo ready; exec cat'"));
    terminal.until("ready", |screen| screen.lines().any(|line| line == "ready"));
    terminal.press("C-z");
    terminal.until_shows("Stopped");
    terminal.line("fg");
    terminal.line("two");
    terminal.until_repeated("two");
    terminal.press("C-d");
    terminal.until_prompt();
    ground.assert_every_run_was_decided();
    ground.verify();
}

/// Without leave to use sudo there is no supervisor, and then no agent.
#[test]
fn without_sudo_nothing_starts() {
    if !sudo("without_sudo_nothing_starts") {
        return;
    }
    let ground = Ground::new("person-alone");
    // No terminal, so sudo cannot ask for a password; other tests may hold leave for the usual user.
    let mut run = vec![machine().ana("ana-run").into_os_string(), "--state".into(), ground.state().into()];
    run.extend(["--", "sh", "-c", "echo the agent runs"].map(Into::into));
    let mut command = vec!["/usr/bin/env".into(), "PATH=/nonexistent".into()];
    command.extend(run);
    let finished = ground.run_without_ana::<std::ffi::OsString>(&command).assert_code(125);
    assert!(!finished.stdout().contains("the agent runs"), "{USER}: {}", finished.stdout());
    assert!(finished.stderr().contains("sudo"), "{}", finished.stderr());
}
