//! What the agent has made of the person's terminal: the modes that it has set, and what it has drawn. A question leaves all of
//! that, and finds its way back.

mod model;
mod modes;
mod refused;
mod style;
mod tokens;

#[cfg(test)]
mod tests;

use self::{
    model::Model,
    modes::{Modes, Writing},
    refused::is_refused,
    tokens::{Csi, Scanner, Token},
};
use crate::sys::terminal::Size;

/// How a question is put before the person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Below what the agent has printed; it stays there.
    Inline,
    /// The same, without any control sequence of ours.
    Plain,
    /// On a screen of its own, after which the agent's is as it was.
    Page,
}

/// The person's terminal as the agent sees it.
pub(super) struct Screen {
    scanner: Scanner,
    state: State,
}

struct State {
    modes: Modes,
    model: Model,
    alternate: bool,
    /// The agent addresses places on the screen; lines of ours would come between.
    addressed: bool,
    /// The same for the primary screen, while the alternate one is shown.
    addressed_before: bool,
    /// It has said something that terminals do not agree on.
    odd: bool,
    /// It may have a scroll region that is not known: terminals differ in what a change of their size does to one.
    torn: bool,
    /// It has drawn pictures (kitty's protocol).
    pictures: bool,
    /// DECSC, on the primary and on the alternate screen.
    saved: [Option<Saved>; 2],
}

/// A saved cursor.
#[derive(Clone)]
struct Saved {
    row: u16,
    column: u16,
    origin: bool,
    writing: Writing,
    /// It was not restored since.
    open: bool,
}

impl Screen {
    pub(super) fn new(size: Option<Size>) -> Self {
        let model = Model::new(size);
        let state = State {
            modes: Modes::default(),
            model,
            alternate: false,
            addressed: false,
            addressed_before: false,
            odd: false,
            torn: false,
            pictures: false,
            saved: [None, None],
        };
        Self { scanner: Scanner::new(), state }
    }

    /// Takes the agent's output; what of it the terminal gets now. (An unfinished sequence waits for its end.)
    pub(super) fn feed(&mut self, output: &[u8]) -> Vec<u8> {
        let mut passed = Vec::with_capacity(output.len());
        let state = &mut self.state;
        self.scanner.feed(output, |token, bytes| {
            if !is_refused(&token) {
                passed.extend_from_slice(bytes);
                state.see(&token);
            }
        });
        self.state.model.flush();
        passed
    }

    /// What is held back when the output ends.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        self.scanner.finish()
    }

    pub(super) fn resize(&mut self, size: Size) {
        self.state.model.resize(size);
        self.state.torn |= self.state.modes.region.take().is_some();
    }

    /// How a question has to be shown now.
    pub(super) fn way(&self, plain: bool) -> Way {
        match (plain, self.state.is_drawn_on()) {
            (true, _) => Way::Plain,
            (false, true) => Way::Page,
            (false, false) => Way::Inline,
        }
    }

    /// Makes room for a question.
    pub(super) fn open(&mut self, way: Way) -> String {
        let (begun, confined) = (self.scanner.cut(), self.state.is_confined());
        let State { modes, alternate, odd, .. } = &self.state;
        // A sequence that was begun would swallow the question.
        let mut out = String::from("\x18\x1b\\");
        match way {
            Way::Inline => {
                out.push_str(&modes.leave(false, *odd));
                out.push_str("\r\n\x1b[J");
            }
            Way::Plain => {
                if modes.is_initial() && !confined && !begun {
                    out.clear();
                } else {
                    out.push_str(&modes.leave(confined, *odd));
                }
                // What the agent drew must not stand beside the question's words: it is scrolled away.
                let drawn = self.state.is_drawn_on();
                let rows = if drawn { usize::from(self.state.model.rows()) * 2 } else { 1 };
                if confined {
                    out.push_str("\x1b[999;1H");
                }
                out.push('\r');
                out.push_str(&"\n".repeat(rows));
            }
            Way::Page => {
                if !alternate {
                    out.push_str("\x1b[?1049h");
                }
                out.push_str(&modes.leave(true, *odd));
                if self.state.pictures {
                    out.push_str("\x1b_Ga=d\x1b\\");
                }
                out.push_str("\x1b[H\x1b[2J");
            }
        }
        out
    }

    /// Brings everything back.
    pub(super) fn close(&self, way: Way) -> String {
        let State { modes, model, alternate, .. } = &self.state;
        match (way, alternate) {
            (Way::Inline, _) => model.unfinished() + &modes.restore() + &modes.restore_writing(),
            (Way::Plain, _) => {
                let line = if self.state.is_drawn_on() { String::new() } else { model.unfinished_text() };
                let confined = self.state.is_confined();
                if modes.is_initial() && !confined {
                    return line;
                }
                let region = if confined { modes.restore_region() } else { String::new() };
                line + &region + &modes.restore() + &modes.restore_writing()
            }
            (Way::Page, true) => {
                let drawn = "\x1b[m".to_owned() + &model.contents() + &modes.restore_region();
                drawn + &self.state.cursors() + &modes.restore() + &modes.restore_writing()
            }
            (Way::Page, false) => {
                let mut out = modes.restore_region() + &modes.restore() + "\x1b[?1049l";
                // It brings back the cursor, but not behind the last column (tmux), and it was saved over the agent's own.
                if self.state.saved_again().is_some() || model.is_behind() {
                    out.push_str(&self.state.cursors());
                }
                out + &modes.restore_writing()
            }
        }
    }

    /// The agent should draw itself anew: it has drawn what the model does not know, or what is not there any more.
    pub(super) fn wants_redraw(&self, way: Way) -> bool {
        match way {
            Way::Inline => false,
            Way::Plain => self.state.is_drawn_on(),
            Way::Page => self.state.alternate,
        }
    }

    /// What undoes all that an agent has left which was killed.
    pub(super) fn undo(&self) -> String {
        let State { modes, alternate, odd, .. } = &self.state;
        if modes.is_initial() && !alternate {
            return String::new();
        }
        let mut out = String::from("\x18\x1b\\");
        let mut left = modes.clone();
        if left.forget_keyboards() {
            out.push_str("\x1b[<32u");
        }
        if modes.region.is_some() {
            out.push_str("\x1b[r");
        }
        if *alternate {
            out.push_str("\x1b[?1049l");
        }
        out + &left.leave(false, *odd) + "\x1b[?2004l"
    }
}

