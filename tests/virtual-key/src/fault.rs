//! How a key misbehaves, to order.

use crate::seen::Command;

/// One misbehaviour: exactly this is wrong with the answers, and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Signs over the hash of another relying party's id.
    WrongRp,
    /// The UP flag is not set, though the person touched.
    NotPresent,
    /// One bit of the signature is another.
    BadSignature,
    /// The answer names a credential that nobody has.
    WrongCredentialId,
    /// The signature counter in the answer is lower by this much; the key's own goes on.
    CounterRollback(u32),
    /// An assertion's answer does not say which credential signed.
    NoCredentialMember,
    /// The authenticator data ends in the middle of the counter; the signature is over what is there.
    ShortAuthenticatorData,
    /// The answer's CBOR ends half-way.
    TruncatedCbor,
    /// Instead of the answer, a map of other things: the same ones for the same seed.
    RandomCbor(u64),
    /// Instead of the answer, an array in an array, and so on, thousands deep.
    DeepNesting,
    /// An assertion's answer claims this `numberOfCredentials`.
    NumberOfCredentials(i64),
    /// The token that a PIN gets is not the one that the key knows.
    WrongPinToken,
    /// At once answers with this CTAP status, and does nothing else.
    StatusByte(u8),
    /// The CTAPHID message claims 200 bytes more than are sent.
    Garbage,
    /// The CTAPHID message claims 0xffff bytes; those of the answer are sent.
    HugeLength,
    /// The answer's first report is cut off after 20 bytes. Some kernels drop such a report.
    ShortReport,
    /// The answer goes to another channel.
    WrongChannel,
    /// The answer has another CTAPHID command (PING).
    WrongCommand,
    /// At once answers with `CTAPHID_ERROR` and this code, and does nothing else.
    ErrorFrame(u8),
    /// No answer at all, no keepalive either.
    Silence,
    /// Keepalives ("touch me") until the key is unplugged, the fault taken back or the channel initialized anew; a
    /// cancel is not heard.
    KeepaliveForever,
    /// `CTAPHID_INIT` is answered with another nonce.
    DifferentNonce,
}

impl Fault {
    /// Only in the answers to one command.
    #[must_use]
    pub const fn on(self, command: Command) -> Misbehaviour {
        Misbehaviour { fault: Some(self), command: Some(command) }
    }

    /// Faults that `CTAPHID_INIT` knows even if nobody names it: a client would not get past it otherwise.
    const fn concerns_init(self) -> bool {
        matches!(self, Self::DifferentNonce | Self::Silence)
    }
}

/// What is wrong, and with the answers to what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misbehaviour {
    fault: Option<Fault>,
    command: Option<Command>,
}

impl Misbehaviour {
    pub(crate) const NONE: Self = Self { fault: None, command: None };

    /// The fault in the answer to `command`, if there is to be one.
    pub(crate) fn concerning(self, command: Command) -> Option<Fault> {
        let asked = match self.command {
            Some(only) => only == command,
            None => command != Command::Init || self.fault.is_some_and(Fault::concerns_init),
        };
        self.fault.filter(|_| asked)
    }
}

impl From<Fault> for Misbehaviour {
    fn from(fault: Fault) -> Self {
        Self { fault: Some(fault), command: None }
    }
}

impl From<Option<Fault>> for Misbehaviour {
    fn from(fault: Option<Fault>) -> Self {
        Self { fault, command: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_concerns_what_was_said() {
        let rp = Misbehaviour::from(Fault::WrongRp);
        assert_eq!(rp.concerning(Command::GetAssertion), Some(Fault::WrongRp));
        assert_eq!(rp.concerning(Command::Init), None);
        let one = Fault::WrongChannel.on(Command::Init);
        assert_eq!(one.concerning(Command::Init), Some(Fault::WrongChannel));
        assert_eq!(one.concerning(Command::GetInfo), None);
        assert_eq!(Misbehaviour::from(Fault::Silence).concerning(Command::Init), Some(Fault::Silence));
        assert_eq!(Misbehaviour::from(None).concerning(Command::GetInfo), None);
    }
}
