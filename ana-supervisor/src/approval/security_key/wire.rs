//! The words on the pipe to `ana-key`. Frames as on our other sockets: four bytes of length (big endian), then JSON.
//! Byte strings are base64url without padding.

use std::{
    io::{self, ErrorKind, Read, Write},
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use crate::operation::Bytes;

/// The longest message, either way. An assertion has at most 7,609 bytes (CTAP 2.1, 11.2.4), a list of passkeys 256 ids of
/// 1,023 bytes.
pub const MESSAGE_MAX: usize = 512 << 10;

/// What `ana-key` is told. One `Make` or `Assert` at a time.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Order {
    /// Which keys are plugged in? Answered by `Keys`.
    List,
    /// A new credential. Answered by `Made` or `Failed`.
    Make(Make),
    /// A signature. Answered by `Signed` or `Failed`.
    Assert(Assert),
    /// The PIN that was asked for.
    Pin(Pin),
    /// No more of what is going on. Answered by `Failed(Cancelled)`.
    Cancel,
}

/// authenticatorMakeCredential (CTAP 2.1, 6.1).
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Make {
    pub rp_id: String,
    /// The person's name, as the key may show it.
    pub user: String,
    /// 1 to 64 bytes that name nobody.
    pub user_id: String,
    /// clientDataJSON.
    pub client_data: String,
    /// The credentials of which the key may hold none.
    pub exclude: Vec<String>,
    /// A discoverable credential, which takes one of the key's few places.
    pub resident: bool,
    /// The key has to verify the person.
    pub verify: bool,
    /// It is given up after so many milliseconds, whatever becomes of whoever asked.
    pub limit_ms: u64,
}

/// authenticatorGetAssertion (CTAP 2.1, 6.2).
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assert {
    pub rp_id: String,
    /// clientDataJSON.
    pub client_data: String,
    /// The credentials that may answer.
    pub allowed: Vec<String>,
    /// The key has to verify the person.
    pub verify: bool,
    /// It is given up after so many milliseconds, whatever becomes of whoever asked.
    pub limit_ms: u64,
}

/// A PIN. It is wiped when dropped, and never printed.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pin(pub Zeroizing<String>);

impl std::fmt::Debug for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pin(..)")
    }
}

/// What `ana-key` says. What it knows of a key's name is the key's own word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum News {
    Keys(Vec<Plugged>),
    /// No key is plugged in (any more); it goes on when there is one.
    Insert,
    /// These are plugged in, and hold none of the passkeys in question; it goes on when another one is plugged in.
    Others {
        keys: Vec<String>,
    },
    /// These are plugged in and cannot be used; it goes on when that changes.
    Unusable {
        keys: Vec<String>,
        why: String,
    },
    /// Several are plugged in, and all of them blink: the one that is touched is meant.
    Choose {
        keys: Vec<String>,
    },
    /// The key wants its PIN. Answered by `Pin`.
    Pin {
        key: String,
        retries: Option<u32>,
        wrong: bool,
    },
    /// The key has no PIN and is to have one. Answered by `Pin`.
    NewPin {
        key: String,
        length_min: u32,
    },
    /// The key does not take a PIN before it was unplugged; it goes on when it was.
    Locked {
        key: String,
    },
    /// It blinks.
    Touch {
        key: String,
        finger: bool,
    },
    Made(Box<Made>),
    Signed(Box<Signed>),
    /// The end of what was ordered.
    Failed(Fault),
}

/// A key that is plugged in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plugged {
    pub name: String,
    /// Its device file.
    pub path: String,
    /// Why it cannot be opened.
    pub problem: Option<String>,
}

/// A new credential, unchecked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    pub key: String,
    /// With the attested credential data.
    pub authenticator_data: String,
    pub attestation: Attestation,
    pub transports: Vec<String>,
}

/// What a key says of its own making (WebAuthn, 6.5): kept for those who know the makers' certificates, not judged here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attestation {
    pub format: String,
    /// COSE; 0 where there is none.
    pub algorithm: i32,
    pub signature: String,
    /// DER.
    pub certificates: Vec<String>,
}

