//! `/dev/uhid` (linux/uhid.h): a HID device whose other end is a file.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
};

const PATH: &str = "/dev/uhid";

/// `enum uhid_event_type`
const DESTROY: u32 = 1;
const OUTPUT: u32 = 6;
const GET_REPORT: u32 = 9;
const GET_REPORT_REPLY: u32 = 10;
const CREATE2: u32 = 11;
const INPUT2: u32 = 12;
const SET_REPORT: u32 = 13;
const SET_REPORT_REPLY: u32 = 14;

const DATA_MAX: usize = 4096;
/// `struct uhid_event`: the type, and `struct uhid_create2_req`, the largest of the union.
const EVENT: usize = 4 + 128 + 64 + 64 + 2 + 2 + 4 * 4 + DATA_MAX;
const BUS_USB: u16 = 3;
const EIO: u16 = 5;

/// pid.codes' numbers for programs like this one.
const VENDOR: u32 = 0x1209;
const PRODUCT: u32 = 0xf1d0;

/// One input and one output report of 64 bytes, of usage page 0xf1d0 (CTAP 2.1, 11.2.8.1).
const DESCRIPTOR: [u8; 34] = [
    0x06, 0xd0, 0xf1, 0x09, 0x01, 0xa1, 0x01, 0x09, 0x20, 0x15, 0x00, 0x26, 0xff, 0x00, 0x75, 0x08, 0x95,
    0x40, 0x81, 0x02, 0x09, 0x21, 0x15, 0x00, 0x26, 0xff, 0x00, 0x75, 0x08, 0x95, 0x40, 0x91, 0x02, 0xc0,
];

pub(super) struct Uhid {
    file: File,
}

impl Uhid {
    /// Makes the device; its node comes a moment later.
    pub(super) fn create(name: &str, unique: &str) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(PATH)?;
        let mut event = CREATE2.to_ne_bytes().to_vec();
        event.extend(text::<128>(name));
        // phys
        event.extend([0; 64]);
        event.extend(text::<64>(unique));
        event.extend(34_u16.to_ne_bytes());
        event.extend(BUS_USB.to_ne_bytes());
        for number in [VENDOR, PRODUCT, 0x0100, 0] {
            event.extend(number.to_ne_bytes());
        }
        event.extend(DESCRIPTOR);
        (&file).write_all(&event)?;
        Ok(Self { file })
    }

    pub(super) const fn file(&self) -> &File {
        &self.file
    }

    /// Waits for what the kernel says next; a report that somebody wrote, if it is one.
    pub(super) fn read(&self) -> io::Result<Option<Vec<u8>>> {
        let mut event = vec![0; EVENT];
        let length = (&self.file).read(&mut event)?;
        let (kind, rest) = number(event.get(..length).unwrap_or_default());
        match kind {
            OUTPUT => {
                let data = rest.get(..DATA_MAX).unwrap_or_default();
                let size = rest.get(DATA_MAX..).unwrap_or_default();
                let size = size.first_chunk().map_or(0, |size| usize::from(u16::from_ne_bytes(*size)));
                let report = data.get(..size).unwrap_or_default();
                // Without report numbers, hidraw(4) still wants a 0 in front.
                Ok(Some(if size == 65 { report[1..].to_vec() } else { report.to_vec() }))
            }
            // Nobody needs these of a security key; but who asks waits for an answer.
            GET_REPORT => self.refuse(GET_REPORT_REPLY, number(rest).0).map(|()| None),
            SET_REPORT => self.refuse(SET_REPORT_REPLY, number(rest).0).map(|()| None),
            _ => Ok(None),
        }
    }

    /// An input report.
    pub(super) fn write(&self, report: &[u8]) -> io::Result<()> {
        let size = u16::try_from(report.len()).map_err(io::Error::other)?;
        let event = [&INPUT2.to_ne_bytes(), size.to_ne_bytes().as_slice(), report].concat();
        (&self.file).write_all(&event)
    }

    /// The device is gone when this returns; whoever has it open reads an error.
    pub(super) fn destroy(&self) -> io::Result<()> {
        (&self.file).write_all(&DESTROY.to_ne_bytes())
    }

    fn refuse(&self, reply: u32, id: u32) -> io::Result<()> {
        let event = [&reply.to_ne_bytes(), id.to_ne_bytes().as_slice(), &EIO.to_ne_bytes(), &[0; 2]].concat();
        (&self.file).write_all(&event)
    }
}

fn number(bytes: &[u8]) -> (u32, &[u8]) {
    bytes.split_first_chunk().map_or((0, &[]), |(number, rest)| (u32::from_ne_bytes(*number), rest))
}

/// A text in its field, with a zero at the end.
fn text<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [0; N];
    let length = text.len().min(N - 1);
    field[..length].copy_from_slice(&text.as_bytes()[..length]);
    field
}
