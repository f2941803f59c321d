//! The modes that the agent has set in the person's terminal: what a question has to leave, and to set again afterwards.

use std::collections::BTreeMap;

use super::{style::Style, tokens::Csi};

/// Private modes that are remembered.
const PRIVATE_MAX: usize = 64;
/// Kitty keyboards' flags on the stack; terminals keep fewer.
const KEYBOARDS_MAX: usize = 32;
/// Bytes of a colour or a link.
const TEXT_MAX: usize = 2048;

/// Private modes in which a question cannot be read or answered, and what they are while it is asked. Those named always are
/// set whether the agent was seen to change them or not.
const LEFT: [(u16, bool, Always); 21] = [
    (1, false, Always(false)),    // application cursor keys
    (5, false, Always(false)),    // reverse video
    (7, true, Always(true)),      // autowrap
    (9, false, Always(false)),    // mouse, X10
    (25, true, Always(true)),     // cursor
    (66, false, Always(false)),   // application keypad
    (1000, false, Always(true)),  // mouse, buttons
    (1001, false, Always(false)), // mouse, highlights
    (1002, false, Always(true)),  // mouse, drags
    (1003, false, Always(true)),  // mouse, motion
    (1004, false, Always(true)),  // focus
    (1005, false, Always(false)), // mouse, UTF-8
    (1006, false, Always(true)),  // mouse, SGR
    (1015, false, Always(false)), // mouse, urxvt
    (1016, false, Always(false)), // mouse, pixels
    (2004, true, Always(true)),   // bracketed paste: what is pasted is no answer
    (2026, false, Always(true)),  // synchronized output
    (2031, false, Always(false)), // colour scheme reports
    (2048, false, Always(false)), // size reports
    (5522, false, Always(false)), // paste events
    (9001, false, Always(false)), // win32 keys
];

struct Always(bool);

/// A colour that can be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Color {
    Palette(u16),
    /// OSC 10 to 19: text, background, cursor, …
    Dynamic(u16),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Modes {
    /// DEC private modes in the order in which they were last set or reset: of some only the last one counts.
    private: Vec<(u16, bool)>,
    insert: bool,
    newline: bool,
    /// `ESC =`.
    keypad: bool,
    /// First and last row.
    pub(super) region: Option<(u16, u16)>,
    /// First and last column.
    margins: Option<(u16, u16)>,
    /// The kitty keyboard's flags, on the primary and on the alternate screen.
    keyboards: [Vec<u16>; 2],
    /// XTMODKEYS: resource and value.
    other_keys: BTreeMap<u16, u16>,
    pub(super) writing: Writing,
    colors: BTreeMap<Color, String>,
    link: Option<String>,
}

/// How the agent writes: what DECSC saves, beside the cursor's place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Writing {
    pub(super) style: Style,
    /// What is designated as G0 to G3.
    charsets: [Option<Vec<u8>>; 4],
    /// Which of them is in use.
    charset: u8,
    /// DECSCA.
    pub(super) protected: bool,
}

impl Writing {
    /// `ESC ( B` and the like; whether it was one.
    pub(super) fn designate(&mut self, intermediates: &[u8], last: u8) -> bool {
        let place = match intermediates.first() {
            Some(b'(') => 0,
            Some(b')' | b'-') => 1,
            Some(b'*' | b'.') => 2,
            Some(b'+' | b'/') => 3,
            _ => return false,
        };
        let name = [intermediates, &[last]].concat();
        self.charsets[place] = Some(name).filter(|name| name.len() < 8 && !name.ends_with(b"B"));
        true
    }

    /// SO, SI, LS2, LS3.
    pub(super) fn shift(&mut self, charset: u8) {
        self.charset = charset;
    }

    /// Letters are lines (DEC special graphics).
    pub(super) fn draws_lines(&self) -> bool {
        let set = self.charsets.get(usize::from(self.charset)).and_then(Option::as_ref);
        set.is_some_and(|name| name.ends_with(b"0"))
    }

    /// What sets exactly this in a terminal that writes plainly.
    pub(super) fn sequence(&self) -> String {
        let mut out = self.style.sequence();
        for name in self.charsets.iter().flatten() {
            out.push('\x1b');
            out.push_str(&String::from_utf8_lossy(name));
        }
        out.push_str(match self.charset {
            1 => "\x0e",
            2 => "\x1bn",
            3 => "\x1bo",
            _ => "",
        });
        if self.protected {
            out.push_str("\x1b[1\"q");
        }
        out
    }
}

impl Modes {
    /// `CSI ? … h` and `l`.
    pub(super) fn set_private(&mut self, mode: u16, on: bool) {
        self.private.retain(|(known, _)| *known != mode);
        self.private.push((mode, on));
        // Those of no importance to a question go first.
        if self.private.len() > PRIVATE_MAX {
            let place = self.private.iter().position(|(known, _)| !LEFT.iter().any(|left| left.0 == *known));
            self.private.remove(place.unwrap_or(0));
        }
    }

