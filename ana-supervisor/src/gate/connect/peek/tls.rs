//! TLS: the ClientHello (RFC 8446 §4.1.2), put together from its records.

use super::{ALPN_MAX, LOOK_MAX, NameSource, Peek, Protocol, Shown, name::Host};

/// The content type of a handshake record: the first byte of every TLS connection.
pub(super) const HANDSHAKE: u8 = 0x16;
/// The most that a record may hold (RFC 8446 §5.1).
const RECORD_MAX: usize = 1 << 14;
const CLIENT_HELLO: u8 = 1;
/// Type and length of a handshake message.
const HEAD: usize = 4;

const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
const ALPN: u16 = 16;
/// encrypted_client_hello (RFC 9849).
const ECH: u16 = 0xfe0d;
/// encrypted_server_name, its draft of 2018.
const ESNI: u16 = 0xffce;

/// The bytes begin with a handshake record, or look like it.
pub(super) fn look(bytes: &[u8]) -> Peek {
    match hello(bytes) {
        Found::More => Peek::More,
        Found::Not => Peek::Done(Shown::only(Protocol::Other)),
        Found::Broken => garbage(),
        Found::Hello(hello) => read(&hello).map_or_else(garbage, Peek::Done),
    }
}

fn garbage() -> Peek {
    Peek::Done(Shown::only(Protocol::Garbage))
}

enum Found {
    More,
    /// Not TLS at all.
    Not,
    Broken,
    /// The body of the ClientHello.
    Hello(Vec<u8>),
}

/// Puts the first handshake message together, once it is whole: until then nothing is copied. What stands behind it is not
/// looked at.
fn hello(bytes: &[u8]) -> Found {
    // The message's first bytes, wherever the records cut them, and how many of it have come.
    let (mut start, mut got) = (Vec::with_capacity(HEAD), 0);
    let mut rest = bytes;
    loop {
        let first = rest.len() == bytes.len();
        let wrong = if first { Found::Not } else { Found::Broken };
        // Each byte is judged as soon as it is there, so that nothing waits for more of what cannot be.
        let good: [fn(u8) -> bool; 3] = [|kind| kind == HANDSHAKE, |major| major == 3, |minor| minor <= 4];
        if rest.iter().zip(good).any(|(&byte, good)| !good(byte)) {
            return wrong;
        }
        let Some((length, after)) = record(rest) else { return Found::More };
        if !(1..=RECORD_MAX).contains(&length) {
            return Found::Broken;
        }
        let part = after.get(..length).unwrap_or(after);
        start.extend(part.iter().take(HEAD - start.len()));
        got += part.len();
        match body(&start) {
            Body::Broken => return Found::Broken,
            Body::Has(body) if got >= HEAD + body => return Found::Hello(assemble(bytes, body)),
            Body::Unknown | Body::Has(_) => {}
        }
        let Some(next) = after.get(length..) else { return Found::More };
        rest = next;
    }
}

/// The length in a record's head, and what follows that; `None`: the head is not whole.
fn record(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (&[_, _, _, high, low], after) = bytes.split_first_chunk::<5>()?;
    Some((usize::from(u16::from_be_bytes([high, low])), after))
}

/// How long the message's body is, by its first bytes.
enum Body {
    Unknown,
    Broken,
    Has(usize),
}

fn body(start: &[u8]) -> Body {
    if start.first().is_some_and(|&kind| kind != CLIENT_HELLO) {
        return Body::Broken;
    }
    let Some(&[_, high, middle, low]) = start.first_chunk::<HEAD>() else { return Body::Unknown };
    let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
    if length > LOOK_MAX { Body::Broken } else { Body::Has(length) }
}

/// The body of a message of which every byte is there.
fn assemble(mut bytes: &[u8], body: usize) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEAD + body);
    while let Some((length, after)) = record(bytes)
        && message.len() < HEAD + body
    {
        let (part, next) = after.split_at(length.min(after.len()));
        message.extend_from_slice(part);
        bytes = next;
    }
    message.truncate(HEAD + body);
    message.split_off(HEAD.min(message.len()))
}

/// Takes values from the front; `None` once there are too few bytes.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.first_chunk().copied().map(u16::from_be_bytes)
    }

    /// What stands behind a length of one byte.
    fn short(&mut self) -> Option<&'a [u8]> {
        let length = self.u8()?;
        self.take(length.into())
    }

    /// What stands behind a length of two bytes.
    fn long(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(length.into())
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// `None`: it is malformed, or says something twice.
fn read(body: &[u8]) -> Option<Shown> {
    let mut shown = Shown { tls: true, ..Shown::only(Protocol::Tls) };
    let mut reader = Reader(body);
    let _version_and_random = reader.take(2 + 32)?;
    let _session = reader.short()?;
    let _suites = reader.long()?;
    let _compression = reader.short()?;
    if reader.is_empty() {
        return Some(shown);
    }
    let mut extensions = Reader(reader.long()?);
    if !reader.is_empty() {
        return None;
    }
    let mut seen = Vec::new();
    while !extensions.is_empty() {
        let kind = extensions.u16()?;
        let data = extensions.long()?;
        if seen.contains(&kind) {
            return None;
        }
        match kind {
            SERVER_NAME => server_name(data, &mut shown)?,
            ALPN => shown.alpn = protocols(data)?,
            ECH | ESNI => shown.encrypted = true,
            // Repeated or not, it does not matter here.
            _ => continue,
        }
        seen.push(kind);
    }
    Some(shown)
}

/// RFC 6066 §3: a list, of which one entry may be a host's name.
fn server_name(data: &[u8], shown: &mut Shown) -> Option<()> {
    let mut reader = Reader(data);
    let mut list = Reader(reader.long()?);
    if !reader.is_empty() || list.is_empty() {
        return None;
    }
    let mut seen = false;
    while !list.is_empty() {
        let kind = list.u8()?;
        let value = list.long()?;
        if kind != HOST_NAME {
            continue;
        }
        if std::mem::replace(&mut seen, true) {
            return None;
        }
        match Host::parse(value) {
            Host::Name(name) => shown.name = Some(name),
            Host::Address(address) => shown.address = Some(address),
            Host::Neither => continue,
        }
        shown.source = Some(NameSource::Sni);
    }
    Some(())
}

/// RFC 7301 §3.1.
fn protocols(data: &[u8]) -> Option<Vec<String>> {
    let mut reader = Reader(data);
    let mut list = Reader(reader.long()?);
    if !reader.is_empty() {
        return None;
    }
    let mut protocols = Vec::new();
    while !list.is_empty() {
        let protocol = list.short()?;
        if protocols.len() < ALPN_MAX {
            protocols.push(protocol.escape_ascii().to_string());
        }
    }
    Some(protocols)
}
