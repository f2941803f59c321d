//! Names of hosts: what may be shown to a person and compared with a policy.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use serde::{Deserialize, Serialize};

/// A DNS name in ASCII: lower case, no final dot, labels of letters, digits, `-` and `_`; never an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// Not a name of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a name of a host")]
pub struct NotAName;

impl Name {
    /// Longest name in text form, without the final dot (RFC 1035 §2.3.4).
    pub const MAX: usize = 253;
    const LABEL_MAX: usize = 63;

    /// Takes any case and one final dot.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.strip_suffix(b".").unwrap_or(bytes);
        if bytes.is_empty() || bytes.len() > Self::MAX {
            return None;
        }
        let good = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let label = |label: &[u8]| (1..=Self::LABEL_MAX).contains(&label.len()) && label.iter().all(good);
        let mut labels = bytes.split(|&byte| byte == b'.');
        // What ends in a number is taken for an address by browsers and inet_aton(3): 127.1, 0x7f000001.
        if !bytes.split(|&byte| byte == b'.').all(label) || labels.next_back().is_none_or(numeric) {
            return None;
        }
        String::from_utf8(bytes.to_ascii_lowercase()).ok().map(Self)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn numeric(label: &[u8]) -> bool {
    let hexadecimal = label.strip_prefix(b"0x").or_else(|| label.strip_prefix(b"0X"));
    label.iter().all(u8::is_ascii_digit)
        || hexadecimal.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
}

impl TryFrom<String> for Name {
    type Error = NotAName;

    /// Accepts only what [`Name::parse`] gives.
    fn try_from(text: String) -> Result<Self, NotAName> {
        Self::parse(text.as_bytes()).filter(|name| name.0 == text).ok_or(NotAName)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::ops::Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What stands where a host belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host {
    Name(Name),
    Address(IpAddr),
    /// Neither; nothing that may be shown.
    Neither,
}

impl Host {
    /// An IPv6 address stands in brackets.
    pub(super) fn parse(bytes: &[u8]) -> Self {
        if let Some(name) = Name::parse(bytes) {
            return Self::Name(name);
        }
        let Ok(text) = std::str::from_utf8(bytes) else { return Self::Neither };
        let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let address = match inner {
            Some(inner) => inner.parse::<Ipv6Addr>().map(IpAddr::V6),
            None => text.parse::<Ipv4Addr>().map(IpAddr::V4),
        };
        address.map_or(Self::Neither, Self::Address)
    }
}

/// Splits `host[:port]`. `None`: the port is no port.
pub(super) fn authority(bytes: &[u8]) -> Option<(Host, Option<u16>)> {
    let after_address = bytes.iter().rposition(|&byte| byte == b']').map_or(0, |at| at + 1);
    let Some(colon) = bytes.iter().skip(after_address).position(|&byte| byte == b':') else {
        return Some((Host::parse(bytes), None));
    };
    let (host, port) = bytes.split_at(after_address + colon);
    let digits = port.get(1..).unwrap_or_default();
    if digits.is_empty() {
        return Some((Host::parse(host), None));
    }
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some((Host::parse(host), Some(std::str::from_utf8(digits).ok()?.parse().ok()?)))
}
