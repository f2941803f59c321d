//! authenticatorClientPIN (CTAP 2.1, 6.5).

use ciborium::Value;

use super::{
    Answer, Authenticator, Status,
    cbor::{self, Fields, required},
    pin_protocol::{Protocol, SharedSecret, public_key},
    verification::{GET_ASSERTION, MAKE_CREDENTIAL},
};
use crate::{algorithm::random, builder::Version, fault::Fault, live::Turn, store::Grant};

/// CTAP 2.1, 6.5.1.
pub(super) const PIN_CODE_POINTS_MIN: u8 = 4;
/// A PIN on the wire: padded with zeroes to this length.
const PADDED: usize = 64;
/// Built-in user verification never fails here.
const UV_RETRIES: u8 = 3;

impl Authenticator {
    pub(super) fn client_pin(&self, turn: Turn, parameters: &[u8]) -> Answer {
        let fields = Fields::read(parameters)?;
        let sub_command = required(fields.number(0x02)?)?;
        let rp = fields.text(0x0a)?;
        self.live.describe(turn, |request| {
            request.rp.clone_from(&rp);
            request.sub_command = Some(sub_command);
            request.pin_protocol = fields.number(0x01).unwrap_or(None);
        });
        let newer = self.settings.version == Version::Ctap21;
        match (sub_command, self.settings.client_pin, self.uv_gives_tokens()) {
            (0x01, true, _) => Ok(Some(self.pin_retries())),
            (0x02, _, _) => self.key_agreement(&fields),
            (0x03, true, _) => self.set_pin(&fields),
            (0x04, true, _) => self.change_pin(&fields),
            (0x05, true, _) => self.pin_token(turn, &fields),
            (0x06, _, true) => self.uv_token_with_permissions(turn, &fields, rp),
            (0x07, _, true) => Ok(Some(cbor::map([(0x05, UV_RETRIES)]))),
            (0x09, true, _) if newer => self.pin_token_with_permissions(turn, &fields, rp),
            _ => Err(Status::INVALID_SUBCOMMAND),
        }
    }

    /// getPINRetries
    fn pin_retries(&self) -> Value {
        let store = self.store();
        let mut answer = vec![(0x03, Value::from(store.pin_retries))];
        if store.needs_power_cycle() {
            answer.push((0x04, Value::from(true)));
        }
        cbor::map(answer)
    }

    /// getKeyAgreement
    fn key_agreement(&self, fields: &Fields) -> Answer {
        let protocol = self.protocol(fields)?;
        let key = public_key(&self.store().agreement(protocol).key);
        Ok(Some(cbor::map([(0x01, key)])))
    }

    /// setPIN
    fn set_pin(&self, fields: &Fields) -> Answer {
        let protocol = self.protocol(fields)?;
        let theirs = required(fields.map(0x03)?)?;
        let new_pin_enc = required(fields.bytes(0x05)?)?;
        let param = required(fields.bytes(0x04)?)?;
        let mut store = self.store();
        if store.has_pin() {
            return Err(Status::PIN_AUTH_INVALID);
        }
        let secret = SharedSecret::agree(protocol, &store.agreement(protocol).key, &theirs)?;
        if !secret.verifies(&new_pin_enc, &param) {
            return Err(Status::PIN_AUTH_INVALID);
        }
        store.set_pin(&new_pin(&secret, &new_pin_enc)?);
        Ok(None)
    }

    /// changePIN
    fn change_pin(&self, fields: &Fields) -> Answer {
        let protocol = self.protocol(fields)?;
        let theirs = required(fields.map(0x03)?)?;
        let param = required(fields.bytes(0x04)?)?;
        let new_pin_enc = required(fields.bytes(0x05)?)?;
        let pin_hash_enc = required(fields.bytes(0x06)?)?;
        let mut store = self.store();
        store.may_try_pin()?;
        let secret = SharedSecret::agree(protocol, &store.agreement(protocol).key, &theirs)?;
        if !secret.verifies(&[new_pin_enc.as_slice(), &pin_hash_enc].concat(), &param) {
            return Err(Status::PIN_AUTH_INVALID);
        }
        store.try_pin(protocol, secret.decrypt(&pin_hash_enc))?;
        store.set_pin(&new_pin(&secret, &new_pin_enc)?);
        store.reset_tokens();
        Ok(None)
    }

