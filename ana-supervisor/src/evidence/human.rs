//! A person's approval, checked again from the record alone.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as B64};

use serde::Deserialize;

use super::record::AssertionRecord;
use crate::approval::assertion::{self, Assertion, Expected};
use crate::approval::passkeys::{Kind, Passkey};
use crate::operation::Operation;
use crate::operation::canonical::CanonicalError;

/// Checks that an assertion approves exactly this operation, with the public key in the record.
pub trait HumanProof {
    /// # Errors
    /// Why it does not.
    fn check(&self, operation: &Operation, assertion: &AssertionRecord) -> Result<(), String>;
}

/// The check that the supervisor itself makes before it accepts an approval.
#[derive(Clone, Copy, Debug, Default)]
pub struct WebAuthn;

impl HumanProof for WebAuthn {
    fn check(&self, operation: &Operation, record: &AssertionRecord) -> Result<(), String> {
        let challenge = operation.challenge().map_err(|error| error.to_string())?;
        let rp_id = rp_id(record).ok_or("the client data names no rp id of the form ana:HOST")?;
        let flags = B64.decode(&record.authenticator_data).ok().and_then(|data| data.get(32).copied());
        let flags = flags.ok_or("the authenticator data is too short")?;
        let offered = [Passkey {
            name: "the record's".into(),
            // Not asked here; the decision's detail says it.
            kind: Kind::SecurityKey,
            credential_id: record.credential_id.clone(),
            public_key: record.public_key.clone(),
            aaguid: String::new(),
            approver: record.approver.clone(),
            created: String::new(),
            last_used: None,
            key_file: None,
            transports: Vec::new(),
            be: flags & 0x08 != 0,
            bs: flags & 0x10 != 0,
            // Whether the counter grew was decided when the approval came in.
            sign_count: 0,
        }];
        let expected = Expected {
            challenge,
            origin: &rp_id,
            rp_id: &rp_id,
            verify: operation.verify,
            offered: &offered,
        };
        let assertion = Assertion {
            credential_id: record.credential_id.clone(),
            authenticator_data: record.authenticator_data.clone(),
            client_data_json: record.client_data_json.clone(),
            signature: record.signature.clone(),
        };
        assertion::verify(&assertion, &expected).map(drop).map_err(|error| {
            match std::error::Error::source(&error) {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            }
        })
    }
}

/// The rp id that the assertion was made for: its origin, which is the same text. Passkeys that are enrolled through
/// the command line have `ana:HOST`, which no web page can ask for. (The signature covers it: the check compares its
/// hash in the authenticator data.)
pub(crate) fn rp_id(record: &AssertionRecord) -> Option<String> {
    #[derive(Deserialize)]
    struct ClientData {
        origin: String,
    }
    let client_data = B64.decode(&record.client_data_json).ok()?;
    let client_data: ClientData = serde_json::from_slice(&client_data).ok()?;
    client_data.origin.starts_with("ana:").then_some(client_data.origin)
}

/// The challenge, as records carry it.
pub(crate) fn operation_hash(operation: &Operation) -> Result<String, CanonicalError> {
    Ok(B64.encode(operation.challenge()?))
}
