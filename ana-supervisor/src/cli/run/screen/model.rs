//! What stands on the agent's screen, by the crate vt100. It gets what it understands, and numbers that fit the screen: ten
//! bytes of an agent's must not keep it busy for seconds.

use std::{
    num::NonZeroU16,
    panic::{AssertUnwindSafe, catch_unwind},
};

use super::tokens::Csi;
use crate::sys::terminal::Size;

/// DEC special graphics, from 0x60 on.
const LINES: [char; 31] = [
    '◆', '▒', '␉', '␌', '␍', '␊', '°', '±', '␤', '␋', '┘', '┐', '┌', '└', '┼', '⎺', '⎻', '─', '⎼', '⎽', '├',
    '┤', '┴', '┬', '│', '≤', '≥', 'π', '≠', '£', '·',
];

pub(super) struct Model {
    parser: vt100::Parser,
    /// What it has yet to be told.
    news: Vec<u8>,
}

impl Model {
    pub(super) fn new(size: Option<Size>) -> Self {
        let (rows, columns) = size.map_or((24, 80), |size| (size.rows, size.columns));
        Self { parser: parser(rows, columns), news: Vec::new() }
    }

    pub(super) fn rows(&self) -> u16 {
        self.parser.screen().size().0.get()
    }

    pub(super) fn columns(&self) -> u16 {
        self.parser.screen().size().1.get()
    }

    pub(super) fn resize(&mut self, size: Size) {
        self.flush();
        self.guarded(
            |parser| parser.set_size(at_least_one(size.rows), at_least_one(size.columns)),
            size.rows,
            size.columns,
        );
    }

    pub(super) fn flush(&mut self) {
        if self.news.is_empty() {
            return;
        }
        let news = std::mem::take(&mut self.news);
        let (rows, columns) = (self.rows(), self.columns());
        self.guarded(|parser| parser.process(&news), rows, columns);
    }

    /// The crate is not ours, and the agent chooses what it reads: if it panics, we go on with an empty screen.
    fn guarded(&mut self, act: impl FnOnce(&mut vt100::Parser), rows: u16, columns: u16) {
        if catch_unwind(AssertUnwindSafe(|| act(&mut self.parser))).is_err() {
            self.parser = parser(rows, columns);
        }
    }

    /// Exactly this.
    pub(super) fn pass(&mut self, bytes: &[u8]) {
        self.news.extend_from_slice(bytes);
    }

    pub(super) fn text(&mut self, text: &[u8], lines: bool) {
        if !lines {
            return self.pass(text);
        }
        for &byte in text {
            match LINES.get(usize::from(byte).wrapping_sub(0x60)) {
                Some(line) => self.news.extend_from_slice(line.encode_utf8(&mut [0; 4]).as_bytes()),
                None => self.news.push(byte),
            }
        }
    }

    pub(super) fn control(&mut self, byte: u8) {
        if (0x08..=0x0d).contains(&byte) {
            self.news.push(byte);
        }
    }

    pub(super) fn csi(&mut self, csi: &Csi<'_>) {
        let most = self.rows().max(self.columns());
        let last = match csi.last {
            b'm' => {
                self.news.extend_from_slice(b"\x1b[");
                self.news.extend_from_slice(csi.raw);
                return self.news.push(b'm');
            }
            b'I' => {
                for _ in 0..csi.number(0).unwrap_or(1).min(most) {
                    self.news.push(b'\t');
                }
                return;
            }
            b'a' => b'C',
            b'e' => b'B',
            b'f' => b'H',
            last @ (b'@'..=b'H' | b'J'..=b'M' | b'P' | b'S' | b'T' | b'X' | b'`' | b'b' | b'd' | b'r') => {
                last
            }
            _ => return,
        };
        let numbers: Vec<String> = csi.numbers().iter().map(|&number| number.min(most).to_string()).collect();
        self.news.extend_from_slice(b"\x1b[");
        self.news.extend_from_slice(numbers.join(";").as_bytes());
        self.news.push(last);
    }

    pub(super) fn origin(&mut self, on: bool) {
        self.pass(if on { b"\x1b[?6h\x1b[H" } else { b"\x1b[?6l\x1b[H" });
    }

    /// DECSTR leaves the cursor where it is.
    pub(super) fn reset_region(&mut self) {
        let (row, column) = self.position();
        self.pass(format!("\x1b[?6l\x1b[r\x1b[m\x1b[{};{}H", row + 1, column + 1).as_bytes());
    }