impl State {
    /// Lines of ours would not stand where they are expected: it addresses places, or what is known of the terminal is not all.
    fn is_drawn_on(&self) -> bool {
        let saved = self.saved.iter().flatten().any(|saved| saved.open);
        self.addressed || self.alternate || saved || self.is_confined()
    }

    /// What is written may stay within a part of the screen.
    fn is_confined(&self) -> bool {
        self.odd || self.torn || self.modes.confines()
    }

    fn see(&mut self, token: &Token<'_>) {
        match token {
            Token::Text(text) => self.model.text(text, self.modes.writing.draws_lines()),
            Token::Control(0x0e) => self.modes.writing.shift(1),
            Token::Control(0x0f) => self.modes.writing.shift(0),
            Token::Control(b'\n' | 0x0b | 0x0c) if self.modes.newline() => self.model.pass(b"\r\n"),
            Token::Control(byte) => self.model.control(*byte),
            Token::Escape(intermediates, last) => self.escape(intermediates, *last),
            Token::Csi(csi) => self.csi(csi),
            // iTerm2's pictures.
            Token::String(b']', text) if text.starts_with(b"1337;") => self.addressed = true,
            Token::String(b']', text) => self.modes.control_string(text),
            Token::String(kind, text) => {
                self.addressed = true;
                self.pictures |= *kind == b'_' && text.starts_with(b"G");
                // What it carries may be for another terminal, behind this one.
                self.odd |= *kind == b'P' && text.starts_with(b"tmux;");
            }
            Token::Odd => (self.addressed, self.odd) = (true, true),
        }
    }

    fn escape(&mut self, intermediates: &[u8], last: u8) {
        match (intermediates, last) {
            (b"", b'7') => self.save(),
            (b"", b'8') => self.restore(),
            (b"", b'=') => self.modes.set_keypad(true),
            (b"", b'>') => self.modes.set_keypad(false),
            (b"", b'D') => self.model.pass(b"\n"),
            (b"", b'E') => self.model.pass(b"\r\n"),
            (b"", b'n') => self.modes.writing.shift(2),
            (b"", b'o') => self.modes.writing.shift(3),
            (b"", b'c') => {
                self.model.pass(b"\x1bc");
                self.modes = Modes::default();
                self.saved = [None, None];
                (self.alternate, self.addressed, self.addressed_before) = (false, false, false);
                self.torn = false;
            }
            (b"", b'M') => {
                self.model.pass(b"\x1bM");
                self.addressed = true;
            }
            // The end of a string, tab stops, other shifts, UTF-8.
            (b"", b'\\' | b'H' | b'~' | b'}' | b'|' | b'N' | b'O' | b'Z') | (b" ", _) | (b"%", _) => {}
            _ => self.addressed |= !self.modes.writing.designate(intermediates, last),
        }
    }

    fn csi(&mut self, csi: &Csi<'_>) {
        let on = csi.last == b'h';
        match (csi.marker, csi.intermediates, csi.last) {
            (None, b"", b'm') => {
                self.modes.writing.style.set(csi);
                self.model.csi(csi);
            }
            (Some(b'?'), b"", b'h' | b'l') => csi.numbers().iter().for_each(|&mode| self.private(mode, on)),
            (None, b"", b'h' | b'l') => csi.numbers().iter().for_each(|&mode| self.modes.set_ansi(mode, on)),
            (Some(b'>'), b"", b'm') => self.modes.other_keys(csi),
            (Some(b'>'), b"", b'n') => self.modes.no_other_keys(csi.number(0).unwrap_or(2)),
            (Some(b'<' | b'=' | b'>'), b"", b'u') => self.modes.keyboard(csi, self.alternate),
            (None, b"!", b'p') => {
                self.modes.soft_reset();
                self.model.reset_region();
                self.saved[usize::from(self.alternate)] = None;
            }
            (None, b"\"", b'q') => self.modes.writing.protected = csi.number(0) == Some(1),
            (Some(b'?'), b"", b'K') => self.model.csi(csi),
            (None, b"", _) => self.plain_csi(csi),
            // Questions to the terminal, and how its cursor looks.
            (Some(_), b"", b'c' | b'n' | b'u' | b'q' | b'm') | (_, b"$", b'p') | (None, b" ", b'q') => {}
            _ => self.addressed = true,
        }
    }

