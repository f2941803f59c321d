//! The attributes that the agent writes with (SGR), as it set them.

use std::collections::BTreeMap;

use super::tokens::Csi;

/// Bytes of one attribute: `38:2::255:255:255` and the like.
const BYTES_MAX: usize = 32;

/// What can be set apart from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Bold,
    Dim,
    Italic,
    Underline,
    Blink,
    Inverse,
    Hidden,
    Strike,
    Font,
    Foreground,
    Background,
    Frame,
    Overline,
    UnderlineColor,
    Raised,
}

/// All attributes that differ from the plain ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Style(BTreeMap<Part, String>);

impl Style {
    /// `CSI … m`.
    pub(super) fn set(&mut self, csi: &Csi<'_>) {
        let text = String::from_utf8_lossy(csi.raw).into_owned();
        let mut parts = text.split(';').peekable();
        while let Some(part) = parts.next() {
            let mut whole = part.to_owned();
            // `38;5;n` and `38;2;r;g;b` are the older form of `38:5:n` and `38:2:r:g:b`.
            if matches!(part, "38" | "48" | "58") {
                let more = match parts.peek() {
                    Some(&"5") => 2,
                    Some(&"2") => 4,
                    _ => 0,
                };
                for _ in 0..more {
                    whole.push(';');
                    whole.push_str(parts.next().unwrap_or_default());
                }
            }
            self.one(&whole);
        }
    }

    fn one(&mut self, text: &str) {
        use Part::*;
        let number = text.split([':', ';']).next().unwrap_or_default().parse::<u16>().unwrap_or(0);
        let part = match number {
            0 => return self.0.clear(),
            1 => Bold,
            2 => Dim,
            3 | 20 => Italic,
            4 | 21 if text != "4:0" => Underline,
            5 | 6 => Blink,
            7 => Inverse,
            8 => Hidden,
            9 => Strike,
            11..=19 => Font,
            30..=38 | 90..=97 => Foreground,
            40..=48 | 100..=107 => Background,
            51 | 52 => Frame,
            53 => Overline,
            58 => UnderlineColor,
            73 | 74 => Raised,
            _ => return self.unset(number),
        };
        if text.len() <= BYTES_MAX {
            self.0.insert(part, text.to_owned());
        }
    }

    fn unset(&mut self, number: u16) {
        use Part::*;
        let parts: &[Part] = match number {
            10 => &[Font],
            22 => &[Bold, Dim],
            23 => &[Italic],
            4 | 24 => &[Underline],
            25 => &[Blink],
            27 => &[Inverse],
            28 => &[Hidden],
            29 => &[Strike],
            39 => &[Foreground],
            49 => &[Background],
            54 => &[Frame],
            55 => &[Overline],
            59 => &[UnderlineColor],
            75 => &[Raised],
            _ => &[],
        };
        parts.iter().for_each(|part| drop(self.0.remove(part)));
    }

    /// What sets exactly this.
    pub(super) fn sequence(&self) -> String {
        self.0.values().fold("\x1b[m".to_owned(), |all, part| all + "\x1b[" + part + "m")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn styled(sequences: &[&str]) -> String {
        let mut style = Style::default();
        for raw in sequences {
            style.set(&Csi { marker: None, raw: raw.as_bytes(), intermediates: b"", last: b'm' });
        }
        style.sequence()
    }

    #[test]
    fn what_is_set_stays_set() {
        assert_eq!(styled(&["1;31", "4:3"]), "\x1b[m\x1b[1m\x1b[4:3m\x1b[31m");
        assert_eq!(styled(&["38;5;200;1"]), "\x1b[m\x1b[1m\x1b[38;5;200m");
        assert_eq!(styled(&["48;2;1;2;3;7"]), "\x1b[m\x1b[7m\x1b[48;2;1;2;3m");
        assert_eq!(styled(&["38:2::1:2:3"]), "\x1b[m\x1b[38:2::1:2:3m");
        for nothing in
            [&["1;2", "22"][..], &["4", "4:0"], &["31", "39"], &["1;31;44", ""], &["7", "0"], &["9;29"]]
        {
            assert_eq!(styled(nothing), "\x1b[m", "{nothing:?}");
        }
    }
}
