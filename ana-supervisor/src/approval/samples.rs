//! Operations, passkeys and assertions for this room's tests.

use std::{io, path::Path, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use coset::{CborSerializable, CoseKeyBuilder, iana, iana::EnumI64};
use p256::ecdsa::{SigningKey, signature::Signer};
use serde_json::json;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{
    Assertion, Judged,
    authenticator::{Authenticator, Request},
    client_data,
    passkeys::{Kind, Passkey, Passkeys},
    software::{AskPassphrase, SoftwarePasskey},
};
use crate::{
    operation::{Operation, Verify},
    policy::{Action, Verdict},
};

pub(super) const RP_ID: &str = "ana:build-1.example";
pub(super) const SECOND: u64 = 1_000_000_000;

pub(super) fn b64(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

pub(super) fn unb64(text: &str) -> Vec<u8> {
    BASE64_URL_SAFE_NO_PAD.decode(text).unwrap()
}

/// `git push origin main`, with this id.
pub(super) fn operation(id: &str) -> Operation {
    let bytes = |text: &str| json!({"b64": b64(text), "text": text});
    serde_json::from_value(json!({
        "v": 1, "id": id, "nonce": b64(Sha256::digest(id)), "host": "build-1.example", "boot_id": "b", "session": "S",
        "uid": 1000, "rule": "git", "policy_sha256": b64([1; 32]), "issued_at": "2026-11-21T22:55:59.000Z",
        "expires_at": "2026-11-21T22:57:59.000Z", "verify": "presence",
        "requester": {"pid": 4242, "start_time": "99", "ancestry": []},
        "kind": "exec",
        "exec": {
            "program": {"path": bytes("/usr/bin/git"), "dev": "0:1", "inode": "9007199254740993", "sha256": b64([2; 32]), "not_fixed": false},
            "argv": [bytes("git"), bytes("push"), bytes("origin"), bytes("main")],
            "cwd": bytes("/home/bob"), "environment": {"sha256": b64([3; 32]), "changed": []},
            "ids": {"uid": 1000, "euid": 1000, "gid": 1000, "egid": 1000}, "foreign_namespaces": []
        }
    }))
    .unwrap()
}

pub(super) fn judged(id: &str) -> Judged {
    judged_as(operation(id), Action::Approve)
}

pub(super) fn judged_as(operation: Operation, action: Action) -> Judged {
    let verdict = Verdict {
        action,
        rule: "git".to_owned(),
        because: "otherwise = approve".to_owned(),
        timeout: Duration::from_secs(120),
        verify: operation.verify,
        needs_argv: true,
        exclusive: false,
    };
    Judged { operation: Arc::new(operation), verdict, alike: None }
}

/// An ES256 passkey whose every byte a test decides.
pub(super) struct Token {
    pub(super) key: SigningKey,
    pub(super) passkey: Passkey,
}

impl Token {
    pub(super) fn new(name: &str) -> Self {
        let key = SigningKey::from_slice(&Sha256::digest(name)).unwrap();
        let point = key.verifying_key().to_encoded_point(false);
        let cose = CoseKeyBuilder::new_ec2_pub_key(
            iana::EllipticCurve::P_256,
            point.x().unwrap().to_vec(),
            point.y().unwrap().to_vec(),
        )
        .algorithm(iana::Algorithm::ES256)
        .build();
        Self { key, passkey: passkey(name, cose) }
    }

    pub(super) fn sign(&self, challenge: &[u8; 32]) -> Assertion {
        self.sign_parts(
            &authenticator_data(RP_ID, 0x01, self.passkey.sign_count),
            &client_data::encode(challenge, RP_ID),
        )
    }

    pub(super) fn sign_parts(&self, data: &[u8], client_data: &[u8]) -> Assertion {
        let message = [data, Sha256::digest(client_data).as_slice()].concat();
        let signature: p256::ecdsa::Signature = self.key.sign(&message);
        parts(&self.passkey, data, client_data, signature.to_der().as_bytes())
    }
}

/// An EdDSA passkey.
pub(super) struct EdToken {
    pub(super) key: ed25519_dalek::SigningKey,
    pub(super) passkey: Passkey,
}

impl EdToken {
    pub(super) fn new(name: &str) -> Self {
        let key = ed25519_dalek::SigningKey::from_bytes(&Sha256::digest(name).into());
        let cose = okp(key.verifying_key().as_bytes());
        Self { key, passkey: passkey(name, cose) }
    }

    pub(super) fn sign_parts(&self, data: &[u8], client_data: &[u8]) -> Assertion {
        let message = [data, Sha256::digest(client_data).as_slice()].concat();
        parts(&self.passkey, data, client_data, &self.key.sign(&message).to_bytes())
    }
}

pub(super) fn okp(public: &[u8]) -> coset::CoseKey {
    CoseKeyBuilder::new_okp_key()
        .algorithm(iana::Algorithm::EdDSA)
        .param(
            iana::OkpKeyParameter::Crv.to_i64(),
            coset::cbor::Value::from(iana::EllipticCurve::Ed25519.to_i64()),
        )
        .param(iana::OkpKeyParameter::X.to_i64(), coset::cbor::Value::Bytes(public.to_vec()))
        .build()
}

pub(super) fn passkey(name: &str, cose: coset::CoseKey) -> Passkey {
    Passkey {
        name: name.to_owned(),
        kind: Kind::SecurityKey,
        credential_id: b64(Sha256::digest(format!("credential {name}"))),
        public_key: b64(cose.to_vec().unwrap()),
        aaguid: "00000000-0000-0000-0000-000000000000".to_owned(),
        transports: Vec::new(),
        be: false,
        bs: false,
        sign_count: 0,
        created: "2026-11-21T22:55:59.000Z".to_owned(),
        last_used: None,
        approver: "bob".to_owned(),
        key_file: None,
    }
}

pub(super) fn parts(passkey: &Passkey, data: &[u8], client_data: &[u8], signature: &[u8]) -> Assertion {
    Assertion {
        credential_id: passkey.credential_id.clone(),
        authenticator_data: b64(data),
        client_data_json: b64(client_data),
        signature: b64(signature),
    }
}

pub(super) fn authenticator_data(rp_id: &str, flags: u8, sign_count: u32) -> Vec<u8> {
    let mut data = Sha256::digest(rp_id).to_vec();
    data.push(flags);
    data.extend(sign_count.to_be_bytes());
    data
}

pub(super) fn list(passkeys: Vec<Passkey>) -> Passkeys {
    let mut list = Passkeys::new("build-1.example").unwrap();
    list.passkeys = passkeys;
    list
}

/// A software passkey and its enrolled half.
pub(super) fn software(name: &str, passphrase: Option<&'static str>) -> (SoftwarePasskey, Passkey) {
    let (file, registration) = SoftwarePasskey::generate(RP_ID, name, passphrase).unwrap();
    let passkey = Passkey {
        name: name.to_owned(),
        kind: Kind::Software,
        credential_id: registration.credential_id,
        public_key: registration.public_key,
        aaguid: registration.aaguid,
        transports: Vec::new(),
        be: registration.be,
        bs: registration.bs,
        sign_count: registration.sign_count,
        created: "2026-11-21T22:55:59.000Z".to_owned(),
        last_used: None,
        approver: name.to_owned(),
        key_file: Some(Path::new("/etc/ana/demo.key").to_owned()),
    };
    (SoftwarePasskey::from_key_file(file, says(passphrase)), passkey)
}

/// A person who types this passphrase, or has no terminal.
pub(super) fn says(passphrase: Option<&'static str>) -> AskPassphrase {
    Box::new(move || {
        passphrase
            .map(|text| Zeroizing::new(text.to_owned()))
            .ok_or_else(|| io::Error::other("there is no terminal"))
    })
}

pub(super) fn sign_with(key: &mut SoftwarePasskey, challenge: [u8; 32], verify: Verify) -> Assertion {
    let id = key.key_file().credential_id().to_owned();
    key.sign(&Request { challenge, rp_id: RP_ID, origin: RP_ID, allowed: vec![&id], verify }).unwrap()
}
