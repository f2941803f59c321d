//! What a key was asked.

use crate::ctap::Status;

/// What is asked of a key: CTAPHID's own commands (CTAP 2.1, 11.2.9) and those of the authenticator API (6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// `CTAPHID_INIT`
    Init,
    /// `CTAPHID_PING`
    Ping,
    /// `CTAPHID_WINK`
    Wink,
    /// `CTAPHID_CANCEL`, also one that came when nothing was to cancel
    Cancel,
    /// `authenticatorMakeCredential` (0x01)
    MakeCredential,
    /// `authenticatorGetAssertion` (0x02)
    GetAssertion,
    /// `authenticatorGetInfo` (0x04)
    GetInfo,
    /// `authenticatorClientPIN` (0x06)
    ClientPin,
    /// `authenticatorGetNextAssertion` (0x08)
    GetNextAssertion,
    /// `authenticatorSelection` (0x0b)
    Selection,
    /// One that this key does not know
    Unknown(u8),
}

impl Command {
    /// By the first byte of a `CTAPHID_CBOR` message.
    pub(crate) const fn of(byte: u8) -> Self {
        match byte {
            0x01 => Self::MakeCredential,
            0x02 => Self::GetAssertion,
            0x04 => Self::GetInfo,
            0x06 => Self::ClientPin,
            0x08 => Self::GetNextAssertion,
            0x0b => Self::Selection,
            other => Self::Unknown(other),
        }
    }
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Request {
    /// Which one.
    pub command: Command,
    /// The relying party's id, or for clientPIN the permissions' one.
    pub rp: Option<String>,
    /// Whether user presence is asked for (option `up`, true where it is not given).
    pub up: bool,
    /// The option `uv`.
    pub uv: bool,
    /// The option `rk`.
    pub rk: bool,
    /// Whether a `pinUvAuthParam` came along.
    pub pin: bool,
    /// `pinUvAuthProtocol`
    pub pin_protocol: Option<i64>,
    /// clientPIN's `subCommand`
    pub sub_command: Option<i64>,
    /// How many credentials the allow list names.
    pub allow_list: usize,
    /// How many credentials the exclude list names.
    pub exclude_list: usize,
    /// COSE's numbers, in the order of preference.
    pub algorithms: Vec<i64>,
    /// Names of extensions.
    pub extensions: Vec<String>,
    /// `clientDataHash`
    pub client_data_hash: Option<Vec<u8>>,
    /// Whether it ended by `CTAPHID_CANCEL`.
    pub cancelled: bool,
    /// The answer's status: none as long as there is no answer, and where none was sent.
    pub status: Option<Status>,
}

impl Request {
    pub(crate) const fn new(command: Command) -> Self {
        Self {
            command,
            rp: None,
            up: false,
            uv: false,
            rk: false,
            pin: false,
            pin_protocol: None,
            sub_command: None,
            allow_list: 0,
            exclude_list: 0,
            algorithms: Vec::new(),
            extensions: Vec::new(),
            client_data_hash: None,
            cancelled: false,
            status: None,
        }
    }
}