    /// getPinToken: as CTAP 2.0 has it, for making and using credentials of any relying party.
    fn pin_token(&self, turn: Turn, fields: &Fields) -> Answer {
        if fields.get(0x09).is_some() || fields.get(0x0a).is_some() {
            return Err(Status::INVALID_PARAMETER);
        }
        self.token_for_pin(turn, fields, Grant { permissions: MAKE_CREDENTIAL | GET_ASSERTION, rp: None })
    }

    /// getPinUvAuthTokenUsingPinWithPermissions
    fn pin_token_with_permissions(&self, turn: Turn, fields: &Fields, rp: Option<String>) -> Answer {
        let grant = grant(fields, rp)?;
        self.token_for_pin(turn, fields, grant)
    }

    /// getPinUvAuthTokenUsingUvWithPermissions: the touch verifies.
    fn uv_token_with_permissions(&self, turn: Turn, fields: &Fields, rp: Option<String>) -> Answer {
        let protocol = self.protocol(fields)?;
        let theirs = required(fields.map(0x03)?)?;
        let grant = grant(fields, rp)?;
        let secret = SharedSecret::agree(protocol, &self.store().agreement(protocol).key, &theirs)?;
        self.live.presence(turn)?;
        Ok(Some(self.token(turn, protocol, &secret, grant)))
    }

    fn token_for_pin(&self, turn: Turn, fields: &Fields, grant: Grant) -> Answer {
        let protocol = self.protocol(fields)?;
        let theirs = required(fields.map(0x03)?)?;
        let pin_hash_enc = required(fields.bytes(0x06)?)?;
        let mut store = self.store();
        store.may_try_pin()?;
        let secret = SharedSecret::agree(protocol, &store.agreement(protocol).key, &theirs)?;
        store.try_pin(protocol, secret.decrypt(&pin_hash_enc))?;
        drop(store);
        Ok(Some(self.token(turn, protocol, &secret, grant)))
    }

    /// A new one: `resetPinUvAuthToken`, then `beginUsingPinUvAuthToken`.
    fn token(&self, turn: Turn, protocol: Protocol, secret: &SharedSecret, grant: Grant) -> Value {
        let mut store = self.store();
        // CTAP 2.0 makes one when it is plugged in, CTAP 2.1 one each time, for all protocols.
        if self.settings.version == Version::Ctap21 {
            store.reset_tokens();
        }
        let agreement = store.agreement(protocol);
        agreement.grant = Some(grant);
        let wrong = self.live.has(turn, Fault::WrongPinToken);
        let token = if wrong { random() } else { agreement.token };
        cbor::map([(0x02, Value::Bytes(secret.encrypt(&token)))])
    }

    fn protocol(&self, fields: &Fields) -> Result<Protocol, Status> {
        self.supported(required(fields.number(0x01)?)?)
    }
}

/// Permissions, and for whom. Making and using credentials is for one relying party.
fn grant(fields: &Fields, rp: Option<String>) -> Result<Grant, Status> {
    let permissions = required(fields.number(0x09)?)?;
    let known = MAKE_CREDENTIAL | GET_ASSERTION;
    if permissions <= 0 {
        return Err(Status::INVALID_PARAMETER);
    }
    if permissions & !known != 0 {
        return Err(Status::UNAUTHORIZED_PERMISSION);
    }
    if rp.is_none() {
        return Err(Status::INVALID_PARAMETER);
    }
    Ok(Grant { permissions, rp })
}

/// A new PIN out of its padding (6.5.5.5, step 5.5 onward).
fn new_pin(secret: &SharedSecret, encrypted: &[u8]) -> Result<Vec<u8>, Status> {
    let mut pin = secret.decrypt(encrypted).ok_or(Status::PIN_AUTH_INVALID)?;
    if pin.len() != PADDED {
        return Err(Status::INVALID_PARAMETER);
    }
    let length = pin.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    pin.truncate(length);
    let code_points = std::str::from_utf8(&pin).map_or(0, |text| text.chars().count());
    // The last byte is padding, always.
    if code_points < usize::from(PIN_CODE_POINTS_MIN) || length == PADDED {
        return Err(Status::PIN_POLICY_VIOLATION);
    }
    Ok(pin)
}
