//! The person's terminal: raw while the agent has it, as it was whenever it is the person's.

use std::{
    io::{self, Write},
    os::fd::AsFd,
};

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

/// Undoes what an agent may have set to make a question unreadable (xterm's control sequences): a sequence
/// that was begun (it would swallow the question), scroll region (resetting
/// it moves the cursor, hence saved and restored), margins, insertion, attributes, protection from erasure, character
/// sets, synchronized output, mouse and paste reports, changed colours, images.
const PLAIN: &[u8] = b"\x18\x1b\\\x1b7\x1b[r\x1b[?69l\x1b8\x1b[4l\x1b[0m\x1b[0\"q\x1b(B\x0f\x1b[?7h\x1b[?25h\
\x1b[?2026l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l\
\x1b]104\x1b\\\x1b]110\x1b\\\x1b]111\x1b\\\x1b_Ga=d\x1b\\";

/// The terminal on stdin. Dropping it gives the terminal back as it was found.
pub(super) struct Terminal {
    found: Termios,
    /// The agent draws on the alternate screen (a full-screen program).
    pub(super) full_screen: bool,
}

impl Terminal {
    pub(super) fn take() -> io::Result<Self> {
        let terminal = Self { found: tcgetattr(io::stdin())?, full_screen: false };
        terminal.raw()?;
        Ok(terminal)
    }

    /// Keys go through as they are; the session's own terminal makes sense of them.
    pub(super) fn raw(&self) -> io::Result<()> {
        let mut raw = self.found.clone();
        cfmakeraw(&mut raw);
        Ok(tcsetattr(io::stdin().as_fd(), SetArg::TCSADRAIN, &raw)?)
    }

    /// As it was found.
    pub(super) fn restore(&self) -> io::Result<()> {
        Ok(tcsetattr(io::stdin().as_fd(), SetArg::TCSADRAIN, &self.found)?)
    }

    /// Follows the agent's output: does it use the alternate screen?
    pub(super) fn watch(&mut self, output: &[u8]) {
        // DECSET 1049, 1047 and 47. One that is cut by the end of a read is missed; the price is a redraw too many or
        // too few.
        for (sequence, on) in [
            (&b"\x1b[?1049h"[..], true),
            (b"\x1b[?1049l", false),
            (b"\x1b[?1047h", true),
            (b"\x1b[?1047l", false),
            (b"\x1b[?47h", true),
            (b"\x1b[?47l", false),
        ] {
            if output.windows(sequence.len()).any(|window| window == sequence) {
                self.full_screen = on;
            }
        }
    }

    /// Room for a question: a line of its own and everything below it, or the whole screen if the agent fills it. What
    /// the agent drew must not stand beside the question's words.
    pub(super) fn open_question(&self) -> io::Result<()> {
        self.restore()?;
        let start: &[u8] = if self.full_screen { b"\x1b[2J\x1b[H" } else { b"\r\n\x1b[J" };
        io::stdout().write_all(PLAIN)?;
        io::stdout().write_all(start)?;
        io::stdout().flush()
    }

    /// Back to the agent.
    pub(super) fn close_question(&self) -> io::Result<()> {
        if self.full_screen {
            io::stdout().write_all(b"\x1b[2J\x1b[H")?;
        }
        io::stdout().flush()?;
        self.raw()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.restore().ok();
    }
}
