//! What is pressed at a raw terminal: keys, and what is none.

use std::io;

use zeroize::Zeroizing;

/// Reads what was pressed, nothing at its end, past the standard library's buffer: it would keep what may be a PIN.
///
/// # Errors
/// As read(2).
pub fn read() -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(vec![0; 1024]);
    let length = loop {
        match nix::unistd::read(io::stdin(), &mut bytes) {
            Err(nix::errno::Errno::EINTR) => {}
            other => break other?,
        }
    };
    bytes.truncate(length);
    Ok(bytes)
}

/// Bytes of one sequence; a longer one is cut.
const SEQUENCE_MAX: usize = 4096;

/// One key, or something else that comes from a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// Printable ASCII.
    Char(char),
    Enter,
    Backspace,
    /// Ctrl-U.
    Clear,
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-D.
    End,
    /// Ctrl-Z.
    Suspend,
    Escape,
    Look(Look),
    /// An answer of the terminal's to a question of the program's that has it.
    Report(Vec<u8>),
    /// Another key, a mouse, what was pasted.
    Other,
}

/// To look at another part of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Ground,
    Escape,
    /// `ESC O`.
    Shift3,
    Csi,
    /// `ESC [ [`: a function key of the Linux console, by one more letter.
    Function,
    String,
    StringEscape,
}

/// Makes keys of bytes, wherever the reads cut them.
#[derive(Debug, Default)]
pub struct Keys {
    state: State,
    sequence: Vec<u8>,
    /// Between `ESC [ 200 ~` and `ESC [ 201 ~`: no key.
    pasting: bool,
    /// So many bytes of a mouse's are still to come.
    mouse: u8,
}

impl Keys {
    /// The keys in `bytes`, each with the bytes that it came as.
    pub fn take(&mut self, bytes: &[u8]) -> Vec<(Key, Zeroizing<Vec<u8>>)> {
        let mut keys = Vec::new();
        for &byte in bytes {
            let from = self.sequence.len();
            if from < SEQUENCE_MAX {
                self.sequence.push(byte);
            }
            if let Some(key) = self.byte(byte) {
                let bytes = Zeroizing::new(std::mem::take(&mut self.sequence));
                let key = if self.pasting && !matches!(key, Key::Report(_)) { Key::Other } else { key };
                keys.push((key, bytes));
            }
        }
        // A terminal sends a sequence in one piece: an ESC at the end is the key.
        if self.state == State::Escape {
            self.state = State::Ground;
            keys.push((Key::Escape, Zeroizing::new(std::mem::take(&mut self.sequence))));
        }
        keys
    }

    fn byte(&mut self, byte: u8) -> Option<Key> {
        if self.mouse > 0 {
            self.mouse -= 1;
            return (self.mouse == 0).then_some(Key::Other);
        }
        let (state, key) = match (self.state, byte) {
            (State::Ground, 0x1b) => (State::Escape, None),
            (State::Ground, _) => (State::Ground, Some(plain(byte))),
            (State::Escape, 0x1b) => (State::Escape, None),
            (State::Escape, b'[') => (State::Csi, None),
            (State::Escape, b'O') => (State::Shift3, None),
            (State::Escape, b']' | b'P' | b'_' | b'^' | b'X') => (State::String, None),
            // Enter of a keypad in application mode.
            (State::Shift3, b'M') => (State::Ground, Some(Key::Enter)),
            (State::Shift3, _) => (State::Ground, Some(moved(byte, 0))),
            // A key with Alt, or one that ends a sequence which is none.
            (State::Escape, _) => (State::Ground, Some(Key::Other)),
            (State::Csi, 0x1b) => (State::Escape, None),
            (State::Csi, b'[') if self.sequence.len() == 3 => (State::Function, None),
            (State::Function, _) => (State::Ground, Some(Key::Other)),
            (State::Csi, b'M') if self.sequence.len() == 3 => {
                self.mouse = 3;
                (State::Ground, None)
            }
            (State::Csi, b'@'..=b'~') => (State::Ground, Some(self.csi(byte))),
            (State::Csi, _) => (State::Csi, None),
            (State::String, 0x07) | (State::StringEscape, b'\\') => {
                (State::Ground, Some(Key::Report(self.sequence.clone())))
            }
            // No terminal says these; a person who has begun a string with Alt gets out of it.
            (State::String | State::StringEscape, 0x03 | 0x04 | b'\r' | b'\n' | 0x18) => {
                (State::Ground, Some(plain(byte)))
            }
            (State::String | State::StringEscape, 0x1b) => (State::StringEscape, None),
            (State::String | State::StringEscape, _) => (State::String, None),
        };
        self.state = state;
        key
    }