    pub(super) fn show_alternate(&mut self, mode: u16, on: bool) {
        self.pass(match (mode, on) {
            (1049, true) => b"\x1b[?1049h",
            (1049, false) => b"\x1b[?47l",
            (1047, false) => b"\x1b[H\x1b[2J\x1b[?47l",
            (_, true) => b"\x1b[?47h",
            (_, false) => b"\x1b[?47l",
        });
    }

    /// Row and column of the cursor, from 0; the column may be the one behind the last.
    pub(super) fn position(&mut self) -> (u16, u16) {
        self.flush();
        self.parser.screen().cursor_position()
    }

    /// The cursor is behind the last column.
    pub(super) fn is_behind(&self) -> bool {
        self.parser.screen().cursor_position().1 >= self.columns()
    }

    /// What draws the whole screen. (The crate's own way would save a cursor, over the agent's.)
    pub(super) fn contents(&self) -> String {
        let screen = self.parser.screen();
        let mut out = String::from("\x1b[H\x1b[2J");
        for (row, text) in (0..).zip(screen.rows_formatted(0, self.columns())) {
            // A row that goes on in the next one is followed by it as it was.
            if row == 0 || !screen.row_wrapped(row - 1) {
                out.push_str(&format!("\x1b[{};1H", row + 1));
            }
            out.push_str("\x1b[m");
            out.push_str(&text);
        }
        out + "\x1b[m"
    }

    /// What puts the cursor where it is, and leaves the attributes plain.
    pub(super) fn cursor(&self, origin: bool, region: Option<(u16, u16)>) -> String {
        let screen = self.parser.screen();
        let (row, column) = screen.cursor_position();
        let top = region.filter(|_| origin).map_or(0, |(top, _)| top.saturating_sub(1));
        let place = |column: u16| {
            format!("\x1b[m\x1b[{};{}H", row.saturating_sub(top).saturating_add(1), column.saturating_add(1))
        };
        let columns = self.columns();
        if column < columns {
            return place(column);
        }
        // Behind the last column: there it gets by writing that one again.
        let wide = |column: u16| screen.cell(row, column).is_some_and(vt100::Cell::is_wide_continuation);
        let last = columns.saturating_sub(if wide(columns - 1) { 2 } else { 1 });
        let again = screen.rows_formatted(last, columns - last).nth(usize::from(row)).unwrap_or_default();
        place(last) + &again + "\x1b[m"
    }

    /// What prints the line that the cursor stands in, if anything is in it, and puts the cursor where it stands.
    pub(super) fn unfinished(&self) -> String {
        let screen = self.parser.screen();
        let (row, column) = screen.cursor_position();
        let (first, last) = self.line();
        let rows: Vec<String> = screen.rows_formatted(0, self.columns()).collect();
        let mut out = rows.get(first..=last).map(|rows| rows.concat()).unwrap_or_default();
        let down = last.saturating_sub(usize::from(row));
        out.push_str("\x1b[m");
        let ends = u16::try_from(self.text_of(last).chars().count()) == Ok(column);
        if down == 0 && (ends || column >= self.columns()) {
            return if column == 0 && out.len() <= 3 { String::new() } else { out };
        }
        out.push('\r');
        if down > 0 {
            out.push_str(&format!("\x1b[{down}A"));
        }
        if column > 0 {
            out.push_str(&format!("\x1b[{column}C"));
        }
        out
    }

    /// The same without any control sequence.
    pub(super) fn unfinished_text(&self) -> String {
        let column = usize::from(self.parser.screen().cursor_position().1);
        let (first, last) = self.line();
        let mut out: String = (first..=last).map(|row| self.text_of(row)).collect();
        let text = self.text_of(last);
        if text.chars().count() != column {
            out.push('\r');
            out.extend(text.chars().chain(std::iter::repeat(' ')).take(column));
        }
        out
    }

    /// First and last row of the line that the cursor stands in.
    fn line(&self) -> (usize, usize) {
        let screen = self.parser.screen();
        let row = screen.cursor_position().0;
        let first = (0..row).rev().find(|&above| !screen.row_wrapped(above)).map_or(0, |above| above + 1);
        let last = (row..self.rows()).find(|&below| !screen.row_wrapped(below)).unwrap_or(row);
        (usize::from(first), usize::from(last))
    }

    fn text_of(&self, row: usize) -> String {
        self.parser.screen().rows(0, self.columns()).nth(row).unwrap_or_default()
    }
}

fn parser(rows: u16, columns: u16) -> vt100::Parser {
    vt100::Parser::new(at_least_one(rows), at_least_one(columns), 0)
}

fn at_least_one(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).unwrap_or(NonZeroU16::MIN)
}
