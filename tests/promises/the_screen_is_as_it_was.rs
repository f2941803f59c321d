//! A question comes over whatever the agent has drawn, and goes: its screen is as it was, its line goes on, its modes are set.

use std::{ffi::OsString, fs::File};

use ana_tests::{
    Ground, claude,
    machine::{path_str, which},
    model::Model,
    processes,
    skip::skipped,
    terminal::Terminal,
    wait,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// A shell script that asks when the file `go` is there, and says nothing about it.
fn ask_when_told(ground: &Ground, word: &str) -> String {
    let go = ground.home().join("go");
    format!(
        "until test -e {}; do sleep 0.1; done; {} {word} >/dev/null 2>&1",
        go.display(),
        ground.deploy().display()
    )
}

fn tell(ground: &Ground) {
    File::create(ground.home().join("go")).expect("the home can be written");
}

/// Runs a full-screen program as a child of a shell, beside a process that asks.
fn start_beside(ground: &Ground, terminal: &Terminal, program: &str) {
    let script = format!("({}) &\n{program}\necho it-ended\n", ask_when_told(ground, "beside"));
    ground.write_home("beside.sh", 0o755, &script);
    terminal.line(&terminal.ana_run(ground, &format!("sh {}", ground.home().join("beside.sh").display())));
}

/// Stops the program that draws: what is seen from here on is ana's doing.
fn stop(ground: &Ground, name: &str) -> Pid {
    let root = path_str(ground.root()).as_bytes().to_vec();
    let pid = wait::until("the program runs", || {
        let ours = |pid: &i32| {
            processes::program(*pid).is_some_and(|program| program.starts_with(name))
                && processes::mentions(*pid, &root)
        };
        processes::all().into_iter().find(ours)
    });
    let pid = Pid::from_raw(pid);
    kill(pid, Signal::SIGSTOP).expect("the agent's program can be stopped from outside");
    pid
}

/// A question comes over the screen as it is, and goes.
fn question_comes_and_goes(ground: &Ground, terminal: &Terminal) {
    let before = terminal.until_still();
    tell(ground);
    terminal.until_question();
    let during = terminal.look();
    assert!(during.contains("deploy beside") && during.contains("mouse:00"), "{during}");
    terminal.read_to_the_end();
    terminal.answer_yes();
    wait::until("it ran", || (ground.markers().len() == 1).then_some(()));
    terminal.until_looks_like(&before);
}

#[test]
fn vim_is_as_it_was() {
    if which("vim").is_none() {
        return skipped("vim_is_as_it_was", "no vim");
    }
    let ground = Ground::new("vim");
    let text: String = (1..200).map(|line| format!("line {line}: the quick brown fox\n")).collect();
    ground.write_home("text", 0o644, &text);
    let terminal = Terminal::of_root(&ground);
    start_beside(
        &ground,
        &terminal,
        "vim -u NONE -N -c 'set mouse=a number hlsearch' -c '/fox' -c 'normal 9j' text",
    );
    terminal.until_shows("line 9: ");
    terminal.until_still();
    // It draws itself anew afterwards: what is compared is what ana restores.
    let pid = stop(&ground, "vim");
    question_comes_and_goes(&ground, &terminal);
    kill(pid, Signal::SIGCONT).expect("it is there");
    // And it goes on: keys are its own again.
    terminal.keys(":put ='typed-'.6*7");
    terminal.press("Enter");
    terminal.until_shows("typed-42");
    terminal.keys(":q!");
    terminal.press("Enter");
    terminal.until_shows("it-ended");
    ground.verify_at_end();
}

#[test]
fn less_is_as_it_was() {
    let ground = Ground::new("less-question");
    ground.write_home("text", 0o644, &(1..500).map(|line| format!("row {line}\n")).collect::<String>());
    let terminal = Terminal::of_root(&ground);
    start_beside(&ground, &terminal, "less text");
    terminal.until_shows("row 20");
    terminal.until_still();
    let pid = stop(&ground, "less");
    question_comes_and_goes(&ground, &terminal);
    kill(pid, Signal::SIGCONT).expect("it is there");
    terminal.press("Space");
    terminal.until_shows("row 70");
    terminal.keys("q");
    terminal.until_shows("it-ended");
}

/// They draw all the time: stopped, they show what was restored.
#[test]
fn htop_and_top_are_as_they_were() {
    for name in ["htop", "top"] {
        if which(name).is_none() {
            skipped("htop_and_top_are_as_they_were", &format!("no {name}"));
            continue;
        }
        let ground = Ground::new(name);
        let terminal = Terminal::of_root(&ground);
        start_beside(&ground, &terminal, name);
        terminal.until("processes", |screen| screen.contains("PID") && screen.contains("CPU"));
        let pid = stop(&ground, name);
        question_comes_and_goes(&ground, &terminal);
        kill(pid, Signal::SIGCONT).expect("it is there");
        terminal.keys("q");
        terminal.until_shows("it-ended");
    }
}

/// The real Claude Code with its own screen, in a tmux: its model wants a command run that is protected.
#[test]
fn claude_code_is_as_it_was() {
    if which("npm").is_none() {
        return skipped("claude_code_is_as_it_was", "no npm to install Claude Code with");
    }
    let ground = Ground::new("claude-tui");
    let ask = ask_when_told(&ground, "beside");
    let model =
        Model::start(&format!("touch {}; {ask}; echo by-claude", path_str(&ground.home().join("runs"))));
    let terminal = Terminal::of_root(&ground);
    let command: Vec<OsString> = claude::interactive(&ground, &model.url());
    let words: Vec<String> =
        command.iter().map(|word| format!("'{}'", word.to_str().expect("UTF-8"))).collect();
    let script = format!("TERM=tmux-256color; export TERM\n{}\necho it-ended\n", words.join(" "));
    ground.write_home("claude.sh", 0o755, &script.replace("'-i'", "'-i' \"TERM=$TERM\""));
    terminal.line(&terminal.ana_run(&ground, &format!("sh {}", ground.home().join("claude.sh").display())));
    let shown = |screen: &str| screen.contains("Claude Code v") && screen.contains('\u{276f}');
    if wait::poll(std::time::Duration::from_secs(120), || shown(&terminal.screen()).then_some(())).is_none() {
        panic!("Claude Code shows no prompt:\n{}", terminal.screen());
    }
    terminal.until_still();
    terminal.keys("run it");
    terminal.until_shows("run it");
    terminal.press("Enter");
    let runs = ground.home().join("runs");
    wait::until_within(std::time::Duration::from_secs(60), "its tool runs", || runs.exists().then_some(()));
    let pid = stop(&ground, "claude");
    question_comes_and_goes(&ground, &terminal);
    kill(pid, Signal::SIGCONT).expect("it is there");
    terminal.until_shows("the model is done");
    assert!(model.tool_result().contains("by-claude"), "{}", model.tool_result());
    ground.assert_every_run_was_decided();
    ground.verify();
}

/// A program that has printed half a line, in colours, and goes on with it.
#[test]
fn half_a_line_goes_on() {
    let ground = Ground::new("half");
    let script = format!(
        "echo first\nprintf 'half \\033[31mred '\n{} half >/dev/null 2>&1\nprintf 'more\\033[m plain\\n'\n",
        ground.deploy().display()
    );
    ground.write_home("half.sh", 0o755, &script);
    let terminal = Terminal::of_root(&ground);
    terminal.line(&terminal.ana_run(&ground, &format!("sh {}", ground.home().join("half.sh").display())));
    let asked = terminal.until_question();
    assert!(
        asked.lines().any(|line| line.trim_end() == "half red"),
        "the question has a line of its own:\n{asked}"
    );
    terminal.answer_yes();
    let screen = terminal.until_prompt();
    assert!(screen.contains("ana: signed: "), "{screen}");
    assert!(screen.lines().any(|line| line.trim_end() == "half red more plain"), "{screen}");
    let look = terminal.look();
    let line = look.lines().find(|line| line.contains("red more")).expect("just seen");
    assert!(line.contains("half \u{1b}[31mred more\u{1b}[m plain"), "{line:?}");
}

/// An agent that is killed gives the terminal back as it found it.
#[test]
fn a_killed_agents_screen_is_cleared_away() {
    let ground = Ground::new("killed-tty");
    let terminal = Terminal::of_root(&ground);
    let settings = terminal.settings("before");
    let draw = "printf '\\033[?1049h\\033[?25l\\033[?1003h\\033[?1006h\\033[2;5r\\033[3;3Hdrawn'";
    ground.write_home("draw.sh", 0o755, &format!("{draw}\nkill -9 $$\n"));
    terminal.line(
        &terminal
            .ana_run(&ground, &format!("sh {}; echo status=$?", ground.home().join("draw.sh").display())),
    );
    let screen = terminal.until("the status", |screen| screen.lines().any(|line| line == "status=137"));
    assert!(!screen.contains("drawn"), "{screen}");
    let look = terminal.look();
    assert!(look.contains("shown:1 alternate:0") && look.contains("mouse:00"), "{look}");
    assert_eq!(terminal.settings("after"), settings);
}
