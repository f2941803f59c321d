//! What people see of a task: one line a step, colour only where it is wanted.

use std::io::{self, IsTerminal, Write};

/// A step that was done, or was found done.
pub(crate) fn step(what: &str, done: &str) {
    line("1;32", what, done);
}

/// Something that a person should know before going on.
pub(crate) fn note(what: &str, text: &str) {
    line("1;33", what, text);
}

/// Nobody is left to tell when stderr is closed; the task goes on.
fn line(color: &str, what: &str, text: &str) {
    let mut stderr = io::stderr().lock();
    if wants_color(stderr.is_terminal()) {
        writeln!(stderr, "\x1b[{color}m{what:>10}\x1b[0m {text}").ok();
    } else {
        writeln!(stderr, "{what:>10} {text}").ok();
    }
}

fn wants_color(terminal: bool) -> bool {
    terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Whether a person sits there: nothing is asked where one of the three is no terminal.
pub(crate) fn terminal() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal() && io::stderr().is_terminal()
}
