//! A real terminal: a tmux of the test's own, whose screen is read and whose keys are pressed.

use std::{
    num::NonZeroU16,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use crate::{
    ground::{GROUND_VARIABLE, Ground},
    machine::{USER, machine},
    wait,
};

/// What stands on the line where the answer is typed.
pub const ASKED: &str = "[a/d/l/?]";

/// How long a question stands before an answer counts.
pub const SETTLE: Duration = Duration::from_millis(500);

/// Lets a question stand for as long as what is typed does not count. Not synchronisation: what is typed earlier is promised
/// to be ignored.
pub fn settle() {
    std::thread::sleep(SETTLE + Duration::from_millis(100));
}

/// The width of the screen.
const COLUMNS: &str = "160";
/// The outer shell's.
const PROMPT: &str = "outer$ ";

/// A tmux server with one window running an interactive shell. Its prompt is `outer$ `.
pub struct Terminal {
    socket: String,
}

impl Terminal {
    /// A shell of root's in a new terminal.
    pub fn of_root(ground: &Ground) -> Self {
        Self::running(ground, &[])
    }

    /// A shell of the session's user in a new terminal, as a person has one.
    pub fn of_person(ground: &Ground) -> Self {
        Self::running(ground, &["setpriv", "--reuid", USER, "--regid", USER, "--init-groups", "--"])
    }

    fn running(ground: &Ground, prefix: &[&str]) -> Self {
        let socket = ground.root().join("tmux").to_str().expect("UTF-8").to_owned();
        let terminal = Self { socket };
        let mut shell: Vec<String> = prefix.iter().map(|&part| part.to_owned()).collect();
        shell.push("/usr/bin/env".to_owned());
        shell.extend(ground.environment().iter().map(|(name, value)| format!("{name}={}", value.display())));
        shell.push(format!("PS1={PROMPT}"));
        shell.extend(["PROMPT_COMMAND=", "bash", "--norc", "--noprofile", "-i"].map(str::to_owned));
        let home = ground.home().to_str().expect("UTF-8").to_owned();
        let mut command = terminal.tmux();
        command
            .args(["-f", "/dev/null", "new-session", "-d", "-x", COLUMNS, "-y", "50", "-c", &home])
            .args(&shell)
            .env(GROUND_VARIABLE, ground.root())
            .env_remove("TMUX");
        // A shell drops variables whose names it does not like; the question would name each of them.
        let of_cargo = |name: &std::ffi::OsString| name.as_encoded_bytes().starts_with(b"CARGO");
        for name in std::env::vars_os().map(|(name, _)| name).filter(of_cargo) {
            command.env_remove(name);
        }
        let output = command.output().expect("tmux is installed");
        assert!(output.status.success(), "tmux: {}", String::from_utf8_lossy(&output.stderr));
        terminal.until("a shell prompt", |screen| screen.contains(PROMPT.trim_end()));
        terminal
    }

    /// A shell of root's in a new terminal of another size.
    pub fn of_size(ground: &Ground, columns: u16, rows: u16) -> Self {
        let terminal = Self::of_root(ground);
        terminal.resize(columns, rows);
        terminal.line("clear; stty size");
        terminal.until_shows(&format!("{rows} {columns}"));
        terminal
    }

    fn tmux(&self) -> Command {
        let mut command = Command::new("tmux");
        command.args(["-S", &self.socket]).stdin(Stdio::null());
        command
    }

    #[track_caller]
    fn order(&self, args: &[&str]) -> Output {
        let output = self.tmux().args(args).output().expect("tmux is installed");
        assert!(output.status.success(), "tmux {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    /// Types text and presses Enter.
    #[track_caller]
    pub fn line(&self, text: &str) {
        self.order(&["send-keys", "-l", text]);
        self.press("Enter");
    }

    /// Types text without Enter.
    #[track_caller]
    pub fn keys(&self, text: &str) {
        self.order(&["send-keys", "-l", text]);
    }

    /// Pastes text, as the terminal is asked to (bracketed or not).
    #[track_caller]
    pub fn paste(&self, text: &str) {
        self.order(&["set-buffer", text]);
        self.order(&["paste-buffer", "-p", "-r"]);
    }

    /// Presses one key by tmux's name (`C-c`, `C-z`, `Enter`).
    #[track_caller]
    pub fn press(&self, key: &str) {
        self.order(&["send-keys", key]);
    }

    /// What stands on the screen, lines joined where the terminal wrapped them.
    #[track_caller]
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.order(&["capture-pane", "-p", "-J", "-S", "-500"]).stdout).into_owned()
    }

    /// Everything that can be seen of the screen itself: letters, colours, the cursor, what keys and mouse do.
    #[track_caller]
    pub fn look(&self) -> String {
        let modes = "#{cursor_x},#{cursor_y} shown:#{cursor_flag} alternate:#{alternate_on} keys:#{keypad_cursor_flag}\
                     #{keypad_flag} mouse:#{mouse_any_flag}#{mouse_sgr_flag} insert:#{insert_flag} wrap:#{wrap_flag} \
                     region:#{scroll_region_upper},#{scroll_region_lower} origin:#{origin_flag}";
        let modes = self.order(&["display-message", "-p", modes]).stdout;
        let size = self.order(&["display-message", "-p", "#{pane_height} #{pane_width}"]).stdout;
        let size = String::from_utf8_lossy(&size).into_owned();
        let (rows, columns) = size.trim().split_once(' ').expect("two numbers");
        let screen = self.order(&["capture-pane", "-p", "-e", "-N"]).stdout;
        let rows = painted(&screen, rows.parse().expect("rows"), columns.parse().expect("columns"));
        format!("{}\n{}", rows.join("\n"), String::from_utf8_lossy(&modes))
    }

    /// Waits until the screen stands still.
    #[track_caller]
    pub fn until_still(&self) -> String {
        let mut last = self.look();
        wait::until("the screen stands still", || {
            std::thread::sleep(Duration::from_millis(300));
            let now = self.look();
            let still = now == last;
            last.clone_from(&now);
            still.then_some(now)
        })
    }

    /// Looks at everything of a question that may not fit the screen.
    #[track_caller]
    pub fn read_to_the_end(&self) -> String {
        settle();
        let mut all = String::new();
        loop {
            let screen = self.look();
            all.push_str(&screen);
            if !screen.contains(" more") {
                return all;
            }
            self.press("Space");
            self.until("the next part", |_| self.look() != screen);
        }
    }

    /// Waits until the screen looks like this again.
    #[track_caller]
    pub fn until_looks_like(&self, before: &str) {
        if wait::poll(wait::SOON, || (self.look() == before).then_some(())).is_none() {
            panic!("the screen is not as it was; before:\n{before}\nafter:\n{}", self.look());
        }
    }

    #[track_caller]
    pub fn resize(&self, columns: u16, rows: u16) {
        self.order(&["resize-window", "-x", &columns.to_string(), "-y", &rows.to_string()]);
    }

    /// Waits until the screen is as wanted.
    #[track_caller]
    pub fn until(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        match wait::poll(wait::LIMIT, || Some(self.screen()).filter(|screen| wanted(screen))) {
            Some(screen) => screen,
            None => panic!("the terminal never showed {what}:\n{}", self.screen()),
        }
    }

    /// Waits until the screen shows this text.
    #[track_caller]
    pub fn until_shows(&self, text: &str) -> String {
        self.until(&format!("{text:?}"), |screen| screen.contains(text))
    }

    /// Waits until cat has repeated the word that was typed. (Typed before `fg` is through, it is shown twice before that.)
    #[track_caller]
    pub fn until_repeated(&self, word: &str) -> String {
        let repeated =
            |screen: &str| screen.matches(word).count() >= 2 && screen.lines().any(|line| line == word);
        self.until("cat's echo", repeated)
    }

    /// Waits until the last line is the outer shell's empty prompt again.
    #[track_caller]
    pub fn until_prompt(&self) -> String {
        self.until("the outer prompt", |screen| screen.trim_end().ends_with(PROMPT.trim_end()))
    }

    /// The line that starts `COMMAND` under `ana-run`, to be typed.
    pub fn ana_run(&self, ground: &Ground, command: &str) -> String {
        self.ana_run_with(ground, "", command)
    }

    /// The same with further options.
    pub fn ana_run_with(&self, ground: &Ground, options: &str, command: &str) -> String {
        let (run, state) = (machine().ana("ana-run"), ground.state());
        let line =
            format!("{} --user {USER} --state {} {options} -- {command}", run.display(), state.display());
        // tmux takes a line that fills the screen's to go on in the next one.
        let full = (PROMPT.len() + line.len()).is_multiple_of(COLUMNS.parse().expect("a number"));
        if full { line + " " } else { line }
    }

    /// Waits until a question stands on the screen and asks for an answer.
    #[track_caller]
    pub fn until_question(&self) -> String {
        self.until("a question", |screen| screen.contains(ASKED))
    }

    /// Waits until a question stands on the screen; tells a moment at which it did not stand there yet.
    #[track_caller]
    pub fn until_question_since(&self) -> Instant {
        let mut before = Instant::now();
        wait::until("a question on the screen", || {
            let look = Instant::now();
            let asked = self.screen().contains(ASKED);
            let unseen = before;
            before = look;
            asked.then_some(unseen)
        })
    }

    /// Reads the question on the screen for as long as a person has to, and answers it with yes.
    #[track_caller]
    pub fn answer_yes(&self) {
        self.answer("approve");
    }

    /// The same with no.
    #[track_caller]
    pub fn answer_no(&self) {
        self.answer("deny");
    }

    #[track_caller]
    fn answer(&self, word: &str) {
        settle();
        self.line(word);
    }

    /// The settings of the terminal, as `stty -g` tells them in the outer shell.
    #[track_caller]
    pub fn settings(&self, mark: &str) -> String {
        self.line(&format!("echo {mark}=$(stty -g)="));
        let screen = self.until("the settings", |screen| setting(screen, mark).is_some());
        setting(&screen, mark).expect("just seen")
    }
}

/// The rows of a screen as they are seen: a blank that was written is the same as one that never was.
fn painted(screen: &[u8], rows: NonZeroU16, columns: NonZeroU16) -> Vec<String> {
    let mut terminal = vt100::Parser::new(rows, columns, 0);
    let blank = " ".repeat(usize::from(columns.get()));
    for row in 1..=rows.get() {
        terminal.process(format!("\x1b[{row};1H{blank}").as_bytes());
    }
    for (row, text) in (1..).zip(screen.split(|&byte| byte == b'\n').take(rows.get().into())) {
        terminal.process(format!("\x1b[{row};1H").as_bytes());
        terminal.process(text);
    }
    terminal.screen().rows_formatted(0, columns.get()).map(|row| row.trim_end().to_owned()).collect()
}

/// The value between `mark=` and `=` on a line of output (not on the line that was typed).
fn setting(screen: &str, mark: &str) -> Option<String> {
    let start = format!("{mark}=");
    screen.lines().find_map(|line| {
        let value = line.strip_prefix(&start)?.strip_suffix('=')?;
        value.contains(':').then(|| value.to_owned())
    })
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let ended = self.tmux().arg("kill-server").output();
        drop(ended);
    }
}
