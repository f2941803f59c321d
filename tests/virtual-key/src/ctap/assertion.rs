//! One signature, and what is wrong with it.

use ciborium::Value;

use super::{
    Authenticator, Status,
    authenticator_data::{AuthenticatorData, UV, flip_last_bit},
    cbor,
};
use crate::{fault::Fault, live::Turn, store::User};

impl Authenticator {
    /// The answer that authenticatorGetAssertion and authenticatorGetNextAssertion give (CTAP 2.1, 6.2.2, step 13).
    pub(super) fn assertion(
        &self,
        turn: Turn,
        client_data_hash: &[u8],
        id: &[u8],
        flags: u8,
        number: Option<u64>,
    ) -> Result<Value, Status> {
        let fault = self.live.fault(turn.command);
        let counter = self.count();
        let store = self.store();
        let found = store.credentials.iter().find(|credential| credential.id == id);
        let credential = found.ok_or(Status::NO_CREDENTIALS)?;
        let data = AuthenticatorData {
            rp: &credential.rp,
            flags,
            backup: self.settings.backup,
            counter,
            attested: None,
            extensions: None,
        };
        let data = data.bytes(fault);
        let mut signature = credential.key.sign(&[data.as_slice(), client_data_hash].concat());
        if fault == Some(Fault::BadSignature) {
            flip_last_bit(&mut signature);
        }
        let mut id = credential.id.clone();
        if fault == Some(Fault::WrongCredentialId) {
            flip_last_bit(&mut id);
        }
        let mut answer = vec![(2, Value::Bytes(data)), (3, Value::Bytes(signature))];
        if fault != Some(Fault::NoCredentialMember) {
            let descriptor = cbor::map([("id", Value::Bytes(id)), ("type", Value::from("public-key"))]);
            answer.push((1, descriptor));
        }
        if credential.discoverable {
            answer.push((4, user(&credential.user, flags & UV != 0)));
        }
        if let Some(number) = number {
            answer.push((5, Value::from(number)));
        }
        if let Some(Fault::NumberOfCredentials(claimed)) = fault {
            answer.retain(|(key, _)| *key != 5);
            answer.push((5, Value::from(claimed)));
        }
        Ok(cbor::map(answer))
    }

    /// One more. Keys count all their signatures with one counter.
    pub(super) fn count(&self) -> u32 {
        let mut store = self.store();
        if self.settings.counter.is_some() {
            store.counter = store.counter.wrapping_add(1);
        }
        store.counter
    }
}

/// `PublicKeyCredentialUserEntity`: names are for verified users.
fn user(user: &User, verified: bool) -> Value {
    let mut entries = vec![("id", Value::Bytes(user.id.clone()))];
    if verified {
        let names = [("name", &user.name), ("displayName", &user.display_name)];
        entries.extend(names.into_iter().filter_map(|(key, name)| Some((key, Value::from(name.clone()?)))));
    }
    cbor::map(entries)
}