/// An assertion, unchecked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    pub key: String,
    pub credential_id: String,
    pub authenticator_data: String,
    pub signature: String,
}

/// Why there is no credential or assertion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Fault {
    #[error("taken back")]
    Cancelled,
    #[error("not touched in time")]
    Late,
    #[error("the key wants its PIN, and there is no terminal to type it at; run this in one")]
    NoTerminal,
    #[error("denied at the key {key}")]
    Denied { key: String },
    #[error("the key {key} holds a passkey of this host already")]
    Excluded { key: String },
    #[error(
        "the PIN of {key} is blocked after too many wrong ones: the key has to be reset, which deletes what is on it; \
         approve with another passkey"
    )]
    PinBlocked { key: String },
    #[error(
        "the rule asks for a PIN, and {key} has none: enroll it again with `sudo ana passkey enroll --verify pin`"
    )]
    PinNotSet { key: String },
    #[error("the rule asks for a PIN, and {key} knows none; use another key")]
    CannotVerify { key: String },
    #[error("the key {key} does not accept this PIN: it is too short or too simple")]
    PinPolicy { key: String },
    #[error("the key {key} has no room for another resident credential")]
    Full { key: String },
    #[error("the key {key} refused (CTAP status {status:#04x})")]
    Ctap { key: String, status: u8 },
    #[error("the key {key} said something that makes no sense: {why}")]
    Garbled { key: String, why: String },
    #[error("the key {key} does not answer")]
    Silent { key: String },
    #[error("ana-key failed: {why}")]
    Other { why: String },
}

impl Fault {
    /// With nothing in it that a terminal would obey: what `ana-key` says is worth no more than what a key says.
    #[must_use]
    pub fn escaped(self) -> Self {
        let plain = |text: String| Bytes::from(text.as_str()).escaped();
        match self {
            Self::Cancelled | Self::Late | Self::NoTerminal => self,
            Self::Denied { key } => Self::Denied { key: plain(key) },
            Self::Excluded { key } => Self::Excluded { key: plain(key) },
            Self::PinBlocked { key } => Self::PinBlocked { key: plain(key) },
            Self::PinNotSet { key } => Self::PinNotSet { key: plain(key) },
            Self::CannotVerify { key } => Self::CannotVerify { key: plain(key) },
            Self::PinPolicy { key } => Self::PinPolicy { key: plain(key) },
            Self::Full { key } => Self::Full { key: plain(key) },
            Self::Ctap { key, status } => Self::Ctap { key: plain(key), status },
            Self::Garbled { key, why } => Self::Garbled { key: plain(key), why: plain(why) },
            Self::Silent { key } => Self::Silent { key: plain(key) },
            Self::Other { why } => Self::Other { why: plain(why) },
        }
    }
}

/// Writes one message. Its bytes are wiped.
///
/// # Errors
/// It is too long, or the pipe is closed.
pub fn send(mut to: impl Write, message: &impl Serialize) -> io::Result<()> {
    // Room for all of it at once: a growing buffer would leave copies of a PIN behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MESSAGE_MAX + 4));
    bytes.extend([0; 4]);
    serde_json::to_writer(&mut *bytes, message)?;
    let length = bytes.len() - 4;
    if length > MESSAGE_MAX {
        return Err(too_long(length));
    }
    bytes[..4].copy_from_slice(&u32::try_from(length).map_err(io::Error::other)?.to_be_bytes());
    to.write_all(&bytes)
}

/// Waits for one message; `None` at the end. Its bytes are wiped.
///
/// # Errors
/// It is too long, or none of these words.
pub fn receive<T: DeserializeOwned>(mut from: impl Read) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = usize::try_from(u32::from_be_bytes(length)).map_err(io::Error::other)?;
    if length > MESSAGE_MAX {
        return Err(too_long(length));
    }
    let mut bytes = Zeroizing::new(vec![0; length]);
    from.read_exact(&mut bytes)?;
    serde_json::from_slice(&bytes).map(Some).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
}

