//! Status codes (CTAP 2.1, 8.2).

/// One status byte of an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Status(pub u8);

/// The codes that this key answers with, under their names in the specification (without `CTAP1_ERR_`, `CTAP2_ERR_`).
macro_rules! codes {
    ($($name:ident = $code:literal,)*) => {
        impl Status {
            $(#[doc = concat!("`", stringify!($name), "`")] pub const $name: Self = Self($code);)*

            /// Its name, if this key knows it.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($code => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    OK = 0x00,
    INVALID_COMMAND = 0x01,
    INVALID_PARAMETER = 0x02,
    INVALID_LENGTH = 0x03,
    CBOR_UNEXPECTED_TYPE = 0x11,
    INVALID_CBOR = 0x12,
    MISSING_PARAMETER = 0x14,
    CREDENTIAL_EXCLUDED = 0x19,
    UNSUPPORTED_ALGORITHM = 0x26,
    OPERATION_DENIED = 0x27,
    UNSUPPORTED_OPTION = 0x2b,
    INVALID_OPTION = 0x2c,
    KEEPALIVE_CANCEL = 0x2d,
    NO_CREDENTIALS = 0x2e,
    USER_ACTION_TIMEOUT = 0x2f,
    NOT_ALLOWED = 0x30,
    PIN_INVALID = 0x31,
    PIN_BLOCKED = 0x32,
    PIN_AUTH_INVALID = 0x33,
    PIN_AUTH_BLOCKED = 0x34,
    PIN_NOT_SET = 0x35,
    PUAT_REQUIRED = 0x36,
    PIN_POLICY_VIOLATION = 0x37,
    INVALID_SUBCOMMAND = 0x3e,
    UNAUTHORIZED_PERMISSION = 0x40,
    OTHER = 0x7f,
}

impl std::fmt::Debug for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({:#04x})", self.0),
            None => write!(f, "{:#04x}", self.0),
        }
    }
}
