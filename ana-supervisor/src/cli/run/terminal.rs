//! The person's terminal: raw while the agent has it and while a question is asked, given back as it was found.

use std::io::{self, Write};

use super::screen::{Screen, Way};
use crate::{cli::terminal::Raw, sys::terminal::Size};

/// The terminal on stdin. Dropping it gives the terminal back as it was found.
pub(super) struct Terminal {
    raw: Raw,
    screen: Screen,
    plain: bool,
    /// A question is on it.
    open: Option<Way>,
}

impl Terminal {
    pub(super) fn take(plain: bool, size: Option<Size>) -> io::Result<Self> {
        Ok(Self { raw: Raw::take()?, screen: Screen::new(size), plain, open: None })
    }

    /// Keys go through as they are; the session's own terminal makes sense of them.
    pub(super) fn raw(&self) -> io::Result<()> {
        self.raw.on()
    }

    /// As it was found.
    pub(super) fn restore(&self) -> io::Result<()> {
        self.raw.off()
    }

    /// Passes on the agent's output.
    pub(super) fn show(&mut self, output: &[u8]) -> io::Result<()> {
        put(&self.screen.feed(output))
    }

    /// The agent's output is over.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        let rest = self.screen.finish();
        put(&rest)
    }

    pub(super) fn resize(&mut self, size: Size) {
        self.screen.resize(size);
    }

    /// Lines of ours would stand in the middle of what the agent has drawn.
    pub(super) fn is_drawn_on(&self) -> bool {
        self.open.is_some() || self.screen.way(false) == Way::Page
    }

    /// Room for a question, and what kind of. `tall`: it does not fit below what is there.
    pub(super) fn open_question(&mut self, tall: bool) -> io::Result<Way> {
        if let Some(way) = self.open {
            return Ok(way);
        }
        let way = self.screen.way(self.plain);
        let way = if way == Way::Inline && tall { Way::Page } else { way };
        self.open = Some(way);
        put(self.screen.open(way).as_bytes())?;
        Ok(way)
    }

    /// Back to the agent; whether it should draw itself anew.
    pub(super) fn close_question(&mut self) -> io::Result<bool> {
        let Some(way) = self.open.take() else { return Ok(false) };
        put(self.screen.close(way).as_bytes())?;
        Ok(self.screen.wants_redraw(way))
    }

    /// The agent was killed: what it has made of the terminal is undone.
    pub(super) fn undo(&self) -> io::Result<()> {
        put(self.screen.undo().as_bytes())
    }
}

/// The terminal gets this at once.
pub(super) fn put(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.close_question().ok();
    }
}
