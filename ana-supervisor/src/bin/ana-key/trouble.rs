//! What can go wrong with a request to a key. The library tells it in prose.

use std::any::Any;

/// The longest piece of prose that is passed on, in characters.
const TEXT_MAX: usize = 200;

/// CTAP 2.1, 8.2.
pub(crate) mod status {
    pub(crate) const CHANNEL_BUSY: u8 = 0x06;
    pub(crate) const CREDENTIAL_EXCLUDED: u8 = 0x19;
    pub(crate) const OPERATION_DENIED: u8 = 0x27;
    pub(crate) const KEY_STORE_FULL: u8 = 0x28;
    pub(crate) const KEEPALIVE_CANCEL: u8 = 0x2d;
    pub(crate) const NO_CREDENTIALS: u8 = 0x2e;
    pub(crate) const USER_ACTION_TIMEOUT: u8 = 0x2f;
    pub(crate) const PIN_INVALID: u8 = 0x31;
    pub(crate) const PIN_BLOCKED: u8 = 0x32;
    pub(crate) const PIN_AUTH_BLOCKED: u8 = 0x34;
    pub(crate) const PIN_NOT_SET: u8 = 0x35;
    pub(crate) const PIN_REQUIRED: u8 = 0x36;
    pub(crate) const PIN_POLICY_VIOLATION: u8 = 0x37;
    pub(crate) const ACTION_TIMEOUT: u8 = 0x3a;
    pub(crate) const UV_BLOCKED: u8 = 0x3c;
    pub(crate) const UV_INVALID: u8 = 0x3f;
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// A CTAP status code.
    Status(u8),
    /// Nothing can be read from it or written to it (any more).
    Gone,
    /// It said something that the library does not understand.
    Garbled(String),
    /// It does not answer.
    Silent,
}

impl Trouble {
    /// What the library's error means. Its texts: "response_status err = 0x27 CTAP2_ERR_…", "read err = 0xFE", "write error".
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        let text = error.to_string();
        if text.contains("read err") || text.contains("read error") || text.contains("write error") {
            return Self::Gone;
        }
        let status = text.split_once("response_status err = 0x").and_then(|(_, rest)| {
            let digits: String = rest.chars().take_while(char::is_ascii_hexdigit).collect();
            u8::from_str_radix(&digits, 16).ok()
        });
        match status {
            Some(status) => Self::Status(status),
            None => Self::Garbled(plain(&text)),
        }
    }

    /// What a panic in the library means.
    pub(crate) fn of_panic(panic: &(dyn Any + Send)) -> Self {
        Self::Garbled(panic_text(panic))
    }
}

/// The words of a panic.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    plain(text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word"))
}

/// Printable ASCII, not too much of it: part of it may be what a key says.
pub(crate) fn plain(text: &str) -> String {
    let printable = |c: char| if matches!(c, ' '..='~') { c } else { '?' };
    text.chars().take(TEXT_MAX).map(printable).collect()
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn prose_becomes_trouble() {
        let of = |text: &'static str| Trouble::of(&anyhow!(text));
        assert_eq!(
            of("response_status err = 0x27 CTAP2_ERR_OPERATION_DENIED  Not authorized"),
            Trouble::Status(0x27)
        );
        assert_eq!(of("response_status err = 0xE0 x"), Trouble::Status(0xe0));
        assert_eq!(of("response_status err = 0x7"), Trouble::Status(7));
        assert_eq!(of("read err = 0xFE"), Trouble::Gone);
        assert_eq!(of("write error"), Trouble::Gone);
        assert_eq!(of("Nonce \x1b[2J\u{e9}"), Trouble::Garbled("Nonce ?[2J?".to_owned()));
        let panic = std::panic::catch_unwind(|| panic!("index {}", 7)).unwrap_err();
        assert_eq!(Trouble::of_panic(&*panic), Trouble::Garbled("index 7".to_owned()));
    }
}
