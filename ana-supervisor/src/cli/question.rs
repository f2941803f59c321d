//! The question as a person sees it: rendered from the bytes that are signed, answered by a typed word.

use std::{os::fd::AsFd, time::Duration};

use crate::{approval::authenticator::Options, sys::terminal};

/// What was typed before the question, and right after it came up, was not meant for it.
pub const SETTLE: Duration = Duration::from_millis(500);

/// The line where the answer is typed, and what is left of it on a narrow terminal.
pub const INVITATION: &str = "approve, deny or later? [a/d/l/?] ";
const SHORT_INVITATION: &str = "[a/d/l/?] ";
/// The invitation and the longest word.
const INVITATION_WIDTH: usize = 42;

/// What a person can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Approve,
    Deny,
    /// Not now: it goes on waiting, here or in another terminal.
    Later,
    /// What do these words do?
    Help,
}

/// The whole question, without the line where the answer is typed. `place`: which one it is, of how many.
pub fn text(options: &Options, place: (usize, usize), width: usize, color: bool) -> String {
    let passkeys: Vec<_> =
        options.offered.iter().map(|offer| format!("{} ({})", offer.name, offer.kind)).collect();
    let counter = match place {
        (_, 1) => String::new(),
        (nth, of) => format!("  ({nth} of {of})"),
    };
    let title = format!("ana: approve this operation?{counter}");
    let (on, off) = if color { ("\x1b[1;7m", "\x1b[m") } else { ("", "") };
    let prompt = options.operation.prompt(width, color);
    let keys = format!("passkey: {}", passkeys.join(", "));
    format!("{on}{title}{off}\n\n{}\n{}\n", prompt.trim_end(), wrapped(&keys, width).join("\n"))
}

/// Whether a question and the conversation below it need more than so many rows of a terminal.
pub fn is_tall(options: &Options, width: usize, rows: usize) -> bool {
    const CONVERSATION: usize = 4;
    let text = text(options, (1, 2), width, false);
    let taken = text.lines().map(|line| line.chars().count().div_ceil(width.max(1)).max(1)).sum::<usize>();
    taken + CONVERSATION > rows
}

/// What `?` says.
pub fn help(options: &Options) -> Vec<String> {
    let id = &options.operation.id;
    vec![
        "a  approve: your passkey signs exactly what stands above, and it runs once".to_owned(),
        "d  deny: it does not run, and the agent is told; Ctrl-C does the same".to_owned(),
        format!("l  later: it goes on waiting; in another terminal: ana approve {id}, ana deny {id}"),
        "Without an answer it is denied when it expires.".to_owned(),
    ]
}

/// The line where the answer is typed, on a terminal of so many columns.
pub fn invitation(more: usize, width: usize) -> String {
    let invitation = if width < INVITATION_WIDTH { SHORT_INVITATION } else { INVITATION };
    match more {
        0 => invitation.to_owned(),
        1 => format!("(1 more like this one waits, d denies both) {invitation}"),
        more => format!("({more} more like this one wait, d denies all) {invitation}"),
    }
}

/// What a typed line means; `None`: ask again.
pub fn parse(line: &str) -> Option<Answer> {
    match line.trim().to_ascii_lowercase().as_str() {
        "a" | "approve" => Some(Answer::Approve),
        "d" | "deny" => Some(Answer::Deny),
        "l" | "later" => Some(Answer::Later),
        "?" | "help" => Some(Answer::Help),
        _ => None,
    }
}

/// Cuts a line of printable characters at `width` columns.
pub fn wrapped(line: &str, width: usize) -> Vec<String> {
    let characters: Vec<char> = line.chars().collect();
    match characters.is_empty() {
        true => vec![String::new()],
        false => characters.chunks(width.max(1)).map(|part| part.iter().collect()).collect(),
    }
}

/// Whether people want colour there (NO_COLOR, a terminal that has any).
pub fn color(on_terminal: bool) -> bool {
    on_terminal && !dumb() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The terminal understands nothing but text.
pub fn dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// Columns of a terminal, 80 where it does not say.
pub fn width(terminal: impl AsFd) -> usize {
    match terminal::size(terminal.as_fd()) {
        Ok(size) if size.columns > 0 => usize::from(size.columns),
        _ => 80,
    }
}

/// Rows of a terminal, 24 where it does not say.
pub fn rows(terminal: impl AsFd) -> usize {
    match terminal::size(terminal.as_fd()) {
        Ok(size) if size.rows > 0 => usize::from(size.rows),
        _ => 24,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_words_answer() {
        assert_eq!(parse("a\n"), Some(Answer::Approve));
        assert_eq!(parse(" Deny "), Some(Answer::Deny));
        assert_eq!(parse("later"), Some(Answer::Later));
        assert_eq!(parse("?"), Some(Answer::Help));
        for other in ["", "y", "yes", "approve!", "aa", "\x1b[A"] {
            assert_eq!(parse(other), None, "{other:?}");
        }
    }

    #[test]
    fn the_invitation_fits() {
        for width in 10..200 {
            let invitation = invitation(0, width);
            assert!(invitation.len() <= width && invitation.contains("[a/d/l/?]"), "{width}");
        }
        assert!(invitation(2, 80).starts_with("(2 more like this one wait, d denies all) approve"));
        assert_eq!(wrapped("abcde", 2), ["ab", "cd", "e"]);
        assert_eq!(wrapped("", 2), [""]);
    }
}
