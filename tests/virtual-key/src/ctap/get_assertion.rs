//! authenticatorGetAssertion and authenticatorGetNextAssertion (CTAP 2.1, 6.2 and 6.3).

use super::{
    Answer, Authenticator, Status,
    authenticator_data::{UP, UV},
    cbor::{Fields, required},
    make_credential::descriptors,
    verification::{Asked, GET_ASSERTION, Verified},
};
use crate::{
    live::Turn,
    store::{Credential, Protection, Remaining},
};

struct Parameters {
    rp: String,
    client_data_hash: Vec<u8>,
    allow: Vec<Vec<u8>>,
    asked: Asked,
}

impl Authenticator {
    pub(super) fn get_assertion(&self, turn: Turn, parameters: &[u8]) -> Answer {
        let fields = Fields::read(parameters)?;
        let mut parameters = Parameters::read(&fields)?;
        self.note_get_assertion(turn, &fields, &parameters)?;
        let asked = &mut parameters.asked;
        self.check(turn, asked)?;
        if asked.rk.is_some() {
            return Err(Status::UNSUPPORTED_OPTION);
        }
        let up = asked.up.unwrap_or(true);
        if up {
            self.always(asked)?;
        }
        let hash = &parameters.client_data_hash;
        let verified = self.verify(&parameters.asked, &parameters.rp, hash, GET_ASSERTION)?;
        let mut ids = self.applicable(&parameters, verified);
        if ids.is_empty() {
            return Err(Status::NO_CREDENTIALS);
        }
        // A finger verifies also where no touch is asked for.
        if up || verified == Verified::BuiltIn {
            self.live.presence(turn)?;
            self.spend(verified);
        }
        let up = if up { UP } else { 0 };
        let flags = if verified == Verified::No { up } else { up | UV };
        let first = ids.remove(0);
        let number = u64::try_from(ids.len() + 1).ok().filter(|number| *number > 1);
        let answer = self.assertion(turn, hash, &first, flags, number)?;
        if parameters.allow.is_empty() {
            let client_data_hash = parameters.client_data_hash;
            self.store().remaining = Some(Remaining { client_data_hash, credential_ids: ids, flags });
        }
        Ok(Some(answer))
    }

    pub(super) fn get_next_assertion(&self, turn: Turn) -> Answer {
        let Some(mut remaining) = self.store().remaining.take() else { return Err(Status::NOT_ALLOWED) };
        if remaining.credential_ids.is_empty() {
            return Err(Status::NOT_ALLOWED);
        }
        let id = remaining.credential_ids.remove(0);
        let answer = self.assertion(turn, &remaining.client_data_hash, &id, remaining.flags, None)?;
        self.store().remaining = Some(remaining);
        Ok(Some(answer))
    }

    fn note_get_assertion(&self, turn: Turn, fields: &Fields, parameters: &Parameters) -> Result<(), Status> {
        let extensions = fields.map(0x04)?.map(|map| map.names()).unwrap_or_default();
        self.live.describe(turn, |request| {
            request.rp = Some(parameters.rp.clone());
            request.up = parameters.asked.up.unwrap_or(true);
            request.uv = parameters.asked.uv;
            request.rk = parameters.asked.rk.unwrap_or(false);
            request.pin = parameters.asked.has_param();
            request.pin_protocol = parameters.asked.protocol();
            request.allow_list = parameters.allow.len();
            request.extensions = extensions;
            request.client_data_hash = Some(parameters.client_data_hash.clone());
        });
        Ok(())
    }

    /// The credentials that may answer: of those in the allow list the first, of the discoverable ones all, the newest
    /// first (steps 7 and 11).
    fn applicable(&self, parameters: &Parameters, verified: Verified) -> Vec<Vec<u8>> {
        let store = self.store();
        let id = |credential: &Credential| credential.id.clone();
        if parameters.allow.is_empty() {
            let found = store.credentials.iter().rev().filter(|credential| {
                let visible = credential.protection == Protection::Optional || verified != Verified::No;
                credential.discoverable && credential.rp == parameters.rp && visible
            });
            return found.map(id).collect();
        }
        let listed = parameters.allow.iter().filter_map(|id| store.find(&parameters.rp, id));
        let mut visible = listed
            .filter(|credential| credential.protection != Protection::Required || verified != Verified::No);
        visible.next().map(id).into_iter().collect()
    }
}

impl Parameters {
    fn read(fields: &Fields) -> Result<Self, Status> {
        Ok(Self {
            rp: required(fields.text(0x01)?)?,
            client_data_hash: required(fields.bytes(0x02)?)?,
            allow: descriptors(fields.array(0x03)?)?,
            asked: Asked::of(fields, 0x05, 0x06, 0x07)?,
        })
    }
}
