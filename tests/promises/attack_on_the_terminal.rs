//! The question on the person's terminal shows what is asked, whatever the agent has drawn there before.

use ana_tests::{
    Ground, processes,
    terminal::{Terminal, settle},
    wait,
};

/// The agent fills the screen with words where the question will stand, goes back to the top, and asks: none of its words
/// may stand beside the question's.
#[test]
fn what_the_agent_drew_does_not_stand_beside_the_question() {
    is_readable("drawn", "");
}

/// The agent begins a control sequence and leaves its end to the question.
#[test]
fn a_sequence_that_was_begun_does_not_swallow_the_question() {
    for begun in ["\\033]0;", "\\033P", "\\033[", "\\033_G", "\\033", "\\302"] {
        is_readable("begun", begun);
    }
}

#[track_caller]
fn is_readable(name: &str, last: &str) {
    let ground = Ground::new(name);
    let draw = "printf \"\\033[2J\"; for row in $(seq 1 48); do \
                printf \"\\033[${row};70HNEVERMIND\"; done; printf '\\033[1;1H'";
    ground.write_home(
        "draw.sh",
        0o755,
        &format!("{draw}\nprintf '{last}'\nexec {} production\n", ground.deploy().display()),
    );
    let terminal = Terminal::of_root(&ground);
    terminal.line(&terminal.ana_run(&ground, &format!("sh {}", ground.home().join("draw.sh").display())));
    let screen = terminal.until_question();
    let from = screen.find("deploy production").unwrap_or_else(|| panic!("{screen}"));
    assert!(!screen[from..].contains("NEVERMIND"), "the agent's words stand in the question:\n{screen}");
    for part in ["[1] 10 bytes  production", "rule         deploy", "directory "] {
        assert!(screen[from..].contains(part), "{part:?} is missing after {last:?}:\n{screen}");
    }
    terminal.answer_no();
    // What the agent drew is there again, and nothing of the question's.
    terminal.until("the agent's screen", |screen| screen.contains("NEVERMIND") && !screen.contains("rule  "));
    terminal.until("the outer prompt, where the cursor was", |screen| screen.contains("outer$ "));
    ground.assert_never_ran();
}

/// The agent draws a question of its own, which asks about something harmless: ours replaces it, and is answered alone.
#[test]
fn a_forged_question_is_not_beside_the_real_one() {
    for (name, screen) in [("forged", ""), ("forged-full", "\\033[?1049h")] {
        let ground = Ground::new(name);
        let forged =
            format!("printf '{screen}\\033[3;1Hrule         HARMLESS\\033[50;1Happrove? [a/d/l/?] '");
        // It stays until it has been seen: who leaves takes the screen along.
        let script =
            format!("exec 2>/dev/null\n{forged}\n{} production\nread _\n", ground.deploy().display());
        ground.write_home("forge.sh", 0o755, &script);
        let terminal = Terminal::of_root(&ground);
        terminal
            .line(&terminal.ana_run(&ground, &format!("sh {}", ground.home().join("forge.sh").display())));
        let screen = terminal.until("the real question", |screen| screen.contains("deploy production"));
        let screen = if screen.contains("or later?") { screen } else { terminal.until_shows("or later?") };
        assert!(!screen.contains("HARMLESS"), "{screen}");
        terminal.answer_no();
        terminal.until("the forged one again", |screen| screen.contains("HARMLESS"));
        terminal.press("Enter");
        terminal.until_prompt();
        ground.assert_never_ran();
    }
}

/// A scroll region that keeps the question in two rows, with forged ones above them: what is asked has the screen for itself.
#[test]
fn a_scroll_region_does_not_frame_the_question() {
    for (name, options) in [("framed", ""), ("framed-plain", "--plain")] {
        let ground = Ground::new(name);
        let forged = "printf '\\033[49;50r\\033[H\\033[2J'\nfor row in $(seq 48); do echo HARMLESS; done\n";
        let script = format!("{forged}exec {} production\n", ground.deploy().display());
        ground.write_home("frame.sh", 0o755, &script);
        let terminal = Terminal::of_root(&ground);
        let command = format!("sh {}", ground.home().join("frame.sh").display());
        terminal.line(&terminal.ana_run_with(&ground, options, &command));
        terminal.until_question();
        let seen = terminal.look();
        assert!(seen.contains("deploy production") && seen.contains("this operation?"), "{name}: {seen}");
        assert!(!seen.contains("HARMLESS"), "{name}: {seen}");
        terminal.answer_no();
        // It ends, and its region with the outer shell's prompt in it is its own doing.
        terminal.until_shows("refused by");
        ground.assert_never_ran();
    }
}

/// The question that a person is about to answer goes, and another one takes its place: the answer is not for that.
#[test]
fn another_question_in_the_place_of_one_is_not_answered_by_mistake() {
    let ground = Ground::new("bait");
    let script = format!("{0} harmless &\n{0} production &\nwait\n", ground.deploy().display());
    ground.write_home("bait.sh", 0o755, &script);
    let terminal = Terminal::of_root(&ground);
    terminal.line(&terminal.ana_run(&ground, &format!("sh {}", ground.home().join("bait.sh").display())));
    terminal.until("both wait", |screen| screen.contains("(1 of 2)") || screen.contains("[a/d/l/?]"));
    let pending = ground.pending(2);
    let shown = terminal.until_question();
    let first = pending.iter().find(|question| shown.contains(question.id.as_str())).expect("it is shown");
    settle();
    processes::end(first.pid());
    terminal.until_shows("the question before is over");
    // What was on its way for the other one.
    terminal.line("approve");
    settle();
    ground.assert_never_ran();
    assert_eq!(ground.pending(1).len(), 1, "nobody has answered it");
    terminal.until_still();
    ground.deny(&ground.pending(1).remove(0).id, "enough");
    terminal.until_prompt();
    ground.verify_at_end();
}

/// An agent can fill the clipboard; what is pasted is no answer.
#[test]
fn what_is_pasted_is_no_answer() {
    let ground = Ground::new("pasted");
    let terminal = Terminal::of_root(&ground);
    terminal.line(&terminal.ana_run(&ground, &format!("{} production", ground.deploy().display())));
    terminal.until_question();
    settle();
    terminal.paste("\napprove\n");
    // Typed behind it, and answered: the paste was before that, and nothing.
    terminal.line("?");
    terminal.until_shows("your passkey signs exactly what stands above");
    ground.assert_never_ran();
    terminal.answer_no();
    terminal.until_prompt();
    assert!(ground.decisions().iter().all(|decision| !decision.approves()));
}

/// Another process of the agent's writes on and on while the question is asked: it is neither covered nor lost.
#[test]
fn a_flood_does_not_cover_the_question() {
    let ground = Ground::new("flood-tty");
    let flood = "(while :; do printf '\\033[H\\033[31mFLOOD\\033[2;2HFLOOD'; done) & ";
    let script = format!("{flood}\n{} production >/dev/null 2>&1\nkill $!\n", ground.deploy().display());
    ground.write_home("flood.sh", 0o755, &script);
    let terminal = Terminal::of_root(&ground);
    terminal.line(&terminal.ana_run(&ground, &format!("sh {}", ground.home().join("flood.sh").display())));
    terminal.until_question();
    let asked = terminal.until_still();
    assert!(asked.contains("deploy production") && !asked.contains("FLOOD"), "{asked}");
    terminal.answer_yes();
    wait::until("it ran", || (ground.markers().len() == 1).then_some(()));
    terminal.until("the agent's screen", |screen| screen.contains("FLOOD"));
    ground.verify_at_end();
}
