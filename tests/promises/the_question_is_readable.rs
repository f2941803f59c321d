//! The question on terminals of all kinds: narrow, small, resized, plain, without colours; taller than the screen.

use ana_tests::{
    Ground,
    terminal::{ASKED, Terminal, settle},
    wait,
};

/// An agent that draws, then asks; at the end it waits for a key.
fn drawing(ground: &Ground, arguments: &str) -> String {
    let script = format!(
        "printf '\\033[2J\\033[5;5Hdrawn'\n{} {arguments} >/dev/null 2>&1\nread key\n",
        ground.deploy().display()
    );
    ground.write_home("drawing.sh", 0o755, &script);
    format!("sh {}", ground.home().join("drawing.sh").display())
}

/// The same that only prints lines.
fn printing(ground: &Ground, arguments: &str) -> String {
    format!("{} {arguments}", ground.deploy().display())
}

#[test]
fn forty_columns() {
    let ground = Ground::new("narrow");
    let terminal = Terminal::of_size(&ground, 40, 60);
    terminal.line(&terminal.ana_run(&ground, &printing(&ground, "'two words' --narrow")));
    let screen = terminal.until_question();
    assert!(screen.contains("'two words'") && screen.contains("--narrow"), "{screen}");
    terminal.answer_yes();
    terminal.until_shows("marker: ran two words --narrow");
    assert_eq!(ground.markers().len(), 1);
}

/// Nothing of it goes past: it has a page of its own also where the agent has drawn nothing.
#[test]
fn longer_than_the_screen_it_is_paged() {
    let ground = Ground::new("tall");
    let terminal = Terminal::of_root(&ground);
    let command = format!("sh -c 'exec {} $(seq 1 200)'", ground.deploy().display());
    terminal.line(&terminal.ana_run(&ground, &command));
    terminal.until_question();
    let seen = terminal.until_still();
    assert!(seen.contains("this operation?") && seen.contains("more lines: Space"), "{seen}");
    settle();
    terminal.line("approve");
    terminal.until_shows("Read it to its end first");
    ground.assert_never_ran();
    terminal.answer_no();
    terminal.until_prompt();
    ground.assert_never_ran();
}

/// What does not fit is paged; yes counts only when the end was on the screen, no at once.
#[test]
fn taller_than_the_screen() {
    let ground = Ground::new("tall");
    let terminal = Terminal::of_size(&ground, 40, 10);
    let words: Vec<String> = (0..30).map(|word| format!("word-{word}")).collect();
    terminal.line(&terminal.ana_run(&ground, &drawing(&ground, &words.join(" "))));
    terminal.until_question();
    let screen = terminal.look();
    assert!(
        screen.contains(" more: Space --") || screen.contains("more lines: Space, PgDn"),
        "it says that there is more:\n{screen}"
    );
    terminal.answer_yes();
    terminal.until_shows("Read it to its end first");
    ground.assert_never_ran();
    let all = terminal.read_to_the_end();
    for word in &words {
        assert!(all.contains(&format!("  {word}\n")), "{word} was never shown:\n{all}");
    }
    terminal.line("approve");
    wait::until("it ran", || (ground.markers().len() == 1).then_some(()));
    terminal.until_shows("drawn");
    terminal.press("Enter");
    ground.verify_at_end();
}

#[test]
fn no_counts_before_the_end_was_seen() {
    let ground = Ground::new("tall-no");
    let terminal = Terminal::of_size(&ground, 20, 5);
    terminal.line(&terminal.ana_run(&ground, &drawing(&ground, "one two three")));
    terminal.until_question();
    terminal.answer_no();
    wait::until("it is denied", || ground.decisions().first().filter(|decision| decision.denies()).map(drop));
    ground.assert_never_ran();
    terminal.press("Enter");
}

