//! The question on the person's terminal shows what is asked, whatever the agent has drawn there before.

use ana_tests::{Ground, terminal::Terminal};

/// The agent fills the screen with words where the question will stand, goes back to the top, and asks: none of its words
/// may stand beside the question's.
#[test]
fn what_the_agent_drew_does_not_stand_beside_the_question() {
    is_readable("drawn", "");
}

/// The agent begins a control sequence and leaves its end to the question.
#[test]
fn a_sequence_that_was_begun_does_not_swallow_the_question() {
    for begun in ["\\033]0;", "\\033P", "\\033["] {
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
    terminal.until_prompt();
    ground.assert_never_ran();
}
