//! What is typed and never shown: a PIN, a passphrase.

use std::{
    io,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use zeroize::Zeroizing;

use crate::{cli::keys, sys::readiness};

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

/// Who types a secret does not pause that long in the middle of it.
const PAUSE: Duration = Duration::from_secs(2);
/// A key that is held down is no secret.
const REST_MAX: Duration = Duration::from_secs(10);

/// What is still typed of a secret when what asked for it is gone. Whoever comes next at the terminal, the agent or a
/// shell, must not get it: it goes nowhere, up to its Enter or until nothing was typed for a while.
#[derive(Debug, Default)]
pub struct Rest {
    until: Option<Instant>,
}

impl Rest {
    /// A secret was cut off.
    pub fn expect(&mut self) {
        self.until = Some(Instant::now() + PAUSE);
    }

    /// Whether these keys are part of it.
    pub fn takes(&mut self, keys: &[u8]) -> bool {
        self.takes_at(keys, Instant::now())
    }

    fn takes_at(&mut self, keys: &[u8], now: Instant) -> bool {
        if self.until.is_none_or(|until| until <= now) {
            self.until = None;
            return false;
        }
        // Enter, Ctrl-C, Ctrl-D.
        let ended = keys.iter().any(|key| matches!(key, b'\r' | b'\n' | 0x03 | 0x04));
        self.until = (!ended).then(|| now + PAUSE);
        true
    }

    /// Waits for its end: the terminal is about to be somebody else's.
    pub fn wait(&mut self) {
        let last = Instant::now() + REST_MAX;
        while let Some(until) = self.until {
            let left = until.min(last).saturating_duration_since(Instant::now());
            match readiness::readable(io::stdin().as_fd(), left) {
                Ok(true) => match keys::read() {
                    Ok(keys) if !keys.is_empty() && self.takes(&keys) => {}
                    Ok(_) | Err(_) => break,
                },
                Ok(false) | Err(_) => break,
            }
        }
        self.until = None;
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
    fn the_rest_of_a_secret_goes_nowhere() {
        let (mut rest, begin) = (Rest::default(), Instant::now());
        assert!(!rest.takes(b"12"), "no secret was cut off");
        rest.expect();
        assert!(rest.takes_at(b"34", begin) && rest.takes_at(b"5", begin + PAUSE / 2));
        assert!(rest.takes_at(b"6", begin + PAUSE * 5 / 4), "it goes on as long as it is typed");
        assert!(!rest.takes_at(b"7", begin + PAUSE * 3));
        assert!(!rest.takes_at(b"8", begin), "it is over");
        rest.expect();
        assert!(rest.takes(b"9\rls\r") && !rest.takes(b"ls\r"));
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
