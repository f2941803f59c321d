//! A client of CTAPHID, report by report.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::fd::AsFd,
    sync::atomic::{AtomicU64, Ordering},
};

use ana_virtual_key::VirtualKey;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

pub(crate) const PING: u8 = 0x81;
pub(crate) const INIT: u8 = 0x86;
pub(crate) const CBOR: u8 = 0x90;
pub(crate) const CANCEL: u8 = 0x91;
pub(crate) const KEEPALIVE: u8 = 0xbb;
pub(crate) const ERROR: u8 = 0xbf;
pub(crate) const BROADCAST: u32 = 0xffff_ffff;
pub(crate) const GET_INFO: &[u8] = &[4];
pub(crate) const SELECTION: &[u8] = &[0x0b];
static NONCES: AtomicU64 = AtomicU64::new(1);

pub(crate) struct Client {
    file: File,
    pub(crate) channel: u32,
}

/// The first report of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct First {
    pub(crate) channel: u32,
    pub(crate) command: u8,
    pub(crate) length: u16,
    pub(crate) data: Vec<u8>,
}

impl Client {
    /// With a channel of its own, also while others are asked.
    pub(crate) fn open(key: &VirtualKey) -> Self {
        let mut client = Self::without_channel(key);
        let nonce = NONCES.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        client.send(BROADCAST, INIT, &nonce);
        let answer = client.until(|answer| answer.command == INIT && answer.data[..8] == nonce);
        assert_eq!((answer.channel, answer.length), (BROADCAST, 17));
        client.channel = u32::from_be_bytes(answer.data[8..12].try_into().unwrap());
        client
    }

    pub(crate) fn without_channel(key: &VirtualKey) -> Self {
        let file = OpenOptions::new().read(true).write(true).open(key.hidraw()).unwrap();
        Self { file, channel: 0 }
    }

    pub(crate) fn send_report(&mut self, report: &[u8]) {
        // Report number 0, and always 64 bytes.
        let mut bytes = [&[0], report].concat();
        bytes.resize(65, 0);
        self.file.write_all(&bytes).unwrap();
    }

    /// A message of one report.
    pub(crate) fn send(&mut self, channel: u32, command: u8, payload: &[u8]) {
        let length = u16::try_from(payload.len()).unwrap();
        let header = [channel.to_be_bytes().as_slice(), &[command], &length.to_be_bytes()].concat();
        self.send_report(&[header.as_slice(), payload].concat());
    }

    /// The answer to a message; whoever has the device open reads those of others and keepalives too.
    pub(crate) fn ask(&mut self, payload: &[u8]) -> First {
        let channel = self.channel;
        self.send(channel, CBOR, payload);
        self.until(|answer| answer.channel == channel && answer.command != KEEPALIVE)
    }

    pub(crate) fn until(&mut self, wanted: impl Fn(&First) -> bool) -> First {
        loop {
            let first = self.first();
            if wanted(&first) {
                return first;
            }
        }
    }

    /// One report, as long as it is.
    pub(crate) fn report(&mut self) -> Vec<u8> {
        let mut report = vec![0; 100];
        let length = self.file.read(&mut report).unwrap();
        report.truncate(length);
        report
    }

    pub(crate) fn first(&mut self) -> First {
        let report = self.report();
        First {
            channel: u32::from_be_bytes(report[..4].try_into().unwrap()),
            command: report[4],
            length: u16::from_be_bytes(report[5..7].try_into().unwrap()),
            data: report[7..].to_vec(),
        }
    }

    /// Whether nothing comes for this long.
    pub(crate) fn is_silent(&self, milliseconds: u16) -> bool {
        let mut polled = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
        poll(&mut polled, PollTimeout::from(milliseconds)).unwrap() == 0
    }
}