    /// What is written stays within a part of the screen.
    pub(super) fn confines(&self) -> bool {
        self.region.is_some() || self.margins.is_some() || self.is_set(6) || self.is_set(69)
    }

    /// Whether the agent has set a private mode.
    pub(super) fn is_set(&self, mode: u16) -> bool {
        self.private.contains(&(mode, true))
    }

    /// `CSI … h` and `l`.
    pub(super) fn set_ansi(&mut self, mode: u16, on: bool) {
        match mode {
            4 => self.insert = on,
            20 => self.newline = on,
            _ => {}
        }
    }

    /// A line feed is a carriage return, too.
    pub(super) fn newline(&self) -> bool {
        self.newline
    }

    pub(super) fn set_keypad(&mut self, application: bool) {
        self.keypad = application;
    }

    pub(super) fn set_margins(&mut self, csi: &Csi<'_>, columns: u16) {
        let margins = (csi.number(0).unwrap_or(1), csi.number(1).unwrap_or(columns));
        self.margins = Some(margins).filter(|margins| *margins != (1, columns));
    }

    /// `CSI > … u`, `CSI < … u`, `CSI = … u` (the kitty keyboard protocol).
    pub(super) fn keyboard(&mut self, csi: &Csi<'_>, alternate: bool) {
        let stack = &mut self.keyboards[usize::from(alternate)];
        let number = csi.number(0);
        match csi.marker {
            Some(b'>') => {
                if stack.is_empty() {
                    stack.push(0);
                }
                stack.push(number.unwrap_or(0));
                if stack.len() > KEYBOARDS_MAX {
                    stack.remove(0);
                }
            }
            Some(b'<') => {
                let left = stack.len().saturating_sub(usize::from(number.unwrap_or(1)));
                stack.truncate(left);
            }
            Some(b'=') => {
                let flags = number.unwrap_or(0);
                let current = stack.last().copied().unwrap_or(0);
                let flags = match csi.number(1) {
                    Some(2) => current | flags,
                    Some(3) => current & !flags,
                    _ => flags,
                };
                stack.pop();
                stack.push(flags);
            }
            _ => {}
        }
    }

    /// `CSI > resource ; value m`.
    pub(super) fn other_keys(&mut self, csi: &Csi<'_>) {
        let Some(resource) = csi.number(0).filter(|resource| *resource < 8) else { return };
        match csi.number(1) {
            Some(value) => self.other_keys.insert(resource, value),
            None => self.other_keys.remove(&resource),
        };
    }

    /// `CSI > resource n`.
    pub(super) fn no_other_keys(&mut self, resource: u16) {
        self.other_keys.remove(&resource);
    }

    /// OSC: colours and links.
    pub(super) fn control_string(&mut self, text: &[u8]) {
        let Ok(text) = std::str::from_utf8(text) else { return };
        if text.len() > TEXT_MAX || text.chars().any(char::is_control) {
            return;
        }
        let (number, rest) = text.split_once(';').unwrap_or((text, ""));
        let Ok(number) = number.parse::<u16>() else { return };
        match number {
            4 => {
                let mut parts = rest.split(';');
                while let (Some(place), Some(color)) = (parts.next(), parts.next()) {
                    if let Some(place) = place.parse().ok().filter(|place| *place < 272) {
                        self.color(Color::Palette(place), color);
                    }
                }
            }
            8 => {
                let closed = rest.split_once(';').is_none_or(|(_, target)| target.is_empty());
                self.link = (!closed).then(|| rest.to_owned());
            }
            10..=19 => {
                for (place, color) in (number..=19).zip(rest.split(';')) {
                    self.color(Color::Dynamic(place), color);
                }
            }
            104 if rest.is_empty() => self.colors.retain(|color, _| matches!(color, Color::Dynamic(_))),
            104 => {
                for place in rest.split(';').filter_map(|place| place.parse().ok()) {
                    self.colors.remove(&Color::Palette(place));
                }
            }
            110..=119 => drop(self.colors.remove(&Color::Dynamic(number - 100))),
            _ => {}
        }
    }

    fn color(&mut self, color: Color, value: &str) {
        // A question mark only asks for the colour.
        if !value.is_empty() && value != "?" {
            self.colors.insert(color, value.to_owned());
        }
    }

    /// DECSTR: what `CSI ! p` sets back.
    pub(super) fn soft_reset(&mut self) {
        let kept = std::mem::take(self);
        *self = Self {
            private: kept.private,
            keyboards: kept.keyboards,
            other_keys: kept.other_keys,
            colors: kept.colors,
            link: kept.link,
            newline: kept.newline,
            ..Self::default()
        };
        self.private.retain(|(mode, _)| ![1, 6, 7, 25, 66, 69].contains(mode));
    }

