//! A question on a screen of its own: as much of it as there is room for, and below it the line where one answers.

use crate::cli::{keys::Look, question::wrapped};

/// What of the question is on the screen.
#[derive(Debug)]
pub(super) struct Page {
    rows: usize,
    columns: usize,
    /// The question, a row of the screen each; they may hold colours.
    body: Vec<String>,
    top: usize,
    /// Rows of the question that are on the screen.
    room: usize,
    /// Its end was on the screen.
    seen: bool,
}

impl Page {
    pub(super) fn new(rows: u16, columns: u16) -> Self {
        let (rows, columns) = (usize::from(rows.max(1)), usize::from(columns.max(1)));
        Self { rows, columns, body: Vec::new(), top: 0, room: 0, seen: false }
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    /// The question, as it was rendered for this width.
    pub(super) fn fill(&mut self, text: &str) {
        let fits = |line: &str| visible(line) <= self.columns;
        self.body = text
            .trim_end()
            .lines()
            .flat_map(|line| {
                if fits(line) { vec![line.to_owned()] } else { wrapped(&uncolored(line), self.columns) }
            })
            .collect();
    }

    /// The same on a screen of another size, from its beginning. What was seen, was seen.
    pub(super) fn resize(&mut self, rows: u16, columns: u16) {
        let seen = self.seen;
        *self = Self { seen, ..Self::new(rows, columns) };
    }

    /// Why it cannot be approved yet.
    pub(super) fn unread(&self) -> Option<&'static str> {
        (!self.seen).then_some("Read it to its end first: Space, PgDn, arrows.")
    }

    /// Looks at another part; whether that changed anything.
    pub(super) fn look(&mut self, look: Look) -> bool {
        let before = self.top;
        let page = self.room.saturating_sub(1).max(1);
        let last = self.body.len().saturating_sub(self.room);
        self.top = match look {
            Look::Up => before.saturating_sub(1),
            Look::Down => before + 1,
            Look::PageUp => before.saturating_sub(page),
            Look::PageDown => before + page,
            Look::First => 0,
            Look::Last => last,
        }
        .min(last);
        self.top != before
    }

    /// What draws the screen, with these lines at its bottom and the cursor behind the last of them.
    pub(super) fn draw(&mut self, lines: &[String]) -> String {
        let mut footer: Vec<String> = lines.iter().flat_map(|line| wrapped(line, self.columns)).collect();
        // The line where one answers, a line of the question, and a line that says how much of it is below.
        let most = self.rows.saturating_sub(2).max(1);
        if footer.len() > most {
            footer.drain(..footer.len() - most);
        }
        self.room = self.rows.saturating_sub(footer.len());
        if self.body.len() > self.room {
            self.room = self.room.saturating_sub(1);
        }
        self.top = self.top.min(self.body.len().saturating_sub(self.room));
        self.seen |= self.room > 0 && self.below() == 0;
        if self.body.len() > self.room && footer.len() < self.rows {
            footer.insert(0, self.status());
        }
        let mut out = String::from("\x1b[?25l");
        let gap = self.rows.saturating_sub(footer.len());
        let shown = self.body.iter().skip(self.top).take(self.room).map(String::as_str);
        let rows = shown.chain(std::iter::repeat("")).take(gap).chain(footer.iter().map(String::as_str));
        for (row, text) in rows.enumerate() {
            // Cleared before it is written: behind a full row, clearing would take its last letter.
            out.push_str(&format!("\x1b[{};1H\x1b[m\x1b[K{text}", row + 1));
        }
        out.push_str("\x1b[m\x1b[?25h");
        out
    }

    fn below(&self) -> usize {
        self.body.len().saturating_sub(self.top + self.room)
    }

    fn status(&self) -> String {
        let below = self.below();
        let texts = match below {
            0 => ["-- the end; PgUp, arrows: back --".to_owned(), "-- the end --".to_owned()],
            _ => [
                format!("-- {below} more {}: Space, PgDn, arrows --", unit(below)),
                format!("-- {below} more: Space --"),
            ],
        };
        let fitting = texts.iter().find(|text| text.len() <= self.columns);
        fitting.cloned().unwrap_or_else(|| below.to_string())
    }
}

