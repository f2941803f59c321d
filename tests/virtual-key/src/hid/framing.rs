//! Messages in reports of 64 bytes (CTAP 2.1, 11.2.4 to 11.2.5).

use std::time::{Duration, Instant};

pub(super) const REPORT: usize = 64;
const INIT_HEADER: usize = 7;
const CONTINUATION_HEADER: usize = 5;
const INIT_DATA: usize = REPORT - INIT_HEADER;
const CONTINUATION_DATA: usize = REPORT - CONTINUATION_HEADER;
/// What one message can hold: sequence numbers end at 127.
pub(crate) const MESSAGE_MAX: u16 = 57 + 128 * 59;
/// A client that stops in the middle of a message for so long has gone (11.2.5.2).
const PATIENCE: Duration = Duration::from_millis(500);

pub(super) const BROADCAST: u32 = 0xffff_ffff;
const INIT_BIT: u8 = 0x80;

/// Commands (11.2.9), without the bit of initialization packets.
pub(super) mod command {
    pub(in crate::hid) const PING: u8 = 0x01;
    pub(in crate::hid) const INIT: u8 = 0x06;
    pub(in crate::hid) const WINK: u8 = 0x08;
    pub(in crate::hid) const CBOR: u8 = 0x10;
    pub(in crate::hid) const CANCEL: u8 = 0x11;
    pub(in crate::hid) const KEEPALIVE: u8 = 0x3b;
    pub(in crate::hid) const ERROR: u8 = 0x3f;
}

/// Codes of `CTAPHID_ERROR` (11.2.9.1.6).
pub(super) mod error {
    pub(in crate::hid) const INVALID_CMD: u8 = 0x01;
    pub(in crate::hid) const INVALID_LEN: u8 = 0x03;
    pub(in crate::hid) const INVALID_SEQ: u8 = 0x04;
    pub(in crate::hid) const CHANNEL_BUSY: u8 = 0x06;
    pub(in crate::hid) const INVALID_CHANNEL: u8 = 0x0b;
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) channel: u32,
    pub(super) command: u8,
    pub(super) payload: Vec<u8>,
}

impl Message {
    pub(super) fn error(channel: u32, code: u8) -> Self {
        Self { channel, command: command::ERROR, payload: vec![code] }
    }

    /// Its reports.
    pub(super) fn reports(&self) -> Vec<Vec<u8>> {
        self.reports_claiming(u16::try_from(self.payload.len()).unwrap_or(u16::MAX))
    }

    /// Its reports, of which the first claims this many bytes.
    pub(super) fn reports_claiming(&self, length: u16) -> Vec<Vec<u8>> {
        let (first, rest) = self.payload.split_at(self.payload.len().min(INIT_DATA));
        let header = [self.command | INIT_BIT, length.to_be_bytes()[0], length.to_be_bytes()[1]];
        let mut reports = vec![self.report(&header, first)];
        for (sequence, data) in (0..INIT_BIT).zip(rest.chunks(CONTINUATION_DATA)) {
            reports.push(self.report(&[sequence], data));
        }
        reports
    }

    fn report(&self, header: &[u8], data: &[u8]) -> Vec<u8> {
        let mut report = [&self.channel.to_be_bytes(), header, data].concat();
        report.resize(REPORT, 0);
        report
    }
}

/// What a report led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// The message goes on, or the report belongs to none.
    Nothing,
    Message(Message),
    /// To be answered with this error.
    Error(u32, u8),
}

/// Puts messages together: one at a time, as CTAPHID has it.
#[derive(Default)]
pub(super) struct Assembly {
    partial: Option<Partial>,
}

struct Partial {
    message: Message,
    length: usize,
    sequence: u8,
    last: Instant,
}

impl Assembly {
    pub(super) fn receive(&mut self, report: &[u8], now: Instant) -> Received {
        self.partial.take_if(|partial| now.saturating_duration_since(partial.last) > PATIENCE);
        let Some((channel, rest)) = report.split_first_chunk() else { return Received::Nothing };
        let channel = u32::from_be_bytes(*channel);
        match rest {
            [first, high, low, data @ ..] if first & INIT_BIT != 0 => {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                self.begin(channel, first & !INIT_BIT, length, data, now)
            }
            [sequence, data @ ..] => self.go_on(channel, *sequence, data, now),
            [] => Received::Nothing,
        }
    }

    fn begin(&mut self, channel: u32, command: u8, length: usize, data: &[u8], now: Instant) -> Received {
        match &self.partial {
            // Synchronizes the channel, whatever went on there.
            Some(partial) if partial.message.channel == channel && command == command::INIT => {}
            Some(partial) if partial.message.channel == channel => {
                self.partial = None;
                return Received::Error(channel, error::INVALID_SEQ);
            }
            Some(_) => return Received::Error(channel, error::CHANNEL_BUSY),
            None => {}
        }
        self.partial = None;
        if length > usize::from(MESSAGE_MAX) {
            return Received::Error(channel, error::INVALID_LEN);
        }
        let message = Message { channel, command, payload: Vec::new() };
        self.add(Partial { message, length, sequence: 0, last: now }, data)
    }

    fn go_on(&mut self, channel: u32, sequence: u8, data: &[u8], now: Instant) -> Received {
        let Some(mut partial) = self.partial.take_if(|partial| partial.message.channel == channel) else {
            return Received::Nothing;
        };
        if sequence != partial.sequence {
            return Received::Error(channel, error::INVALID_SEQ);
        }
        partial.sequence += 1;
        partial.last = now;
        self.add(partial, data)
    }

    fn add(&mut self, mut partial: Partial, data: &[u8]) -> Received {
        let missing = partial.length - partial.message.payload.len();
        partial.message.payload.extend(data.iter().take(missing));
        if partial.message.payload.len() == partial.length {
            return Received::Message(partial.message);
        }
        self.partial = Some(partial);
        Received::Nothing
    }
}

#[cfg(test)]
#[path = "framing_tests.rs"]
mod tests;
