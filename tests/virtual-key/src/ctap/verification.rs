//! User verification, as authenticatorMakeCredential and authenticatorGetAssertion have it in common (CTAP 2.1, 6.1.2 and
//! 6.2.2).

use super::{
    Authenticator, Status,
    cbor::{Fields, required},
    pin_protocol::Protocol,
};
use crate::{builder::Version, live::Turn};

/// Permissions of tokens (CTAP 2.1, 6.5.5.7).
pub(super) const MAKE_CREDENTIAL: i64 = 0x01;
pub(super) const GET_ASSERTION: i64 = 0x02;

/// What a request says about user verification.
pub(super) struct Asked {
    pub(super) rk: Option<bool>,
    pub(super) up: Option<bool>,
    /// The option, and what is left of it next to a `pinUvAuthParam`.
    pub(super) uv: bool,
    param: Option<Vec<u8>>,
    protocol: Option<i64>,
}

/// How the user is to be verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verified {
    /// Not at all.
    No,
    /// By a PIN's token.
    ByToken(Protocol),
    /// By the touch.
    BuiltIn,
}

impl Asked {
    /// From the keys that the command has for options, `pinUvAuthParam` and `pinUvAuthProtocol`.
    pub(super) fn of(fields: &Fields, options: i64, param: i64, protocol: i64) -> Result<Self, Status> {
        let param = fields.bytes(param)?;
        let protocol = fields.number(protocol)?;
        let options = fields.map(options)?;
        let option = |name: &str| options.as_ref().map_or(Ok(None), |options| options.flag(name));
        let uv = option("uv")?.unwrap_or(false) && param.is_none();
        Ok(Self { rk: option("rk")?, up: option("up")?, uv, param, protocol })
    }

    pub(super) const fn has_param(&self) -> bool {
        self.param.is_some()
    }

    pub(super) const fn protocol(&self) -> Option<i64> {
        self.protocol
    }
}

impl Authenticator {
    /// Steps 1 and 2, and the options: what a client may not ask of this key.
    pub(super) fn check(&self, turn: Turn, asked: &Asked) -> Result<(), Status> {
        if let Some(param) = &asked.param {
            // How clients of old let the person choose among keys.
            if param.is_empty() && self.has_client_pin() {
                self.live.presence(turn)?;
                return Err(if self.store().has_pin() { Status::PIN_INVALID } else { Status::PIN_NOT_SET });
            }
            self.supported(required(asked.protocol)?)?;
        }
        if asked.uv && !self.settings.uv {
            return Err(Status::INVALID_OPTION);
        }
        Ok(())
    }

    /// # Errors
    /// A PIN/UV auth protocol that this key does not speak.
    pub(super) fn supported(&self, number: i64) -> Result<Protocol, Status> {
        let protocol = Protocol::of(number).filter(|protocol| self.settings.pin_protocols.contains(protocol));
        protocol.ok_or(Status::INVALID_PARAMETER)
    }

    /// Whether a PIN or a finger protects it.
    pub(super) fn is_protected(&self) -> bool {
        self.settings.uv || self.store().has_pin()
    }

    /// How the user is verified for this request; the token is looked at here, a finger only later.
    pub(super) fn verify(
        &self,
        asked: &Asked,
        rp: &str,
        client_data_hash: &[u8],
        permission: i64,
    ) -> Result<Verified, Status> {
        let Some(param) = &asked.param else {
            return Ok(if asked.uv { Verified::BuiltIn } else { Verified::No });
        };
        let protocol = self.supported(required(asked.protocol)?)?;
        let mut store = self.store();
        // The specification would ignore the parameter of an unprotected key; keys say that they have no PIN.
        if !store.has_pin() && !self.settings.uv {
            return Err(Status::PIN_NOT_SET);
        }
        let agreement = store.agreement(protocol);
        let token = agreement.token;
        let grant = agreement.grant.as_mut().ok_or(Status::PIN_AUTH_INVALID)?;
        let of_rp = grant.rp.as_ref().is_none_or(|granted| granted == rp);
        let granted = grant.permissions & permission != 0 && of_rp;
        if !granted || !protocol.verifies(&token, client_data_hash, param) {
            return Err(Status::PIN_AUTH_INVALID);
        }
        // The first to use it (CTAP 2.1, 6.1.2, step 11). CTAP 2.0's tokens are for everybody.
        if self.settings.version == Version::Ctap21 && grant.rp.is_none() {
            grant.rp = Some(rp.to_owned());
        }
        Ok(Verified::ByToken(protocol))
    }

    /// alwaysUv: a request without user verification becomes one with (CTAP 2.1, 6.1.2, step 6; 6.2.2, step 5).
    pub(super) fn always(&self, asked: &mut Asked) -> Result<(), Status> {
        if !self.settings.always_uv || asked.has_param() || asked.uv {
            return Ok(());
        }
        if self.settings.uv {
            asked.uv = true;
            return Ok(());
        }
        Err(if self.settings.client_pin { Status::PUAT_REQUIRED } else { Status::OPERATION_DENIED })
    }

    /// `clearPinUvAuthTokenPermissionsExceptLbw`, after a touch: one token, one signature. CTAP 2.0's tokens live on.
    pub(super) fn spend(&self, verified: Verified) {
        if let (Verified::ByToken(protocol), Version::Ctap21) = (verified, self.settings.version) {
            let mut store = self.store();
            if let Some(grant) = store.agreement(protocol).grant.as_mut() {
                grant.permissions = 0;
            }
        }
    }
}