    /// What makes a terminal in these modes show a question and take its answer. `page`: on a screen of its own, where the
    /// cursor may be anywhere; `odd`: the agent may have done more than what is known.
    pub(super) fn leave(&self, page: bool, odd: bool) -> String {
        let mut out = String::new();
        if odd {
            // Out of VT52 mode.
            out.push_str("\x1b<");
        }
        // These move the cursor, and nobody has saved one where lines of ours come below what is there.
        out.push_str(if page { "\x1b[r\x1b[?69l\x1b[?6l" } else { "\x1b7\x1b[?6l\x1b[?69l\x1b[r\x1b8" });
        out.push_str("\x1b[4l");
        if self.newline {
            out.push_str("\x1b[20l");
        }
        out.push_str("\x1b[m\x1b[0\"q\x1b(B\x0f");
        for (mode, wanted, Always(always)) in LEFT {
            let differs = self.private.contains(&(mode, !wanted));
            if always || differs {
                out.push_str(&private(mode, wanted));
            }
        }
        if self.keypad {
            out.push_str("\x1b>");
        }
        if self.uses_keyboards() {
            out.push_str("\x1b[>0u");
        }
        if odd {
            // Keys as everybody has them.
            out.push_str("\x1b[=0u\x1b[>4m");
        }
        for resource in self.other_keys.keys() {
            out.push_str(&format!("\x1b[>{resource}m"));
        }
        if self.link.is_some() {
            out.push_str("\x1b]8;;\x1b\\");
        }
        if odd || self.colors.keys().any(|color| matches!(color, Color::Palette(_))) {
            out.push_str("\x1b]104\x1b\\");
        }
        for place in 10..=19 {
            if (odd && place < 12) || self.colors.contains_key(&Color::Dynamic(place)) {
                out.push_str(&format!("\x1b]1{place}\x1b\\"));
            }
        }
        out
    }

    /// Sets scroll region, margins and origin mode again, which moves the cursor.
    pub(super) fn restore_region(&self) -> String {
        let mut out = String::new();
        if let Some((top, bottom)) = self.region {
            out.push_str(&format!("\x1b[{top};{bottom}r"));
        }
        if self.is_set(69) {
            out.push_str("\x1b[?69h");
            if let Some((left, right)) = self.margins {
                out.push_str(&format!("\x1b[{left};{right}s"));
            }
        }
        if self.is_set(6) {
            out.push_str("\x1b[?6h");
        }
        out
    }

    /// Sets everything else again that [`Modes::leave`] has left.
    pub(super) fn restore(&self) -> String {
        let mut out = String::new();
        if self.uses_keyboards() {
            out.push_str("\x1b[<1u");
        }
        for (resource, value) in &self.other_keys {
            out.push_str(&format!("\x1b[>{resource};{value}m"));
        }
        if self.insert {
            out.push_str("\x1b[4h");
        }
        if self.newline {
            out.push_str("\x1b[20h");
        }
        for (mode, on) in &self.private {
            if LEFT.iter().any(|left| left.0 == *mode) {
                out.push_str(&private(*mode, *on));
            }
        }
        if !self.is_set(2004) {
            out.push_str(&private(2004, false));
        }
        if self.keypad {
            out.push_str("\x1b=");
        }
        for (color, value) in &self.colors {
            match color {
                Color::Palette(place) => out.push_str(&format!("\x1b]4;{place};{value}\x1b\\")),
                Color::Dynamic(place) => out.push_str(&format!("\x1b]{place};{value}\x1b\\")),
            }
        }
        out
    }

    /// The same for how the agent writes, after 1049, which brings back some of it.
    pub(super) fn restore_writing(&self) -> String {
        let mut out = self.writing.sequence();
        if let Some(link) = &self.link {
            out.push_str(&format!("\x1b]8;{link}\x1b\\"));
        }
        out
    }

    /// Without the keyboard's flags, for a terminal that forgets them.
    pub(super) fn forget_keyboards(&mut self) -> bool {
        let used = self.uses_keyboards();
        self.keyboards = Default::default();
        used
    }

    /// Nothing of this keeps a question from being asked.
    pub(super) fn is_initial(&self) -> bool {
        let quiet = |(mode, on): &(u16, bool)| !LEFT.iter().any(|left| left.0 == *mode && left.1 != *on);
        let fresh = Self { private: self.private.clone(), ..Self::default() };
        self.private.iter().all(quiet) && *self == fresh
    }

    fn uses_keyboards(&self) -> bool {
        self.keyboards.iter().flatten().any(|flags| *flags != 0)
    }
}

fn private(mode: u16, on: bool) -> String {
    format!("\x1b[?{mode}{}", if on { 'h' } else { 'l' })
}
