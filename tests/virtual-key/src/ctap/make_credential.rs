//! authenticatorMakeCredential (CTAP 2.1, 6.1).

use ciborium::Value;

use super::{
    Answer, Authenticator, Status,
    authenticator_data::{Attested, AuthenticatorData, UP, UV, flip_last_bit},
    cbor::{self, Fields, required},
    verification::{Asked, MAKE_CREDENTIAL, Verified},
};
use crate::{
    algorithm::{Algorithm, KeyPair, random},
    builder::Attestation,
    fault::Fault,
    live::Turn,
    store::{Credential, Protection, User},
};

struct Parameters {
    client_data_hash: Vec<u8>,
    rp: String,
    user: User,
    algorithms: Vec<i64>,
    exclude: Vec<Vec<u8>>,
    protection: Option<i64>,
    asked: Asked,
}

impl Authenticator {
    pub(super) fn make_credential(&self, turn: Turn, parameters: &[u8]) -> Answer {
        let fields = Fields::read(parameters)?;
        let mut parameters = Parameters::read(&fields)?;
        self.note_make_credential(turn, &fields, &parameters)?;
        let asked = &mut parameters.asked;
        self.check(turn, asked)?;
        let algorithm = self.choose(&parameters.algorithms)?;
        if asked.rk == Some(true) && !self.settings.resident_keys {
            return Err(Status::UNSUPPORTED_OPTION);
        }
        if asked.up == Some(false) || fields.get(0x0a).is_some() {
            // 0x0a is enterpriseAttestation.
            let up = asked.up == Some(false);
            return Err(if up { Status::INVALID_OPTION } else { Status::INVALID_PARAMETER });
        }
        self.always(asked)?;
        self.pin_needed(asked)?;
        let hash = &parameters.client_data_hash;
        let verified = self.verify(&parameters.asked, &parameters.rp, hash, MAKE_CREDENTIAL)?;
        if self.excludes(&parameters, verified) {
            // Nobody learns without a touch that the key knows them.
            return match self.live.presence(turn) {
                Err(Status::KEEPALIVE_CANCEL) => Err(Status::KEEPALIVE_CANCEL),
                Ok(()) | Err(_) => Err(Status::CREDENTIAL_EXCLUDED),
            };
        }
        self.live.presence(turn)?;
        self.spend(verified);
        let credential = self.create(&parameters, algorithm);
        Ok(Some(self.attested(turn, &parameters, verified, credential)))
    }

    fn note_make_credential(
        &self,
        turn: Turn,
        fields: &Fields,
        parameters: &Parameters,
    ) -> Result<(), Status> {
        let extensions = fields.map(0x06)?.map(|map| map.names()).unwrap_or_default();
        self.live.describe(turn, |request| {
            request.rp = Some(parameters.rp.clone());
            request.up = parameters.asked.up.unwrap_or(true);
            request.uv = parameters.asked.uv;
            request.rk = parameters.asked.rk.unwrap_or(false);
            request.pin = parameters.asked.has_param();
            request.pin_protocol = parameters.asked.protocol();
            request.exclude_list = parameters.exclude.len();
            request.algorithms.clone_from(&parameters.algorithms);
            request.extensions = extensions;
            request.client_data_hash = Some(parameters.client_data_hash.clone());
        });
        Ok(())
    }

    /// The first one that the key has.
    fn choose(&self, wanted: &[i64]) -> Result<Algorithm, Status> {
        let ours = &self.settings.algorithms;
        let chosen = wanted.iter().find_map(|alg| ours.iter().find(|ours| ours.cose() == *alg));
        chosen.copied().ok_or(Status::UNSUPPORTED_ALGORITHM)
    }

    /// A protected key wants verification, but for credentials that are not discoverable, if it says so (steps 7 and 8).
    fn pin_needed(&self, asked: &Asked) -> Result<(), Status> {
        let without = self.makes_credentials_without_uv() && asked.rk != Some(true);
        if asked.has_param() || asked.uv || without || !self.is_protected() {
            return Ok(());
        }
        Err(if self.has_client_pin() { Status::PUAT_REQUIRED } else { Status::OPERATION_DENIED })
    }