/// The terminal gets another size while the question is asked.
#[test]
fn resized_while_it_is_asked() {
    let ground = Ground::new("resized");
    let terminal = Terminal::of_size(&ground, 100, 50);
    terminal.line(&terminal.ana_run(&ground, &drawing(&ground, "now")));
    terminal.until_question();
    for (columns, rows) in [(60, 30), (20, 5), (40, 12), (120, 45)] {
        terminal.resize(columns, rows);
        terminal.until("the question in the new size", |_| {
            let look = terminal.look();
            let last = look.lines().nth(usize::from(rows) - 1).unwrap_or_default();
            last.contains(ASKED) && (look.contains("this operation?") || columns < 40)
        });
    }
    terminal.read_to_the_end();
    terminal.answer_yes();
    wait::until("it ran", || (ground.markers().len() == 1).then_some(()));
    terminal.press("Enter");
    terminal.until("the next prompt", |screen| screen.matches("outer$ ").count() == 2);
    terminal.line("clear; stty size");
    terminal.until_shows("45 120");
}

/// Plainly, everything is text below text, even if the agent draws.
#[test]
fn plain() {
    let ground = Ground::new("plain");
    let terminal = Terminal::of_root(&ground);
    terminal.line(&terminal.ana_run_with(&ground, "--plain", &drawing(&ground, "plainly")));
    let screen = terminal.until_question();
    assert!(screen.contains("deploy plainly"), "{screen}");
    let look = terminal.look();
    assert!(!look.contains("\u{1b}[") && look.contains("alternate:0"), "{look:?}");
    terminal.answer_yes();
    let screen = terminal.until_shows("ana: signed: ");
    assert!(screen.contains("rule         deploy"), "it stays there:\n{screen}");
    terminal.press("Enter");
    terminal.until_prompt();
    assert_eq!(ground.markers().len(), 1);
}

#[test]
fn colours_only_where_they_are_wanted() {
    for (name, variable, colours) in
        [("colours", "", true), ("no-color", "NO_COLOR=1 ", false), ("dumb", "TERM=dumb ", false)]
    {
        let ground = Ground::new(name);
        let terminal = Terminal::of_root(&ground);
        terminal.line(&(variable.to_owned() + &terminal.ana_run(&ground, &printing(&ground, "now"))));
        terminal.until_question();
        let look = terminal.look();
        assert_eq!(look.contains("\u{1b}["), colours, "{name}: {look:?}");
        terminal.answer_no();
        terminal.until_prompt();
    }
}

/// A word that is none is asked about again, `?` explains, and several questions are counted.
#[test]
fn words_help_and_counter() {
    let ground = Ground::new("words");
    let terminal = Terminal::of_root(&ground);
    let deploy = ground.deploy();
    let script = format!(
        "printf '\\033[2J\\033[5;5Hdrawn'\nfor i in 1 2 3; do {} $i >/dev/null 2>&1 & done; wait; read key\n",
        deploy.display()
    );
    ground.write_home("three.sh", 0o755, &script);
    terminal.line(&terminal.ana_run(&ground, &format!("sh {}", ground.home().join("three.sh").display())));
    terminal.until_shows("(1 of 3)");
    settle();
    terminal.line("yes");
    terminal.until_shows("the answer is one of a, d, l and ?");
    terminal.line("?");
    terminal.until_shows("ana approve 0");
    terminal.keys("deny\x7f\x7f\x7f\x7fa");
    terminal.until("the edited line", |screen| screen.contains(&format!("{ASKED} a\n")));
    terminal.press("Enter");
    terminal.until_shows("(2 of 3)");
    terminal.answer_no();
    terminal.until_shows("(3 of 3)");
    // Ctrl-C is a no, too.
    settle();
    terminal.press("C-c");
    terminal.until_shows("drawn");
    wait::until("all are decided", || (ground.decisions().len() == 3).then_some(()));
    assert_eq!(ground.markers().len(), 1);
    terminal.press("Enter");
    ground.verify_at_end();
}