    fn plain_csi(&mut self, csi: &Csi<'_>) {
        match csi.last {
            // Within the line.
            b'@' | b'C' | b'D' | b'G' | b'I' | b'K' | b'P' | b'X' | b'`' | b'a' | b'b' => self.model.csi(csi),
            // Questions to the terminal, tab stops, lamps, its window.
            b'c' | b'g' | b'i' | b'q' | b't' => {}
            b'n' => self.addressed |= csi.number(0) == Some(6),
            b'J' => {
                let cleared = csi.number(0) == Some(2) && self.model.position() == (0, 0);
                self.model.csi(csi);
                match csi.number(0) {
                    // The scrollback.
                    Some(3) => {}
                    // As good as new.
                    _ => self.addressed = !cleared || self.alternate,
                }
            }
            b's' if csi.raw.is_empty() || !self.modes.is_set(69) => self.save(),
            b'u' => self.restore(),
            last => {
                self.addressed = true;
                let rows = self.model.rows();
                match last {
                    b'r' => {
                        self.torn = false;
                        let region = (csi.number(0).unwrap_or(1), csi.number(1).unwrap_or(rows).min(rows));
                        self.modes.region =
                            Some(region).filter(|(top, end)| (*top, *end) != (1, rows) && top < end);
                    }
                    b's' => self.modes.set_margins(csi, self.model.columns()),
                    _ => {}
                }
                self.model.csi(csi);
            }
        }
    }

    fn private(&mut self, mode: u16, on: bool) {
        match mode {
            47 | 1047 | 1049 => self.show_alternate(mode, on),
            1048 if on => self.save(),
            1048 => self.restore(),
            _ => {
                self.modes.set_private(mode, on);
                match mode {
                    6 => self.model.origin(on),
                    // DECANM: another language altogether.
                    2 => self.odd = true,
                    _ => {}
                }
                self.addressed |= matches!(mode, 2 | 3 | 6 | 69);
            }
        }
    }

    fn show_alternate(&mut self, mode: u16, on: bool) {
        if on && !self.alternate {
            self.addressed_before = self.addressed;
        }
        if mode == 1049 && on && !self.alternate {
            self.save();
            if let Some(saved) = &mut self.saved[0] {
                saved.open = false;
            }
        }
        self.model.show_alternate(mode, on);
        let was = std::mem::replace(&mut self.alternate, on);
        // Even if it was not on the alternate screen.
        if mode == 1049 && !on {
            let addressed = self.addressed;
            self.restore();
            self.addressed = addressed;
        }
        if on != was {
            self.addressed = on || self.addressed_before;
        }
    }

    fn save(&mut self) {
        let (row, column) = self.model.position();
        self.model.pass(b"\x1b7");
        let (writing, origin) = (self.modes.writing.clone(), self.modes.is_set(6));
        self.saved[usize::from(self.alternate)] = Some(Saved { row, column, origin, writing, open: true });
        self.addressed = true;
    }

    fn restore(&mut self) {
        self.model.pass(b"\x1b8");
        let saved = self.saved[usize::from(self.alternate)].as_mut();
        self.modes.writing = saved.map_or_else(Writing::default, |saved| {
            saved.open = false;
            saved.writing.clone()
        });
        self.addressed = true;
    }

    /// Puts the cursor where it was, and the saved one, within the region that is set.
    fn cursors(&self) -> String {
        let saved = self.saved_again();
        let origin = if saved.is_some() && self.modes.is_set(6) { "\x1b[?6h" } else { "" };
        saved.unwrap_or_default() + origin + &self.model.cursor(self.modes.is_set(6), self.modes.region)
    }

    /// Saves a cursor again that the agent has saved and will want to have back. Plain letters and no origin mode afterwards.
    fn saved_again(&self) -> Option<String> {
        let saved = self.saved[usize::from(self.alternate)].as_ref().filter(|saved| saved.open)?;
        let (origin, top) = match saved.origin {
            true => ("\x1b[?6h", self.modes.region.map_or(0, |(top, _)| top.saturating_sub(1))),
            false => ("\x1b[?6l", 0),
        };
        let (row, column) = (saved.row.saturating_sub(top), saved.column);
        let place = format!("\x1b[{};{}H", row.saturating_add(1), column.saturating_add(1));
        Some(format!("{origin}{place}{}\x1b7\x1b[?6l\x1b[m\x1b(B\x0f\x1b[0\"q", saved.writing.sequence()))
    }
}