    /// Step 12; credentials that need verification are not there without it.
    fn excludes(&self, parameters: &Parameters, verified: Verified) -> bool {
        let store = self.store();
        parameters
            .exclude
            .iter()
            .filter_map(|id| store.find(&parameters.rp, id))
            .any(|credential| credential.protection != Protection::Required || verified != Verified::No)
    }

    fn create(&self, parameters: &Parameters, algorithm: Algorithm) -> Credential {
        let known = self.settings.cred_protect;
        let protection = parameters.protection.filter(|_| known).and_then(Protection::of);
        Credential {
            rp: parameters.rp.clone(),
            id: random::<32>().to_vec(),
            key: KeyPair::generate(algorithm),
            user: parameters.user.clone(),
            discoverable: parameters.asked.rk == Some(true),
            protection: protection.unwrap_or(Protection::Optional),
        }
    }

    /// The answer; keeps the credential.
    fn attested(
        &self,
        turn: Turn,
        parameters: &Parameters,
        verified: Verified,
        credential: Credential,
    ) -> Value {
        let fault = self.live.fault(turn.command);
        let known = self.settings.cred_protect && parameters.protection.and_then(Protection::of).is_some();
        let level = Value::from(credential.protection as i64);
        let data = AuthenticatorData {
            rp: &parameters.rp,
            flags: if verified == Verified::No { UP } else { UP | UV },
            backup: self.settings.backup,
            counter: self.count(),
            attested: Some(Attested {
                aaguid: self.settings.aaguid,
                credential_id: &credential.id,
                cose_key: credential.key.cose_key(),
            }),
            extensions: known.then(|| cbor::map([("credProtect", level)])),
        };
        let data = data.bytes(fault);
        let mut signature = credential.key.sign(&[data.as_slice(), &parameters.client_data_hash].concat());
        if fault == Some(Fault::BadSignature) {
            flip_last_bit(&mut signature);
        }
        let (format, statement) = match self.settings.attestation {
            Attestation::None => ("none", Value::Map(Vec::new())),
            Attestation::Packed => {
                let algorithm = Value::from(credential.key.algorithm().cose());
                ("packed", cbor::map([("alg", algorithm), ("sig", Value::Bytes(signature))]))
            }
        };
        let mut store = self.store();
        // One discoverable credential for each user of a relying party (step 17).
        store.credentials.retain(|other| {
            let discoverable = credential.discoverable && other.discoverable;
            !(discoverable && other.rp == credential.rp && other.user.id == credential.user.id)
        });
        store.credentials.push(credential);
        drop(store);
        cbor::map([(1, Value::from(format)), (2, Value::Bytes(data)), (3, statement)])
    }
}

impl Parameters {
    fn read(fields: &Fields) -> Result<Self, Status> {
        let client_data_hash = required(fields.bytes(0x01)?)?;
        let rp = required(required(fields.map(0x02)?)?.text("id")?)?;
        let user = required(fields.map(0x03)?)?;
        let user = User {
            id: required(user.bytes("id")?)?,
            name: user.text("name")?,
            display_name: user.text("displayName")?,
        };
        let mut algorithms = Vec::new();
        for parameter in required(fields.array(0x04)?)? {
            let parameter = Fields::of(&parameter)?;
            let number = required(parameter.number("alg")?)?;
            if required(parameter.text("type")?)? == "public-key" {
                algorithms.push(number);
            }
        }
        let protection = match fields.map(0x06)? {
            Some(extensions) => extensions.number("credProtect")?,
            None => None,
        };
        let exclude = descriptors(fields.array(0x05)?)?;
        let asked = Asked::of(fields, 0x07, 0x08, 0x09)?;
        Ok(Self { client_data_hash, rp, user, algorithms, exclude, protection, asked })
    }
}

/// The ids in a list of `PublicKeyCredentialDescriptor`.
pub(super) fn descriptors(list: Option<Vec<Value>>) -> Result<Vec<Vec<u8>>, Status> {
    let mut ids = Vec::new();
    for descriptor in list.unwrap_or_default() {
        let descriptor = Fields::of(&descriptor)?;
        let id = required(descriptor.bytes("id")?)?;
        if required(descriptor.text("type")?)? == "public-key" {
            ids.push(id);
        }
    }
    Ok(ids)
}