fn unit(lines: usize) -> &'static str {
    if lines == 1 { "line" } else { "lines" }
}

/// The columns that a line takes.
fn visible(line: &str) -> usize {
    uncolored(line).chars().count()
}

/// A line without the colours that we gave it. (Whatever comes from elsewhere is escaped, and has no ESC.)
fn uncolored(line: &str) -> String {
    let mut parts = line.split('\x1b');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |all, part| all + part.split_once('m').map_or("", |(_, text)| text))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(page: &mut Page, lines: &[&str]) -> Vec<String> {
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        let (rows, columns) = (u16::try_from(page.rows).unwrap(), u16::try_from(page.columns).unwrap());
        let mut screen = vt100::Parser::new(rows.try_into().unwrap(), columns.try_into().unwrap(), 0);
        screen.process(page.draw(&lines).as_bytes());
        screen.screen().rows(0, columns).collect()
    }

    fn page(rows: u16, columns: u16, body: usize) -> Page {
        let mut page = Page::new(rows, columns);
        page.fill(&(0..body).map(|line| format!("line {line}\n")).collect::<String>());
        page
    }

    #[test]
    fn what_fits_stands_above_the_answer() {
        let mut page = page(6, 20, 3);
        assert_eq!(shown(&mut page, &["note", "? "]), ["line 0", "line 1", "line 2", "", "note", "? "]);
        assert_eq!(page.unread(), None);
    }

    #[test]
    fn what_does_not_fit_is_paged_to_its_end() {
        let mut page = page(5, 40, 9);
        assert_eq!(
            shown(&mut page, &["? "]),
            ["line 0", "line 1", "line 2", "-- 6 more lines: Space, PgDn, arrows --", "? "]
        );
        assert!(page.unread().is_some());
        while page.look(Look::PageDown) {
            shown(&mut page, &["? "]);
        }
        assert_eq!(
            shown(&mut page, &["? "]),
            ["line 6", "line 7", "line 8", "-- the end; PgUp, arrows: back --", "? "]
        );
        assert_eq!(page.unread(), None);
        assert!(page.look(Look::First));
        shown(&mut page, &["? "]);
        assert_eq!(page.unread(), None, "what was seen, was seen");
    }

    #[test]
    fn colours_take_no_room() {
        let mut page = Page::new(3, 5);
        page.fill("\x1b[1mabcde\x1b[0m\n\x1b[1mabcdefg\x1b[0m");
        assert_eq!(page.body, ["\x1b[1mabcde\x1b[0m", "abcde", "fg"]);
    }

    proptest! {
        /// However small the screen is: the answer's line is there, nothing is skipped on the way to the end.
        #[test]
        fn everything_is_shown(rows in 3_u16..20, columns in 8_u16..60, body in 0_usize..60, notes in 0_usize..30) {
            let mut page = page(rows, columns, body);
            let mut lines = vec!["n"; notes];
            lines.push("? x");
            let mut seen = std::collections::BTreeSet::new();
            loop {
                let screen = shown(&mut page, &lines);
                prop_assert_eq!(screen.last().map(String::as_str), Some("? x"));
                seen.extend(screen.into_iter().filter(|row| row.starts_with("line ")));
                if !page.look(Look::PageDown) {
                    break;
                }
            }
            prop_assert_eq!(seen.len(), body);
            prop_assert!(page.unread().is_none());
        }

        #[test]
        fn no_size_panics(rows in 0_u16..8, columns in 0_u16..8, body in 0_usize..9, notes in 0_usize..9) {
            let mut page = page(rows, columns, body);
            let lines = vec!["a note".to_owned(); notes];
            page.draw(&lines);
            for look in [Look::PageDown, Look::Last, Look::Up] {
                page.look(look);
                page.draw(&lines);
            }
            page.resize(columns, rows);
            page.draw(&lines);
        }
    }
}
