//! Terminal output cut into whole control sequences (ECMA-48, and what xterm makes of it). What has begun and not ended is
//! held back: a question must not come to stand in the middle of a sequence.

use super::refused::string_is_refused;

/// More of an unfinished sequence (a picture, say) is passed on as it comes.
const HELD_MAX: usize = 64 << 10;
/// Parameters of one sequence; further ones have no meaning anywhere.
const PARAMETERS_MAX: usize = 32;

/// One whole piece of output.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// Printable characters, whole ones.
    Text(&'a [u8]),
    /// A C0 control.
    Control(u8),
    /// ESC, intermediates, a final byte.
    Escape(&'a [u8], u8),
    Csi(Csi<'a>),
    /// A control string: its introducer (`]` for OSC, `P` for DCS, `X`, `^`, `_`) and its content.
    String(u8, &'a [u8]),
    /// An eight-bit control or a byte that is no UTF-8: terminals differ in what they make of it.
    Odd,
}

/// A control sequence: `ESC [`, a private marker, parameters, intermediates, a final byte.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Csi<'a> {
    /// One of `<=>?`.
    pub(super) marker: Option<u8>,
    /// Without the marker, as they were written.
    pub(super) raw: &'a [u8],
    pub(super) intermediates: &'a [u8],
    pub(super) last: u8,
}

impl Csi<'_> {
    /// The parameters, of each its first part (`4:3` is 4); 0 where none was given.
    pub(super) fn numbers(&self) -> Vec<u16> {
        if self.raw.is_empty() {
            return Vec::new();
        }
        let number = |part: &[u8]| {
            let digits = part.split(|&byte| byte == b':').next().unwrap_or_default();
            digits.iter().fold(0_u16, |number, digit| {
                number.saturating_mul(10).saturating_add(u16::from(digit.saturating_sub(b'0')))
            })
        };
        self.raw.split(|&byte| byte == b';').take(PARAMETERS_MAX).map(number).collect()
    }

    /// One parameter; `None` if it was not given or is 0.
    pub(super) fn number(&self, place: usize) -> Option<u16> {
        self.numbers().get(place).copied().filter(|&number| number != 0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ground,
    /// So many bytes of a character are missing.
    Utf8(u8),
    Escape,
    Csi,
    String(u8),
    /// An ESC in a control string: its end, if `\` follows.
    StringEscape(u8),
}

/// Cuts output into tokens, wherever the reads cut it.
#[derive(Debug)]
pub(super) struct Scanner {
    state: State,
    /// The bytes of the token in the making that were not passed on.
    held: Vec<u8>,
    /// What it means: without controls that stand in the middle of it.
    meant: Vec<u8>,
    /// Its beginning was passed on.
    leaked: bool,
    /// The rest of it is thrown away: a question has cut it off.
    cut: bool,
}

impl Scanner {
    pub(super) fn new() -> Self {
        Self { state: State::Ground, held: Vec::new(), meant: Vec::new(), leaked: false, cut: false }
    }

    /// Takes output; hands every whole token to `see` with the bytes to pass on.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut see: impl FnMut(Token<'_>, &[u8])) {
        while let Some(&first) = bytes.first() {
            if self.state == State::Ground && (b' '..=b'~').contains(&first) {
                let end = bytes.iter().position(|byte| !(b' '..=b'~').contains(byte)).unwrap_or(bytes.len());
                let (text, rest) = bytes.split_at(end);
                see(Token::Text(text), text);
                bytes = rest;
                continue;
            }
            // A byte that ends one token and begins the next is looked at twice.
            if self.byte(first, &mut see) {
                bytes = &bytes[1..];
            }
        }
        if self.held.len() > HELD_MAX {
            self.leak(&mut see);
            self.held.clear();
            self.meant.truncate(HELD_MAX);
        }
    }

    /// Passes on the beginning of what is too long to be held back; nothing of what the terminal is spared.
    fn leak(&mut self, see: &mut impl FnMut(Token<'_>, &[u8])) {
        if let State::String(kind) | State::StringEscape(kind) = self.state {
            self.cut |= string_is_refused(kind, &self.meant);
        }
        if !self.cut {
            see(Token::String(0, b""), &self.held);
        }
        self.leaked = true;
    }

    /// The end of the output: what is still held back.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }

    /// A question comes: the terminal forgets a sequence whose beginning it has got. Whether there is one.
    pub(super) fn cut(&mut self) -> bool {
        self.cut |= self.leaked;
        self.leaked
    }

    fn byte(&mut self, byte: u8, see: &mut impl FnMut(Token<'_>, &[u8])) -> bool {
        match (self.state, byte) {
            (State::Ground, _) => self.begin(byte, see),
            (State::Utf8(left), 0x80..=0xbf) => self.continued(byte, left - 1, see),
            (State::Utf8(_), _) => {
                see(Token::Odd, &self.held);
                self.ground();
                return false;
            }
            // CAN and SUB end everything.
            (_, 0x18 | 0x1a) => {
                self.held.push(byte);
                self.whole(Token::Control(byte), see);
            }
            (State::StringEscape(kind), b'\\') => {
                self.held.push(byte);
                self.string(kind, see);
            }
            // An ESC that is not the end of the string is the beginning of something else.
            (State::StringEscape(kind), _) => {
                let escape = self.held.pop();
                self.string(kind, see);
                self.state = State::Escape;
                self.held.extend(escape);
                return false;
            }
            (State::String(kind), 0x1b) => {
                self.held.push(byte);
                self.state = State::StringEscape(kind);
            }
            (State::String(b']'), 0x07) => {
                self.held.push(byte);
                self.string(b']', see);
            }
            (State::String(_), _) => {
                self.held.push(byte);
                if self.meant.len() < HELD_MAX {
                    self.meant.push(byte);
                }
            }
            (State::Escape | State::Csi, 0x1b) => {
                let held = std::mem::take(&mut self.held);
                self.pass(Token::Odd, &held, see);
                self.ground();
                return false;
            }
            // Controls in the middle of a sequence are obeyed, and the sequence goes on.
            (State::Escape | State::Csi, 0x00..=0x1f | 0x7f) => {
                self.held.push(byte);
                see(Token::Control(byte), b"");
            }
            (State::Escape | State::Csi, 0x80..) => {
                self.held.push(byte);
                self.whole(Token::Odd, see);
            }
            (State::Escape, _) => self.escape(byte, see),
            (State::Csi, _) => self.csi(byte, see),
        }
        true
    }

    fn begin(&mut self, byte: u8, see: &mut impl FnMut(Token<'_>, &[u8])) {
        let more = match byte {
            0x1b => {
                self.held.push(byte);
                self.state = State::Escape;
                return;
            }
            0xc2..=0xdf => 1,
            0xe0..=0xef => 2,
            0xf0..=0xf4 => 3,
            0x80.. => return see(Token::Odd, &[byte]),
            _ => return see(Token::Control(byte), &[byte]),
        };
        self.held.push(byte);
        self.state = State::Utf8(more);
    }

    /// One more byte of a character, of which so many are still missing.
    fn continued(&mut self, byte: u8, left: u8, see: &mut impl FnMut(Token<'_>, &[u8])) {
        self.held.push(byte);
        self.state = State::Utf8(left);
        if left == 0 {
            let token = match *self.held.as_slice() {
                [0xc2, 0x80..=0x9f] => Token::Odd,
                ref text => Token::Text(text),
            };
            see(token, &self.held);
            self.ground();
        }
    }

    fn escape(&mut self, byte: u8, see: &mut impl FnMut(Token<'_>, &[u8])) {
        self.held.push(byte);
        match byte {
            b'[' if self.meant.is_empty() => self.state = State::Csi,
            b']' | b'P' | b'X' | b'^' | b'_' if self.meant.is_empty() => self.state = State::String(byte),
            b' '..=b'/' => self.meant.push(byte),
            _ => {
                let meant = std::mem::take(&mut self.meant);
                self.whole(Token::Escape(&meant, byte), see);
            }
        }
    }

    fn csi(&mut self, byte: u8, see: &mut impl FnMut(Token<'_>, &[u8])) {
        self.held.push(byte);
        if byte < b'@' {
            if self.meant.len() < HELD_MAX {
                self.meant.push(byte);
            }
            return;
        }
        let meant = std::mem::take(&mut self.meant);
        let (marker, rest) = match meant.split_first() {
            Some((&marker @ b'<'..=b'?', rest)) => (Some(marker), rest),
            _ => (None, meant.as_slice()),
        };
        let end = rest.iter().position(|byte| *byte < b'0').unwrap_or(rest.len());
        let (raw, intermediates) = rest.split_at(end);
        // Markers and parameters in the wrong places: no terminal has to make sense of it.
        let well = raw.iter().all(|byte| (b'0'..=b';').contains(byte))
            && intermediates.iter().all(|byte| (b' '..=b'/').contains(byte));
        let token =
            if well { Token::Csi(Csi { marker, raw, intermediates, last: byte }) } else { Token::Odd };
        self.whole(token, see);
    }

    fn string(&mut self, kind: u8, see: &mut impl FnMut(Token<'_>, &[u8])) {
        let meant = std::mem::take(&mut self.meant);
        // Eight-bit controls in it end it on some terminals (U+009C), and what is no UTF-8 is anything.
        let odd = std::str::from_utf8(&meant)
            .map_or(true, |text| text.contains(|c| matches!(c, '\u{80}'..='\u{9f}')));
        self.whole(if odd { Token::Odd } else { Token::String(kind, &meant) }, see);
    }

    /// The token is complete.
    fn whole(&mut self, token: Token<'_>, see: &mut impl FnMut(Token<'_>, &[u8])) {
        let held = std::mem::take(&mut self.held);
        self.pass(token, &held, see);
        self.ground();
    }

    fn pass(&self, token: Token<'_>, held: &[u8], see: &mut impl FnMut(Token<'_>, &[u8])) {
        if !self.cut {
            see(token, held);
        }
    }

    fn ground(&mut self) {
        self.state = State::Ground;
        self.held.clear();
        self.meant.clear();
        (self.leaked, self.cut) = (false, false);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The tokens as text, and what is passed on.
    fn scan(pieces: &[&[u8]]) -> (Vec<String>, Vec<u8>) {
        let (mut scanner, mut tokens, mut passed) = (Scanner::new(), Vec::new(), Vec::new());
        for piece in pieces {
            scanner.feed(piece, |token, bytes| {
                tokens.push(format!("{token:?}"));
                passed.extend_from_slice(bytes);
            });
        }
        (tokens, passed)
    }

    #[test]
    fn sequences_are_whole_wherever_they_are_cut() {
        let output = b"a\x1b[1;31mb\x1b]0;title\x07c\x1b(0\x1b7\xc3\xa9\x1bP1q\x1b\\\x1b[?25l\r\n";
        let (whole, passed) = scan(&[output]);
        assert_eq!(passed, output);
        for cut in 0..output.len() {
            let (cut_in_two, passed) = scan(&[&output[..cut], &output[cut..]]);
            assert_eq!((cut_in_two, passed), (whole.clone(), output.to_vec()), "{cut}");
        }
    }

    #[test]
    fn what_has_begun_waits_for_its_end() {
        for begun in [&b"\x1b"[..], b"\x1b[", b"\x1b[12;", b"\x1b]0;x", b"\x1bPq", b"\x1b_Ga", b"\xe2\x82"] {
            let (_, passed) = scan(&[b"x", begun]);
            assert_eq!(passed, b"x", "{begun:?}");
        }
        let mut scanner = Scanner::new();
        scanner.feed(b"\x1b]0;abc", |_, _| {});
        assert_eq!(scanner.finish(), b"\x1b]0;abc");
    }

    #[test]
    fn an_endless_string_is_passed_on_and_can_be_cut() {
        let (mut scanner, mut passed) = (Scanner::new(), Vec::new());
        let long = [b"\x1bPq".as_slice(), &[b'x'; HELD_MAX]].concat();
        scanner.feed(&long, |_, bytes| passed.extend_from_slice(bytes));
        assert_eq!(passed, long);
        scanner.cut();
        passed.clear();
        scanner.feed(b"rest\x1b\\text", |_, bytes| passed.extend_from_slice(bytes));
        assert_eq!(passed, b"text");
    }

    #[test]
    fn numbers() {
        let (tokens, _) = scan(&[b"\x1b[99999999;;4:3;5 q"]);
        assert_eq!(tokens.len(), 1);
        let csi = Csi { marker: None, raw: b"99999999;;4:3;5", intermediates: b" ", last: b'q' };
        assert_eq!(tokens[0], format!("{:?}", Token::Csi(csi)));
        let csi = Csi { marker: None, raw: b"99999999;;4:3;5", intermediates: b" ", last: b'q' };
        assert_eq!(csi.numbers(), [u16::MAX, 0, 4, 5]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost(output in prop::collection::vec(any::<u8>(), 0..200), cut in 0_usize..200) {
            let cut = cut.min(output.len());
            let mut scanner = Scanner::new();
            let mut passed = Vec::new();
            for piece in [&output[..cut], &output[cut..]] {
                scanner.feed(piece, |_, bytes| passed.extend_from_slice(bytes));
            }
            passed.extend(scanner.finish());
            prop_assert_eq!(passed, output);
        }
    }
}
