//! The lines below a question that was printed, drawn anew whenever they change.

/// What stands on the terminal below the question.
#[derive(Debug, Default)]
pub struct Inline {
    /// Without any control sequence.
    plain: bool,
    drawn: Vec<String>,
}

impl Inline {
    pub fn new(plain: bool) -> Self {
        Self { plain, drawn: Vec::new() }
    }

    /// Nothing that stands there is drawn anew.
    pub fn plain(&self) -> bool {
        self.plain
    }

    /// What shows these lines instead of those that stand there, with the cursor behind the last one.
    pub fn draw(&mut self, lines: Vec<String>, width: usize) -> String {
        if lines == self.drawn {
            return String::new();
        }
        let drawn = std::mem::replace(&mut self.drawn, lines);
        let text = self.drawn.join("\r\n");
        match drawn.split_last() {
            None => text,
            Some((last, rest)) if self.plain => match self.typed(last, rest) {
                Some(change) => change,
                None => "\r\n".to_owned() + &text,
            },
            Some(_) => {
                let rows: usize =
                    drawn.iter().map(|line| line.chars().count().div_ceil(width.max(1)).max(1)).sum();
                let up = match rows {
                    0 | 1 => String::new(),
                    rows => format!("\x1b[{}A", rows - 1),
                };
                format!("\r{up}\x1b[J{text}")
            }
        }
    }

    /// What was typed or taken back on the last line, if nothing else has changed.
    fn typed(&self, last: &str, rest: &[String]) -> Option<String> {
        let (now, before) = self.drawn.split_last()?;
        if before != rest {
            return None;
        }
        match now.strip_prefix(last) {
            Some(more) => Some(more.to_owned()),
            None => last.strip_prefix(now.as_str()).map(|gone| "\x08 \x08".repeat(gone.chars().count())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(all: &[&str]) -> Vec<String> {
        all.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn only_changes_are_drawn() {
        let mut inline = Inline::new(false);
        assert_eq!(inline.draw(lines(&["one", "two"]), 80), "one\r\ntwo");
        assert_eq!(inline.draw(lines(&["one", "two"]), 80), "");
        assert_eq!(inline.draw(lines(&["three"]), 80), "\r\x1b[1A\x1b[Jthree");
        assert_eq!(inline.draw(lines(&["four"]), 3), "\r\x1b[1A\x1b[Jfour");
    }

    #[test]
    fn plainly_it_is_appended() {
        let mut inline = Inline::new(true);
        assert_eq!(inline.draw(lines(&["? "]), 80), "? ");
        assert_eq!(inline.draw(lines(&["? ab"]), 80), "ab");
        assert_eq!(inline.draw(lines(&["? a"]), 80), "\x08 \x08");
        assert_eq!(inline.draw(lines(&["no", "? "]), 80), "\r\nno\r\n? ");
    }
}
