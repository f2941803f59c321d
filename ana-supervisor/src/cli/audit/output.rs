//! Where the command's words go: a terminal, a pipe, a file.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

/// Standard output, and what it can show.
pub(super) struct Out {
    sink: Box<dyn Write>,
    terminal: bool,
    colour: bool,
}

impl Out {
    pub(super) fn stdout() -> Self {
        let terminal = io::stdout().is_terminal();
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            sink: Box::new(io::BufWriter::new(io::stdout().lock())),
            terminal,
            colour: crate::cli::question::color(terminal) && !dumb,
        }
    }

    /// Neither a terminal nor standard output.
    #[cfg(test)]
    pub(super) fn to(sink: Box<dyn Write>) -> Self {
        Self { sink, terminal: false, colour: false }
    }

    pub(super) fn is_terminal(&self) -> bool {
        self.terminal
    }

    pub(super) fn colour(&self) -> bool {
        self.colour
    }

    pub(super) fn line(&mut self, text: &str) -> anyhow::Result<()> {
        writeln!(self.sink, "{text}")?;
        Ok(())
    }

    pub(super) fn json_line(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        self.line(&serde_json::to_string(value)?)
    }

    pub(super) fn json(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        self.line(&serde_json::to_string_pretty(value)?)
    }

    pub(super) fn flush(&mut self) -> anyhow::Result<()> {
        Ok(self.sink.flush()?)
    }
}

/// One line on standard error.
pub(super) fn complain(text: &str) {
    // There is nobody left to tell when this fails.
    writeln!(io::stderr().lock(), "ana: {}", printable(text)).ok();
}

/// Whether the reader of our output went away.
pub(super) fn is_closed(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Text that cannot move the cursor, change colours or reorder the line: names and reasons are other people's words.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|character| {
            let hidden = character.is_control() || is_format(character);
            let escaped = hidden.then(|| character.escape_unicode());
            escaped.into_iter().flatten().chain((!hidden).then_some(character))
        })
        .collect()
}

/// Characters that reorder or hide others (zero-width and bidirectional formatting).
fn is_format(character: char) -> bool {
    matches!(character,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn control_characters_are_shown() {
        assert_eq!(printable("a\x1b[31m\u{202e}ü\n"), "a\\u{1b}[31m\\u{202e}ü\\u{a}");
    }
}
