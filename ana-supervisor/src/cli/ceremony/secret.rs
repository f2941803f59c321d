//! What is typed and never shown: a PIN, a passphrase.

use zeroize::Zeroizing;

/// A PIN has at most 63 bytes (CTAP 2.1, 6.5.1); a passphrase may be longer.
const BYTES_MAX: usize = 1024;

/// One line in the making, from a raw terminal's keys.
pub(super) struct Secret {
    /// Allocated once, so that growing leaves no copies behind.
    typed: Zeroizing<Vec<u8>>,
}

/// What a key made of it.
pub(super) enum Typed {
    /// It goes on.
    More,
    /// Enter.
    Line(Zeroizing<String>),
    /// Escape, Ctrl-C or Ctrl-D.
    Cancelled,
}

impl Secret {
    pub(super) fn new() -> Self {
        Self { typed: Zeroizing::new(Vec::with_capacity(BYTES_MAX)) }
    }

    /// Takes what was typed; what follows the end of the line is thrown away.
    pub(super) fn take(&mut self, keys: &[u8]) -> Typed {
        for (place, &key) in keys.iter().enumerate() {
            match key {
                b'\r' | b'\n' => {
                    let line = String::from_utf8_lossy(&self.typed).into_owned();
                    self.typed.clear();
                    return Typed::Line(Zeroizing::new(line));
                }
                0x03 | 0x04 => return Typed::Cancelled,
                // Alone it is the key; before others it is an arrow, a paste, whatever: nothing of a PIN.
                0x1b if place + 1 == keys.len() => return Typed::Cancelled,
                0x1b => return Typed::More,
                // Backspace: one character, of however many bytes.
                0x7f | 0x08 => while self.typed.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
                // Ctrl-U.
                0x15 => self.typed.clear(),
                0x00..=0x1f => {}
                _ if self.typed.len() < BYTES_MAX => self.typed.push(key),
                _ => {}
            }
        }
        Typed::More
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(keys: &[u8]) -> Option<String> {
        match Secret::new().take(keys) {
            Typed::Line(line) => Some(line.to_string()),
            Typed::More | Typed::Cancelled => None,
        }
    }

    #[test]
    fn keys_make_a_line() {
        assert_eq!(line(b"1234\r").as_deref(), Some("1234"));
        assert_eq!(line("12\u{e9}\u{7f}34\r".as_bytes()).as_deref(), Some("1234"));
        assert_eq!(line(b"wrong\x15right\n").as_deref(), Some("right"));
        assert_eq!(line(b"\r").as_deref(), Some(""));
        assert_eq!(line(b"1234"), None);
        assert_eq!(line(b"12\x1b[A34\r"), None, "an arrow key is no part of a PIN");
        for cancel in [&b"12\x03"[..], b"\x04", b"1\x1b"] {
            assert!(matches!(Secret::new().take(cancel), Typed::Cancelled));
        }
    }
}
