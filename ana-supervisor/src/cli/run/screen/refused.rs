//! What of the agent's output the person's terminal does not get: what would leave it in a state that a question can neither
//! read nor leave, and that no program needs to draw.

use super::tokens::{Csi, Token};

/// Whether the terminal is spared this.
pub(super) fn is_refused(token: &Token<'_>) -> bool {
    match token {
        Token::Csi(csi) => csi_is_refused(csi),
        Token::String(kind, text) => string_is_refused(*kind, text),
        // Eight-bit replies: keys would look like letters. Another encoding than UTF-8.
        Token::Escape(b" ", b'G') => true,
        Token::Escape(b"%", last) => *last != b'G',
        Token::Text(_) | Token::Control(_) | Token::Escape(..) | Token::Odd => false,
    }
}

fn csi_is_refused(csi: &Csi<'_>) -> bool {
    let any = |wanted: &[u16]| csi.numbers().iter().any(|number| wanted.contains(number));
    match (csi.marker, csi.intermediates, csi.last) {
        // The keyboard locked; what is typed is shown by the terminal itself, PINs included.
        (None, b"", b'h' | b'l') => any(&[2, 12]),
        // Another language (VT52, Tektronix).
        (Some(b'?'), b"", b'h' | b'l') => any(&[2, 38]),
        // Modes saved and brought back unseen.
        (Some(b'?'), b"", b'r' | b's') => true,
        // To a printer.
        (_, b"", b'i') => true,
        // The window moved, made small, put behind others; its reports and titles are harmless.
        (None, b"", b't') => !matches!(csi.number(0), Some(11 | 13..=16 | 18..=23)),
        // The status line instead of the screen.
        (None, b"$", b'~' | b'}') => true,
        // Colours put on a stack and taken from it (XTPUSHCOLORS, XTPOPCOLORS).
        (_, b"#", b'P' | b'Q') => true,
        _ => false,
    }
}

/// By its beginning: it may not be whole yet.
pub(super) fn string_is_refused(kind: u8, text: &[u8]) -> bool {
    let number = text.split(|byte| *byte == b';').next().unwrap_or_default();
    match kind {
        // The Linux console's palette, special colours, kitty's and xterm's colours all at once, stacks of them, fonts.
        b']' => {
            matches!(number, b"5" | b"6" | b"21" | b"50" | b"105" | b"106" | b"30001" | b"30101")
                || matches!(text.first(), Some(b'P' | b'R'))
                || text.starts_with(b"1337;SetColors")
                || text.starts_with(b"1337;SetProfile")
        }
        // Synchronized output in its older form: nothing is shown until it ends.
        b'P' => text.starts_with(b"="),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Screen;

    #[test]
    fn the_terminal_is_spared_what_hides_a_question() {
        let refused: [&[u8]; 18] = [
            b"\x1b]21;foreground=black\x07",
            b"\x1b]30001\x1b\\",
            b"\x1b]5;0;black\x07",
            b"\x1b]50;tiny\x07",
            b"\x1b]P0000000\x07",
            b"\x1b]1337;SetColors=fg=000\x07",
            b"\x1b[#P",
            b"\x1b[#Q",
            b"\x1b[2$~",
            b"\x1b[1$}",
            b"\x1b[?38h",
            b"\x1b[?1;2l",
            b"\x1b[5i",
            b"\x1b[3;9999;9999t",
            b"\x1b[2h",
            b"\x1b[12l",
            b"\x1b[?7r",
            b"\x1b G",
        ];
        for sequence in refused {
            let mut screen = Screen::new(None);
            let passed = screen.feed(&[b"a", sequence, b"z"].concat());
            assert_eq!(passed, b"az", "{:?}", String::from_utf8_lossy(sequence));
        }
        let passed: [&[u8]; 9] = [
            b"\x1b]0;title\x07",
            b"\x1b]11;?\x07",
            b"\x1b[22;0;0t",
            b"\x1b[18t",
            b"\x1b[4h",
            b"\x1b[?25l",
            b"\x1b[1$p",
            b"\x1b%G",
            b"\x1bP1q\x1b\\",
        ];
        for sequence in passed {
            assert_eq!(Screen::new(None).feed(sequence), sequence, "{:?}", String::from_utf8_lossy(sequence));
        }
        // Too long to be held back.
        let long = [b"\x1b]21;".as_slice(), &[b'x'; 100_000]].concat();
        let mut screen = Screen::new(None);
        assert_eq!(screen.feed(&long), b"");
        assert_eq!(screen.feed(b"xx\x07z"), b"z");
    }
}
