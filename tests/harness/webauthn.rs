//! An assertion from the evidence, through a WebAuthn library that shares no code with ana's own verification.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use coset::{CborSerializable, CoseKey, Label};
use serde_json::{Value, json};
use webauthn_rs_core::{
    WebauthnCore,
    proto::{AuthenticationState, PublicKeyCredential},
};

use crate::records::Record;

impl Record {
    /// Whether webauthn-rs-core takes the record's assertion for one over the record's operation by the record's key, and
    /// with the person verified if `verified`.
    pub fn is_signed(&self, verified: bool) -> bool {
        let assertion = &self.payload["assertion"];
        let text = |name: &str| assertion[name].as_str().unwrap_or_else(|| panic!("no {name}: {assertion}"));
        let rp_id = format!("ana:{}", self.payload["host"].as_str().expect("a host"));
        let core = WebauthnCore::new_unsafe_experts_only(
            "ana",
            &rp_id,
            vec![rp_id.parse().expect("an origin")],
            Duration::from_secs(60),
            None,
            None,
        );
        let state = json!({
            "credentials": [credential(text("credential_id"), text("public_key"))],
            "policy": if verified { "required" } else { "discouraged" },
            "challenge": self.payload["operation_hash"],
            "appid": null,
            "allow_backup_eligible_upgrade": false,
        });
        let state: AuthenticationState = serde_json::from_value(state).expect("a state");
        let response = json!({
            "id": text("credential_id"), "rawId": text("credential_id"), "type": "public-key",
            "response": {
                "authenticatorData": text("authenticator_data"), "clientDataJSON": text("client_data_json"),
                "signature": text("signature"), "userHandle": null,
            },
        });
        let response = serde_json::from_value::<PublicKeyCredential>(response).expect("a response");
        core.authenticate_credential(&response, &state).is_ok()
    }
}

/// An enrolled credential, as the library keeps one.
fn credential(id: &str, public_key: &str) -> Value {
    let key = BASE64_URL_SAFE_NO_PAD.decode(public_key).expect("base64url");
    let key = CoseKey::from_slice(&key).expect("a COSE key");
    let member = |label: i64| {
        let found = key.params.iter().find(|(found, _)| *found == Label::Int(label));
        found.and_then(|(_, value)| value.as_bytes()).map(|bytes| BASE64_URL_SAFE_NO_PAD.encode(bytes))
    };
    // COSE, RFC 9053: -2 is x of both, -3 is y of the one that has one.
    let (x, cred) = (member(-2).expect("x"), member(-3));
    let cred = match cred {
        Some(y) => json!({"type_": "ES256", "key": {"EC_EC2": {"curve": "SECP256R1", "x": x, "y": y}}}),
        None => json!({"type_": "EDDSA", "key": {"EC_OKP": {"curve": "ED25519", "x": x}}}),
    };
    json!({
        "cred_id": id, "cred": cred, "counter": 0, "transports": null, "user_verified": false,
        "backup_eligible": false, "backup_state": false, "registration_policy": "discouraged", "extensions": {},
        "attestation": {"data": "None", "metadata": "None"}, "attestation_format": "none",
    })
}