/// What came of messages so far. It never waits for the rest of one.
#[derive(Debug, Default)]
pub struct Inbox {
    bytes: Vec<u8>,
}

impl Inbox {
    /// The messages that are whole after one read, which does not block where poll(2) said that there is something.
    ///
    /// # Errors
    /// UnexpectedEof at the end; one is too long, or none of these words.
    pub fn take<T: DeserializeOwned>(&mut self, mut from: impl Read) -> io::Result<Vec<T>> {
        let mut buffer = [0; 16 << 10];
        let length = from.read(&mut buffer)?;
        self.bytes.extend(&buffer[..length]);
        let mut messages = Vec::new();
        while let Some(prefix) = self.bytes.first_chunk::<4>() {
            let body = usize::try_from(u32::from_be_bytes(*prefix)).map_err(io::Error::other)?;
            if body > MESSAGE_MAX {
                return Err(too_long(body));
            }
            let Some(whole) = self.bytes.get(..4 + body) else { break };
            messages.push(receive(whole)?.ok_or(ErrorKind::InvalidData)?);
            self.bytes.drain(..4 + body);
        }
        if length == 0 && messages.is_empty() { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(messages) }
    }
}

/// As the orders have it.
pub fn milliseconds(limit: Duration) -> u64 {
    u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)
}

fn too_long(length: usize) -> io::Error {
    io::Error::new(
        ErrorKind::InvalidData,
        format!("a message of {length} bytes (the limit is {MESSAGE_MAX})"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_anywhere_arrives_all_the_same() {
        let news = [News::Insert, News::Others { keys: vec!["a".to_owned()] }];
        let mut bytes = Vec::new();
        news.iter().for_each(|news| send(&mut bytes, news).unwrap());
        for cut in 1..bytes.len() {
            let mut inbox = Inbox::default();
            let mut seen: Vec<News> = inbox.take(&bytes[..cut]).unwrap();
            seen.extend(inbox.take(&bytes[cut..]).unwrap());
            assert_eq!(seen, news);
            assert_eq!(inbox.take::<News>(&[][..]).unwrap_err().kind(), ErrorKind::UnexpectedEof);
        }
        assert!(Inbox::default().take::<News>(&[0xff; 8][..]).is_err());
        assert!(Inbox::default().take::<News>(&[0, 0, 0, 2, b'{', b'"'][..]).is_err());
    }

    #[test]
    fn a_fault_is_text() {
        let fault = Fault::Garbled { key: "\x1b[2Jkey".to_owned(), why: "\u{9b}31m".to_owned() };
        let text = fault.escaped().to_string();
        assert!(text.contains("[2Jkey") && text.chars().all(|c| matches!(c, ' '..='~')), "{text:?}");
        assert_eq!(Fault::Late.escaped(), Fault::Late);
    }

    #[test]
    fn messages_arrive_and_too_long_ones_do_not() {
        let mut pipe = Vec::new();
        send(&mut pipe, &Order::Pin(Pin(Zeroizing::new("12\"34".to_owned())))).unwrap();
        send(&mut pipe, &Order::Cancel).unwrap();
        let mut from = pipe.as_slice();
        let Some(Order::Pin(pin)) = receive(&mut from).unwrap() else { panic!() };
        assert_eq!(pin.0.as_str(), "12\"34");
        assert_eq!(format!("{pin:?}"), "Pin(..)");
        assert!(matches!(receive(&mut from).unwrap(), Some(Order::Cancel)));
        assert!(receive::<Order>(&mut from).unwrap().is_none());
        assert!(receive::<Order>(&mut [0xff; 8].as_slice()).is_err());
        assert!(receive::<Order>(&mut [0, 0, 0, 2, b'{', b'"'].as_slice()).is_err());
        assert!(receive::<Order>(&mut [0, 0, 0, 9, b'{'].as_slice()).is_err());
        let long = Assert {
            rp_id: "x".repeat(MESSAGE_MAX),
            client_data: String::new(),
            allowed: vec![],
            verify: false,
            limit_ms: 1,
        };
        assert!(send(Vec::new(), &Order::Assert(long)).is_err());
    }
}