    fn csi(&mut self, last: u8) -> Key {
        let body = self.sequence.get(2..self.sequence.len().saturating_sub(1)).unwrap_or_default();
        match (body, last) {
            (b"200", b'~') => self.pasting = true,
            (b"201", b'~') => {
                self.pasting = false;
                return Key::Other;
            }
            (_, b'c' | b'n' | b'R' | b't' | b'y') => return Key::Report(self.sequence.clone()),
            // Kitty's flags; a mouse has `<` and no place in a question.
            ([b'?' | b'>', ..], _) => return Key::Report(self.sequence.clone()),
            _ => {}
        }
        let number = body.iter().take_while(|byte| byte.is_ascii_digit());
        moved(last, number.fold(0_u32, |all, digit| all.saturating_mul(10) + u32::from(digit - b'0')))
    }
}

fn plain(byte: u8) -> Key {
    match byte {
        b'\r' | b'\n' => Key::Enter,
        0x7f | 0x08 => Key::Backspace,
        0x15 => Key::Clear,
        0x03 => Key::Interrupt,
        0x04 => Key::End,
        0x1a => Key::Suspend,
        b' '..=b'~' => Key::Char(char::from(byte)),
        _ => Key::Other,
    }
}

/// What a sequence's last byte and number mean.
fn moved(last: u8, number: u32) -> Key {
    match (last, number) {
        (b'A', _) => Key::Look(Look::Up),
        (b'B', _) => Key::Look(Look::Down),
        (b'H', _) | (b'~', 1 | 7) => Key::Look(Look::First),
        (b'F', _) | (b'~', 4 | 8) => Key::Look(Look::Last),
        (b'~', 5) => Key::Look(Look::PageUp),
        (b'~', 6) => Key::Look(Look::PageDown),
        _ => Key::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(pieces: &[&[u8]]) -> Vec<Key> {
        let mut keys = Keys::default();
        pieces.iter().flat_map(|piece| keys.take(piece)).map(|(key, _)| key).collect()
    }

    #[test]
    fn plain_keys() {
        use Key::*;
        let expected = [Char('a'), Enter, Backspace, Clear, Interrupt, End, Suspend, Other, Other];
        assert_eq!(keys(&["a\r\x7f\x15\x03\x04\x1aé".as_bytes()]), expected);
    }

    #[test]
    fn sequences_are_no_letters() {
        use Key::{Char, Escape, Other};
        assert_eq!(
            keys(&[b"\x1b[A\x1bOB\x1b[5~\x1b[6~\x1b[1;5H\x1b[4~"]),
            [Look::Up, Look::Down, Look::PageUp, Look::PageDown, Look::First, Look::Last].map(Key::Look)
        );
        for one in
            [&b"\x1ba"[..], b"\x1b[97u", b"\x1b[<0;1;1M", b"\x1b[M a\r", b"\x1b[I", b"\x1b[200~", b"\x1b[24~"]
        {
            assert_eq!(keys(&[one]), [Other], "{one:?}");
        }
        assert_eq!(keys(&[b"\x1b[1", b"2;3", b"~a"]), [Other, Char('a')]);
        assert_eq!(keys(&[b"\x1b[[A\x1b[[", b"D\r"]), [Other, Other, Key::Enter], "F1 and F4 of a console");
        assert_eq!(keys(&[b"\x1b]1", b"x\x03d"]), [Key::Interrupt, Char('d')], "Alt and a bracket");
        assert_eq!(keys(&[b"\x1b"]), [Escape]);
    }

    #[test]
    fn what_is_pasted_is_no_answer() {
        let pasted = keys(&[b"\x1b[200~approve\r", b"a\r\x03\x1b[201~d"]);
        assert_eq!(pasted.last(), Some(&Key::Char('d')));
        assert!(pasted[..pasted.len() - 1].iter().all(|key| *key == Key::Other), "{pasted:?}");
    }

    #[test]
    fn a_terminals_answers_are_told_from_keys() {
        for report in
            [&b"\x1b[?62;4c"[..], b"\x1b[12;1R", b"\x1b[?1u", b"\x1b]11;rgb:0/0/0\x07", b"\x1bP>|xterm\x1b\\"]
        {
            assert_eq!(keys(&[report]), [Key::Report(report.to_vec())]);
            let (begin, end) = report.split_at(3);
            assert_eq!(keys(&[begin, end]), [Key::Report(report.to_vec())]);
        }
    }
}
