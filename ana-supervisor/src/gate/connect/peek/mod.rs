//! What a connection shows of where it wants to go, told from its first bytes; and what a DNS answer says.
//!
//! Pure: no IO, no clock. Takes bytes that an agent chose; gives values with nothing in them but what was checked.

mod dns;
mod http;
mod name;
mod tls;

#[cfg(test)]
pub(super) mod tests;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use self::{
    dns::{Answer, DnsError, QueryKind, dns_answer, dns_query},
    name::Name,
};

/// How many bytes are looked at, at most: what says nothing by then is garbage.
pub const LOOK_MAX: usize = 64 << 10;
/// The most protocols of an ALPN extension that are told.
pub(super) const ALPN_MAX: usize = 16;

/// What the first bytes show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// The host's name: lower case, without the final dot. `None`: none was shown, or something that is no name.
    pub name: Option<Name>,
    /// Where `name` or `address` was found.
    pub source: Option<NameSource>,
    /// The address that stands where a name was expected, as in `CONNECT 192.0.2.1:443`.
    pub address: Option<IpAddr>,
    /// A ClientHello was seen.
    pub tls: bool,
    /// The ClientHello's protocols in its order, the first 16; what is not printable ASCII is escaped.
    pub alpn: Vec<String>,
    /// The ClientHello has an encrypted one in it (ECH, outer form), or pretends to (GREASE): `name` may not be the one
    /// that counts.
    pub encrypted: bool,
    pub protocol: Protocol,
    /// The port that is written after the host: of CONNECT, of an absolute URI, of a Host header.
    pub target_port: Option<u16>,
    /// The request names its host in its first line (`GET http://…`): the connection is to a proxy.
    pub absolute: bool,
    /// How many bytes the head of an HTTP/1 request has, with the empty lines before it; else 0.
    pub head: usize,
    /// How many bytes of that request follow its head. `None`: where it ends cannot be known, or servers differ in it.
    pub body: Option<u64>,
}

impl Shown {
    /// Nothing but the protocol is known.
    pub fn only(protocol: Protocol) -> Self {
        Self {
            name: None,
            source: None,
            address: None,
            tls: false,
            alpn: Vec::new(),
            encrypted: false,
            protocol,
            target_port: None,
            absolute: false,
            head: 0,
            body: Some(0),
        }
    }
}

/// What the bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// A whole ClientHello.
    Tls,
    /// A whole head of an HTTP/1 request, other than CONNECT.
    Http,
    /// A whole head of an HTTP/1 CONNECT request.
    Connect,
    /// Neither TLS nor HTTP/1. HTTP/2 without TLS is among them: it shows no name.
    Other,
    /// The client said nothing: the server speaks first, or nobody does.
    Silent,
    /// It began like TLS or HTTP/1, and then was broken, ambiguous or longer than [`LOOK_MAX`]; or it is a request to a
    /// proxy whose end cannot be known, behind which the next one would hide.
    Garbage,
}

/// Where a name was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NameSource {
    /// The server_name extension of a ClientHello.
    Sni,
    /// An HTTP request's Host header or absolute URI.
    Host,
    /// The authority of an HTTP CONNECT request.
    Connect,
}

/// What is known so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peek {
    /// More bytes have to come first.
    More,
    Done(Shown),
}

/// Looks at the first bytes of a connection. `end`: no more will come.
///
/// However they are cut: what is `Done` for some first bytes is the same for more of them, and `More` is never said at
/// the end nor for [`LOOK_MAX`] bytes.
pub fn look(bytes: &[u8], end: bool) -> Peek {
    let seen = bytes.get(..LOOK_MAX).unwrap_or(bytes);
    let last = end || seen.len() == LOOK_MAX;
    let Some(&first) = seen.first() else {
        return if last { Peek::Done(Shown::only(Protocol::Silent)) } else { Peek::More };
    };
    let found = if first == tls::HANDSHAKE { tls::look(seen) } else { http::look(seen) };
    match found {
        Peek::More if last => Peek::Done(Shown::only(Protocol::Garbage)),
        Peek::More | Peek::Done(_) => found,
    }
}
