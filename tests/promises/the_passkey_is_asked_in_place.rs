//! The conversation with the passkey, below the question: a passphrase is typed unseen, a wrong one is asked again, nothing hangs.

use ana_tests::{
    Ground,
    machine::{machine, path_str},
    terminal::{Terminal, settle},
    wait,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const PASSPHRASE: &str = "open-sesame";

/// A ground whose only passkey has a passphrase, enrolled at a terminal.
fn with_passphrase(name: &str) -> (Ground, Terminal) {
    let ground = Ground::bare(name);
    ground.policy(&ground.asking());
    let terminal = Terminal::of_root(&ground);
    let line = format!("passkey enroll --name bob --passphrase --software {}", ground.key().display());
    terminal.line(&ana(&ground, &line));
    terminal.until_shows("New passphrase");
    terminal.line(PASSPHRASE);
    terminal.until_shows("Once more");
    terminal.line(PASSPHRASE);
    terminal.until_shows("enrolled the software passkey");
    terminal.line("clear");
    terminal.until_prompt();
    (ground, terminal)
}

fn ana(ground: &Ground, arguments: &str) -> String {
    format!("{} --state {} {arguments}", machine().ana("ana").display(), path_str(&ground.state()))
}

/// What is typed here counts only after a while.
fn read() {
    settle();
}

#[test]
fn a_passphrase_inline() {
    let (ground, terminal) = with_passphrase("passphrase");
    let settings = terminal.settings("before");
    terminal.line(&terminal.ana_run(&ground, &format!("{} secret", ground.deploy().display())));
    terminal.until_question();
    terminal.answer_yes();
    terminal.until_shows("passphrase of the passkey");
    terminal.line("wrong-one");
    terminal.until("why, and the question again", |screen| {
        screen.contains("the passkey did not sign") && screen.trim_end().ends_with("[a/d/l/?]")
    });
    terminal.line("approve");
    terminal.until("the prompt again", |screen| screen.trim_end().ends_with("not now):"));
    terminal.press("Escape");
    terminal.until_shows("not approved");
    ground.assert_never_ran();
    terminal.line("approve");
    terminal.until("the prompt again", |screen| screen.trim_end().ends_with("not now):"));
    terminal.line(PASSPHRASE);
    terminal.until_shows("marker: ran secret");
    let screen = terminal.until_prompt();
    assert!(!screen.contains("wrong-one") && !screen.contains(PASSPHRASE), "{screen}");
    assert_eq!(terminal.settings("after"), settings);
    ground.assert_every_run_was_decided();
    ground.verify_at_end();
}

/// Answered elsewhere while the passphrase is typed: what was typed goes nowhere, and the agent goes on.
#[test]
fn withdrawn_while_it_is_typed() {
    let (ground, terminal) = with_passphrase("passphrase-over");
    let script = format!(
        "printf '\\033[5;5Hdrawn'; {} over >/dev/null 2>&1; read line; echo got=$line=\n",
        ground.deploy().display()
    );
    ground.write_home("over.sh", 0o755, &script);
    terminal.line(&terminal.ana_run(&ground, &format!("sh {}", ground.home().join("over.sh").display())));
    terminal.until_question();
    terminal.answer_yes();
    terminal.until_shows("passphrase of the passkey");
    terminal.keys("half-a-sec");
    let question = ground.question();
    ground.deny(&question.id, "elsewhere");
    terminal.until_shows("drawn");
    // The agent chose that moment; the rest is typed before anybody could look up, and is not for it.
    terminal.line("ret");
    terminal.line("on");
    terminal.until_shows("got=on=");
    ground.assert_never_ran();
}

#[test]
fn ana_approve_at_a_terminal() {
    let (ground, terminal) = with_passphrase("passphrase-approve");
    let settings = terminal.settings("before");
    let session = ground.start(&[ground.deploy().as_os_str(), "elsewhere".as_ref()]);
    let question = ground.question();
    let approve = ana(&ground, &format!("approve {}", question.id));
    // Looked at, and left: by a word, and by a signal.
    terminal.line(&(approve.clone() + "; echo status=$?"));
    let screen = terminal.until_question();
    assert!(screen.contains("this operation?") && screen.contains("rule         deploy"), "{screen}");
    read();
    terminal.line("later");
    terminal.until_shows("status=1");
    terminal.line("clear");
    terminal.line(&(approve.clone() + "; echo status=$?"));
    terminal.until_question();
    read();
    terminal.press("C-c");
    terminal.until_shows("status=130");
    assert_eq!(terminal.settings("between"), settings, "the terminal is given back");
    ground.assert_never_ran();
    terminal.line("clear");
    terminal.line(&approve);
    terminal.until_question();
    read();
    terminal.line("a");
    terminal.until_shows("passphrase of the passkey");
    terminal.line(PASSPHRASE);
    terminal.until_shows("approved: ");
    session.finish().assert_code(0);
    let screen = terminal.until_prompt();
    assert!(!screen.contains(PASSPHRASE), "{screen}");
    assert_eq!(terminal.settings("after"), settings);
    ground.verify();
}

/// A signal from outside ends `ana approve` as it ends any command, and leaves the terminal as it was.
#[test]
fn a_signal_ends_ana_approve() {
    let ground = Ground::new("approve-signal");
    let terminal = Terminal::of_root(&ground);
    let settings = terminal.settings("before");
    let session = ground.start(&[ground.deploy().as_os_str(), "elsewhere".as_ref()]);
    let question = ground.question();
    for (signal, status) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130)] {
        terminal.line("clear");
        let pid = ground.home().join(format!("pid-{signal}"));
        let approve = ana(&ground, &format!("approve {}", question.id));
        terminal.line(&format!("sh -c 'echo $$ >{}; exec {approve}'", pid.display()));
        terminal.until_question();
        let pid = std::fs::read_to_string(&pid).expect("it is written").trim().parse().expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("it runs");
        terminal.until_prompt();
        terminal.line("echo status=$?");
        terminal.until_shows(&format!("status={status}"));
        assert_eq!(terminal.settings(&format!("after-{signal}")), settings);
    }
    ground.deny(&question.id, "enough");
    session.finish();
}

/// Without a terminal nobody can type a passphrase: that is said, and nothing waits for it.
#[test]
fn no_terminal_for_the_passphrase() {
    let (ground, _terminal) = with_passphrase("passphrase-none");
    let session = ground.start(&[ground.deploy().as_os_str(), "elsewhere".as_ref()]);
    let question = ground.question();
    let refused = ground.try_approve(&question.id);
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && why.contains("run this in a terminal"), "{why}");
    wait::until("it still waits", || ground.pending(0).pop());
    ground.deny(&question.id, "enough");
    session.finish();
    ground.assert_never_ran();
}
