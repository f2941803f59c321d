//! The question as a person sees it: rendered from the bytes that are signed, answered by a typed word.

use std::{
    io::{self, IsTerminal, Read, Write},
    os::fd::AsFd,
    time::{Duration, Instant},
};

use nix::sys::termios::{FlushArg, tcflush};

use crate::{approval::authenticator::Options, sys::terminal};

/// What was typed before the question, and right after it came up, was not meant for it.
pub const SETTLE: Duration = Duration::from_millis(500);

/// What a person can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Approve,
    Deny,
    /// Not now: it goes on waiting, here or in another terminal.
    Later,
}

/// The whole question, without the line where the answer is typed.
pub fn text(options: &Options, width: usize, color: bool) -> String {
    let passkeys: Vec<_> =
        options.offered.iter().map(|offer| format!("{} ({})", offer.name, offer.kind)).collect();
    format!("{}\npasskey: {}\n", options.operation.prompt(width, color).trim_end(), passkeys.join(", "))
}

/// The line where the answer is typed.
pub const INVITATION: &str = "approve, deny or later? [a/d/l] ";

/// What a typed line means; `None`: ask again.
pub fn parse(line: &str) -> Option<Answer> {
    match line.trim().to_ascii_lowercase().as_str() {
        "a" | "approve" => Some(Answer::Approve),
        "d" | "deny" => Some(Answer::Deny),
        "l" | "later" => Some(Answer::Later),
        _ => None,
    }
}

/// Whether people want colour there (NO_COLOR, a terminal).
pub fn color(on_terminal: bool) -> bool {
    on_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Columns of a terminal, 80 where it does not say.
pub fn width(terminal: impl AsFd) -> usize {
    match terminal::size(terminal.as_fd()) {
        Ok(size) if size.columns > 0 => usize::from(size.columns),
        _ => 80,
    }
}

/// Asks on the caller's own terminal (stderr and stdin). The end of the input is "later".
pub fn ask_on_terminal(options: &Options) -> io::Result<Answer> {
    let mut stderr = io::stderr();
    write!(stderr, "{}", text(options, width(&stderr), color(stderr.is_terminal())))?;
    settle()?;
    loop {
        write!(stderr, "{INVITATION}")?;
        stderr.flush()?;
        let mut line = String::new();
        if read_line(&mut line)? == 0 {
            return Ok(Answer::Later);
        }
        if let Some(answer) = parse(&line) {
            return Ok(answer);
        }
    }
}

/// Throws away what is typed for [`SETTLE`].
fn settle() -> io::Result<()> {
    let end = Instant::now() + SETTLE;
    loop {
        tcflush(io::stdin(), FlushArg::TCIFLUSH)?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        super::answer::readable(io::stdin().as_fd(), left)?;
    }
}

/// One line of the terminal, without reading ahead.
fn read_line(into: &mut String) -> io::Result<usize> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    let mut stdin = io::stdin().lock();
    while stdin.read(&mut byte)? == 1 {
        bytes.push(byte[0]);
        if byte[0] == b'\n' {
            break;
        }
    }
    into.push_str(&String::from_utf8_lossy(&bytes));
    Ok(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_words_answer() {
        assert_eq!(parse("a\n"), Some(Answer::Approve));
        assert_eq!(parse(" Deny "), Some(Answer::Deny));
        assert_eq!(parse("later"), Some(Answer::Later));
        for other in ["", "y", "yes", "approve!", "aa", "\x1b[A"] {
            assert_eq!(parse(other), None, "{other:?}");
        }
    }
}
