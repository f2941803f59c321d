//! What looks like TLS from outside: a ClientHello with a name, records of a length. Nothing is encrypted.

use std::io::{self, Read};

/// Handshake, and application data (RFC 8446, 5.1).
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;

/// A server's first flight with a small chain of certificates, a request, and an answer to it.
pub(crate) const FLIGHT: usize = 2500;
pub(crate) const REQUEST: usize = 300;
pub(crate) const ANSWER: usize = 1000;

/// A whole record of so many bytes.
pub(crate) fn record(length: usize) -> Vec<u8> {
    let mut all = vec![DATA, 3, 3];
    all.extend(u16::try_from(length - 5).expect("a short record").to_be_bytes());
    all.resize(length, 0x5a);
    all
}

/// Reads one record; its length, or nothing at the end of the stream. `length`: so many bytes of it are there already.
pub(crate) fn read(
    stream: &mut impl Read,
    buffer: &mut [u8],
    mut length: usize,
) -> io::Result<Option<usize>> {
    loop {
        if let [_, _, _, high, low, ..] = buffer[..length] {
            let whole = 5 + usize::from(u16::from_be_bytes([high, low]));
            if length >= whole {
                return Ok(Some(whole));
            }
        }
        match stream.read(&mut buffer[length..])? {
            0 => return Ok(None),
            more => length += more,
        }
    }
}

/// A ClientHello (RFC 8446, 4.1.2) of 517 bytes, as browsers pad it.
pub(crate) fn hello(name: &str) -> Vec<u8> {
    let number = |length: usize| u16::try_from(length).expect("short").to_be_bytes();
    let with_length = |bytes: &[u8]| [&number(bytes.len()), bytes].concat();
    let extension = |kind: u16, data: &[u8]| [&kind.to_be_bytes()[..], &with_length(data)].concat();
    let server_name = with_length(&[&[0][..], &with_length(name.as_bytes())].concat());
    let share = with_length(&[&[0, 0x1d][..], &with_length(&[7; 32])].concat());
    let mut extensions = [
        extension(0, &server_name),
        extension(10, &[0, 2, 0, 0x1d]),
        extension(13, &[0, 4, 4, 3, 8, 4]),
        extension(16, b"\0\x0c\x02h2\x08http/1.1"),
        extension(43, &[2, 3, 4]),
        extension(51, &share),
    ]
    .concat();
    let mut body = [3, 3].to_vec();
    body.extend([7; 32]);
    body.push(32);
    body.extend([8; 32]);
    body.extend([0, 4, 0x13, 1, 0x13, 2, 1, 0]);
    // Padding (RFC 7685): the record's, the message's and the two lengths' heads are 15 bytes.
    let padding = 517_usize.saturating_sub(15 + body.len() + extensions.len());
    extensions.extend(extension(21, &vec![0; padding]));
    body.extend(with_length(&extensions));
    let message = [&[1, 0][..], &number(body.len()), &body].concat();
    [&[HANDSHAKE, 3, 1][..], &number(message.len()), &message].concat()
}
