//! `ana-run` at a real terminal: keys, job control, size, pipes, and the question that is asked in between.

use ana_tests::{
    Ground,
    skip::skipped,
    terminal::{SETTLE, Terminal, settle},
    wait,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Stopped or hung up from outside while it asks: it comes back as it was, or leaves the terminal as it found it.
#[test]
fn signals_from_outside_during_a_question() {
    let ground = Ground::new("outside");
    let terminal = Terminal::of_root(&ground);
    let settings = terminal.settings("before");
    let pid_file = ground.home().join("pid");
    let run = terminal.ana_run(&ground, &format!("{} outside", ground.deploy().display()));
    let start = || {
        terminal.line("clear");
        terminal.line(&format!("sh -c 'echo $$ >{}; exec {run}'", pid_file.display()));
        terminal.until_question();
        let pid = std::fs::read_to_string(&pid_file).expect("it is written").trim().parse().expect("a pid");
        Pid::from_raw(pid)
    };
    let pid = start();
    kill(pid, Signal::SIGSTOP).expect("it runs");
    terminal.until_shows("Stopped");
    // The shell's terminal, and what it makes of it.
    terminal.line("clear");
    terminal.line("fg");
    terminal.until_question();
    terminal.answer_no();
    terminal.until_prompt();
    assert_eq!(terminal.settings("stopped"), settings);
    for signal in [Signal::SIGHUP, Signal::SIGQUIT] {
        kill(start(), signal).expect("it runs");
        terminal.until_prompt();
        assert_eq!(terminal.settings(&format!("after-{signal}")), settings);
    }
    ground.assert_never_ran();
    ground.verify_at_end();
}

#[test]
fn it_is_a_terminal_of_the_right_size() {
    let ground = Ground::new("tty");
    let terminal = Terminal::of_root(&ground);
    let before = terminal.settings("before");
    terminal
        .line(&terminal.ana_run(&ground, "sh -c 'tty; stty size; test -t 0 && test -t 1 && echo all-ttys'"));
    let screen = terminal.until("three terminals", |screen| screen.lines().any(|line| line == "all-ttys"));
    assert!(screen.contains("/dev/pts/") && screen.contains("50 160"), "{screen}");
    terminal.until_prompt();
    assert_eq!(terminal.settings("after"), before, "the terminal is given back as it was");
}

#[test]
fn a_new_size_arrives() {
    let ground = Ground::new("resize");
    let terminal = Terminal::of_root(&ground);
    let script = "sh -c 'trap \"stty size; echo resized\" WINCH; echo ready; while :; do sleep 0.1; done'";
    terminal.line(&terminal.ana_run(&ground, script));
    terminal.until("ready", |screen| screen.lines().any(|line| line == "ready"));
    terminal.resize(101, 31);
    terminal.until_shows("31 101");
    terminal.press("C-c");
    terminal.until_prompt();
}

#[test]
fn ctrl_c_interrupts_the_command() {
    let ground = Ground::new("ctrl-c");
    let terminal = Terminal::of_root(&ground);
    let script = "sh -c 'trap \"echo got-int; exit 7\" INT; echo ready; while :; do sleep 0.1; done'";
    terminal.line(&terminal.ana_run(&ground, script));
    terminal.until("ready", |screen| screen.lines().any(|line| line == "ready"));
    terminal.press("C-c");
    terminal.until("the trap", |screen| screen.lines().any(|line| line.ends_with("got-int")));
    terminal.until_prompt();
    terminal.line("echo status=$?");
    terminal.until_shows("status=7");
}

#[test]
fn ctrl_c_kills_a_plain_command() {
    let ground = Ground::new("ctrl-c-plain");
    let terminal = Terminal::of_root(&ground);
    terminal.line(&terminal.ana_run(&ground, "sh -c 'echo ready; exec sleep 1000'"));
    terminal.until("ready", |screen| screen.lines().any(|line| line == "ready"));
    terminal.press("C-c");
    terminal.until_prompt();
    terminal.line("echo status=$?");
    terminal.until_shows("status=130");
}

/// Pressed while the session is still being set up, it ends `ana-run` as it ends any command.
#[test]
fn ctrl_c_during_the_start() {
    let ground = Ground::new("ctrl-c-early");
    let terminal = Terminal::of_root(&ground);
    let before = terminal.settings("before");
    terminal.line(&terminal.ana_run(&ground, "sleep 1000"));
    wait::until("the session is up", || (!ground.records_of("session-start").is_empty()).then_some(()));
    terminal.press("C-c");
    terminal.until_prompt();
    terminal.line("echo status=$?");
    terminal.until_shows("status=130");
    assert_eq!(terminal.settings("after"), before);
    ground.verify();
}

#[test]
fn ctrl_z_and_fg() {
    let ground = Ground::new("ctrl-z");
    let terminal = Terminal::of_root(&ground);
    let before = terminal.settings("before");
    terminal.line(&terminal.ana_run(&ground, "sh -c 'echo ready; exec cat'"));
    terminal.until("ready", |screen| screen.lines().any(|line| line == "ready"));
    terminal.line("one");
    terminal.until_repeated("one");
    terminal.press("C-z");
    terminal.until_shows("Stopped");
    terminal.until_prompt();
    assert_eq!(terminal.settings("between"), before, "a stopped ana-run gives the terminal back");
    terminal.line("fg");
    terminal.line("two");
    terminal.until_repeated("two");
    // And once more: the second stop is no different.
    terminal.press("C-z");
    terminal.until("two stops", |screen| screen.matches("Stopped").count() == 2);
    terminal.line("fg");
    terminal.line("three");
    terminal.until_repeated("three");
    terminal.press("C-d");
    terminal.until_prompt();
    terminal.line("echo status=$?");
    terminal.until_shows("status=0");
    assert_eq!(terminal.settings("after"), before);
}

/// Pressed while the agent is just being started: it stops a little later, and goes on all the same.
#[test]
fn ctrl_z_during_the_start() {
    let ground = Ground::new("ctrl-z-early");
    let terminal = Terminal::of_root(&ground);
    for round in 1..=5 {
        terminal.line(&terminal.ana_run(&ground, &format!("sh -c 'read line; echo got-$line-{round}'")));
        wait::until("the session is up", || {
            (ground.records_of("session-start").len() == round).then_some(())
        });
        terminal.press("C-z");
        terminal.until("a stop", |screen| screen.matches("Stopped").count() == round);
        terminal.until_prompt();
        terminal.line("fg");
        terminal.line("on");
        terminal.until_shows(&format!("got-on-{round}"));
        terminal.until_prompt();
    }
    ground.verify();
}

#[test]
fn a_pipe_into_less() {
    let ground = Ground::new("less");
    let terminal = Terminal::of_root(&ground);
    let before = terminal.settings("before");
    terminal.line(&(terminal.ana_run(&ground, "seq 1000 1999") + " | less"));
    terminal.until("less's page", |screen| screen.lines().any(|line| line == "1000"));
    terminal.press("Space");
    terminal.until("the next page", |screen| screen.lines().any(|line| line == "1060"));
    terminal.press("q");
    terminal.until_prompt();
    assert_eq!(terminal.settings("after"), before);
}

/// A pipe that is closed early ends the session as it ends any command.
#[test]
fn a_pipe_into_head() {
    let ground = Ground::new("head");
    let terminal = Terminal::of_root(&ground);
    terminal
        .line(&(terminal.ana_run(&ground, "seq 1 10000000") + " | head -n 1; echo done=${PIPESTATUS[1]}"));
    terminal.until_shows("done=0");
}

#[test]
fn the_question_is_answered_in_the_terminal() {
    let ground = Ground::new("inline");
    let terminal = Terminal::of_root(&ground);
    let before = terminal.settings("before");
    terminal.line(&terminal.ana_run(&ground, &format!("{} 'two words'", ground.deploy().display())));
    let screen = terminal.until_question();
    assert!(screen.contains("deploy 'two words'"), "the command is shown quoted:\n{screen}");
    let question = ground.question();
    assert_eq!(question.args(), ["two words"]);
    terminal.answer_yes();
    terminal.until_shows("marker: ran two words");
    terminal.until_prompt();
    assert_eq!(terminal.settings("after"), before, "the terminal is given back as it was");
    let decisions = ground.decisions();
    assert!(
        decisions.len() == 1 && decisions[0].approves() && decisions[0].decided_by() == "person",
        "{decisions:#?}"
    );
    ground.assert_every_run_was_decided();
    ground.verify();
}

#[test]
fn a_no_in_the_terminal_denies() {
    let ground = Ground::new("inline-no");
    let terminal = Terminal::of_root(&ground);
    terminal.line(
        &terminal.ana_run(&ground, &format!("sh -c '{} now; echo status=$?'", ground.deploy().display())),
    );
    terminal.until_question();
    terminal.answer_no();
    let screen =
        terminal.until("the status", |screen| screen.lines().any(|line| line.trim_end() == "status=137"));
    assert!(screen.contains("ana: denied: "), "{screen}");
    ground.assert_never_ran();
    ground.verify_at_end();
}

/// Ctrl-Z at a question gives the terminal to the shell; afterwards it is asked again, over what the agent drew.
#[test]
fn ctrl_z_at_a_question() {
    for (name, draw) in [("ctrl-z-asked", ""), ("ctrl-z-page", "printf \"\\033[9;9Hdrawn\"; ")] {
        let ground = Ground::new(name);
        let terminal = Terminal::of_root(&ground);
        let before = terminal.settings("before");
        let script = format!("sh -c '{draw}{} now >/dev/null 2>&1; read key'", ground.deploy().display());
        terminal.line(&terminal.ana_run(&ground, &script));
        terminal.until_question();
        settle();
        terminal.press("C-z");
        terminal.until_shows("Stopped");
        assert_eq!(terminal.settings("between"), before, "a stopped ana-run gives the terminal back");
        terminal.line("clear");
        terminal.line("fg");
        terminal.until_question();
        terminal.answer_yes();
        wait::until("it ran", || (ground.markers().len() == 1).then_some(()));
        terminal.press("Enter");
        terminal.until("the prompt", |screen| screen.matches("outer$ ").count() >= 2);
        assert_eq!(terminal.settings("after"), before);
        ground.verify_at_end();
    }
}

/// What was typed before the question came is no answer to it.
#[test]
fn keys_typed_ahead_do_not_answer() {
    let ground = Ground::new("ahead");
    let terminal = Terminal::of_root(&ground);
    let script = format!("sh -c 'echo ready; sleep 1; exec {} ahead'", ground.deploy().display());
    terminal.line(&terminal.ana_run(&ground, &script));
    terminal.until("ready", |screen| screen.lines().any(|line| line == "ready"));
    for _ in 0..5 {
        terminal.line("approve");
    }
    terminal.until_question();
    wait::never_during(std::time::Duration::from_millis(1500), "typed ahead, and it ran", || {
        (!ground.markers().is_empty()).then(|| terminal.screen())
    });
    let question = ground.question();
    ground.deny(&question.id, "enough");
    terminal.until_prompt();
    ground.assert_never_ran();
}

/// Nor is a line that was begun before the question could be read.
#[test]
fn a_line_begun_too_early_does_not_answer() {
    let ground = Ground::new("early");
    let terminal = Terminal::of_root(&ground);
    terminal.line(&terminal.ana_run(&ground, &format!("{} early", ground.deploy().display())));
    let unseen = terminal.until_question_since();
    terminal.keys("approve");
    if unseen.elapsed() >= SETTLE {
        skipped("a_line_begun_too_early_does_not_answer", "this machine is too slow to type ahead");
        return;
    }
    wait::never_during(SETTLE * 2, "half a line answered", || {
        (!ground.markers().is_empty()).then(|| terminal.screen())
    });
    terminal.press("Enter");
    wait::never_during(SETTLE * 2, "a line begun too early answered", || {
        (!ground.markers().is_empty()).then(|| terminal.screen())
    });
    let question = ground.question();
    ground.deny(&question.id, "enough");
    terminal.until_prompt();
}

/// Answered elsewhere, the question leaves the terminal, and the command has its keys back.
#[test]
fn a_question_answered_elsewhere_is_withdrawn() {
    let ground = Ground::new("elsewhere");
    let terminal = Terminal::of_root(&ground);
    let script = format!("sh -c '{} elsewhere; read line; echo read=$line'", ground.deploy().display());
    terminal.line(&terminal.ana_run(&ground, &script));
    terminal.until_question();
    let question = ground.question();
    ground.approve(&question.id);
    terminal.until_shows("marker: ran elsewhere");
    terminal.line("hello");
    terminal.until_shows("read=hello");
    terminal.until_prompt();
}

/// The program's name and arguments are shown harmlessly, whatever they contain.
#[test]
fn escape_sequences_do_not_reach_the_terminal() {
    let ground = Ground::new("escapes");
    let terminal = Terminal::of_root(&ground);
    let script = format!(
        "bash -c '{} $\"\" $(printf \"\\\\033[2J\\\\033[1;1Hforged\") 2>/dev/null >/dev/null'",
        ground.deploy().display()
    );
    terminal.line(&terminal.ana_run(&ground, &script));
    let screen = terminal.until_question();
    assert!(screen.contains("\\x1b") || screen.contains("\\e[") || screen.contains("\\033"), "{screen}");
    // The screen was not cleared: the line that was typed is still there.
    assert!(screen.contains("ana-run"), "{screen}");
    let question = ground.question();
    ground.deny(&question.id, "enough");
    terminal.until_prompt();
}

/// Where any stream is no terminal, nothing is asked on it; the way to answer is told.
#[test]
fn without_a_terminal_the_way_out_is_told() {
    let ground = Ground::new("no-tty");
    let mut session = ground.start(&[ground.deploy()]);
    let question = ground.question_of(&mut session);
    session.until_stderr(&format!("ana approve {}", question.id));
    ground.approve(&question.id);
    session.finish().assert_code(0);
}
