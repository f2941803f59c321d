//! The software passkey: a real CTAP2 authenticator in this process, its key in a file.
//!
//! It exists so that the product can be tried and tested without hardware. It proves that somebody could read the
//! file, no more: sessions accept it only where the policy says `allow_software_passkey = true`, and every record
//! names its kind. Key material is in memory for one signature and then wiped.

use std::{
    borrow::Cow,
    fs::File,
    io,
    path::Path,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use coset::{CborSerializable, CoseKey, CoseKeyBuilder, Label, cbor::Value, iana, iana::EnumI64};
use p256::{SecretKey, elliptic_curve::sec1::ToEncodedPoint};
use passkey_authenticator::{
    Authenticator as Ctap, CredentialStore, DiscoverabilitySupport, PasskeyAccessor, StoreInfo, UiHint,
    UserCheck, UserValidationMethod,
};
use passkey_crypto::rust_crypto::RustCryptoBackend;
use passkey_types::{
    CredentialExtensions, Passkey as CtapPasskey,
    ctap2::{
        Aaguid, Ctap2Error, Flags, StatusCode, get_assertion,
        make_credential::{self, PublicKeyCredentialRpEntity, PublicKeyCredentialUserEntity},
    },
    webauthn,
};
use pkcs8::rand_core::{OsRng, RngCore};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use super::{
    assertion::Assertion,
    authenticator::{Authenticator, AuthenticatorError, Request},
    client_data,
    keyfile::{KeyFile, KeyFileError},
    passkeys::Kind,
};
use crate::operation::Verify;

/// The model of this authenticator.
const AAGUID: [u8; 16] = *b"ana software key";

/// What a new passkey is, for its enrolment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Base64url.
    pub credential_id: String,
    /// The COSE key, base64url.
    pub public_key: String,
    /// A UUID.
    pub aaguid: String,
    pub be: bool,
    pub bs: bool,
    pub sign_count: u32,
}

/// Asks for a key file's passphrase; called once for each signature.
pub type AskPassphrase = Box<dyn FnMut() -> io::Result<Zeroizing<String>>>;

/// A software passkey that can sign.
pub struct SoftwarePasskey {
    file: KeyFile,
    ask: AskPassphrase,
}

impl SoftwarePasskey {
    /// Makes a new passkey for `rp_id` by CTAP2's make_credential. The file is not on disk yet.
    ///
    /// # Errors
    /// The authenticator fails, or the key cannot be encrypted.
    pub fn generate(
        rp_id: &str,
        user: &str,
        passphrase: Option<&str>,
    ) -> Result<(KeyFile, Registration), AuthenticatorError> {
        let mut user_handle = [0; 32];
        OsRng.fill_bytes(&mut user_handle);
        let store = Store::default();
        let made = Arc::clone(&store.made);
        let person = Person { verified: passphrase.is_some() };
        let mut authenticator = Ctap::new(Aaguid::from(AAGUID), store, person, RustCryptoBackend);
        authenticator.set_make_credential_id_length(32.into());
        let request = make_credential_request(rp_id, user, &user_handle, passphrase.is_some());
        let response = now(authenticator.make_credential(request))?;
        let made = made.lock().unwrap_or_else(PoisonError::into_inner).take().ok_or_else(other)?;
        let key = secret_key(&made.key.0).map_err(AuthenticatorError::KeyFile)?;
        let flags = response.auth_data.flags;
        let attested = response.auth_data.attested_credential_data.ok_or_else(other)?;
        let public = attested.key.clone().to_vec().map_err(|_opaque| other())?;
        let file = KeyFile::new(rp_id, &made.credential_id, &user_handle, &key, passphrase)
            .map_err(AuthenticatorError::KeyFile)?;
        let registration = Registration {
            credential_id: BASE64_URL_SAFE_NO_PAD.encode(attested.credential_id()),
            public_key: BASE64_URL_SAFE_NO_PAD.encode(public),
            aaguid: uuid(&AAGUID),
            be: flags.contains(Flags::BE),
            bs: flags.contains(Flags::BS),
            sign_count: 0,
        };
        Ok((file, registration))
    }

    /// The passkey in the file at `path`; `ask` is called only if it has a passphrase.
    ///
    /// # Errors
    /// As [`KeyFile::open`].
    pub fn open(path: &Path, ask: AskPassphrase) -> Result<Self, KeyFileError> {
        Ok(Self { file: KeyFile::open(path)?, ask })
    }

    /// The passkey in a file that somebody else opened.
    ///
    /// # Errors
    /// As [`KeyFile::read`].
    pub fn from_file(file: File, ask: AskPassphrase) -> Result<Self, KeyFileError> {
        Ok(Self { file: KeyFile::read(file, Path::new("that was handed over"))?, ask })
    }

    pub fn from_key_file(file: KeyFile, ask: AskPassphrase) -> Self {
        Self { file, ask }
    }

    pub fn key_file(&self) -> &KeyFile {
        &self.file
    }

    /// What this key's enrolment would be.
    ///
    /// # Errors
    /// The passphrase is wrong, or the file holds no key.
    pub fn registration(&mut self) -> Result<Registration, AuthenticatorError> {
        let (key, _) = self.unlock()?;
        let public = public_cose(&key).to_vec().map_err(|_opaque| other())?;
        Ok(Registration {
            credential_id: self.file.credential_id().to_owned(),
            public_key: BASE64_URL_SAFE_NO_PAD.encode(public),
            aaguid: uuid(&AAGUID),
            be: true,
            bs: true,
            sign_count: 0,
        })
    }

    /// The key, and whether a passphrase was checked for it just now.
    fn unlock(&mut self) -> Result<(SecretKey, bool), AuthenticatorError> {
        if !self.file.encrypted() {
            return Ok((self.file.unlock(None).map_err(AuthenticatorError::KeyFile)?, false));
        }
        let passphrase = (self.ask)().map_err(AuthenticatorError::Passphrase)?;
        Ok((self.file.unlock(Some(&passphrase)).map_err(AuthenticatorError::KeyFile)?, true))
    }
}

impl Authenticator for SoftwarePasskey {
    fn kind(&self) -> Kind {
        Kind::Software
    }

    fn sign(&mut self, request: &Request<'_>) -> Result<Assertion, AuthenticatorError> {
        if self.file.rp_id() != request.rp_id {
            return Err(AuthenticatorError::RpId {
                found: self.file.rp_id().to_owned(),
                asked: request.rp_id.to_owned(),
            });
        }
        if !request.allowed.contains(&self.file.credential_id()) {
            return Err(AuthenticatorError::NotOffered);
        }
        if request.verify == Verify::Pin && !self.file.encrypted() {
            return Err(AuthenticatorError::CannotVerify);
        }
        let (key, verified) = self.unlock()?;
        let item = Item {
            key: Arc::new(SecretCose(private_cose(&key))),
            credential_id: self.file.credential_id_bytes().map_err(AuthenticatorError::KeyFile)?,
            rp_id: self.file.rp_id().to_owned(),
            user_handle: self.file.user_handle_bytes().map_err(AuthenticatorError::KeyFile)?,
        };
        let client_data = client_data::encode(&request.challenge, request.origin);
        let ctap_request = get_assertion::Request {
            rp_id: request.rp_id.to_owned(),
            client_data_hash: Sha256::digest(&client_data).to_vec().into(),
            allow_list: Some(vec![descriptor(&item.credential_id)]),
            extensions: None,
            options: get_assertion::Options { up: true, uv: verified },
            pin_auth: None,
            pin_protocol: None,
        };
        let store = Store { item: Some(item), ..Store::default() };
        let mut authenticator =
            Ctap::new(Aaguid::from(AAGUID), store, Person { verified }, RustCryptoBackend);
        let response = now(authenticator.get_assertion(ctap_request))?;
        Ok(Assertion {
            credential_id: self.file.credential_id().to_owned(),
            authenticator_data: BASE64_URL_SAFE_NO_PAD.encode(response.auth_data.to_vec()),
            client_data_json: BASE64_URL_SAFE_NO_PAD.encode(client_data),
            signature: BASE64_URL_SAFE_NO_PAD.encode(&*response.signature),
        })
    }
}

fn make_credential_request(
    rp_id: &str,
    user: &str,
    user_handle: &[u8],
    uv: bool,
) -> make_credential::Request {
    make_credential::Request {
        // The enrolment is authorised by assertions, not by an attestation, so there is no client data to bind.
        client_data_hash: vec![0; 32].into(),
        rp: PublicKeyCredentialRpEntity { id: rp_id.to_owned(), name: None },
        user: webauthn::PublicKeyCredentialUserEntity {
            id: user_handle.to_vec().into(),
            display_name: user.to_owned(),
            name: user.to_owned(),
        },
        pub_key_cred_params: vec![webauthn::PublicKeyCredentialParameters {
            ty: webauthn::PublicKeyCredentialType::PublicKey,
            alg: iana::Algorithm::ES256,
        }],
        exclude_list: None,
        extensions: None,
        options: make_credential::Options { rk: true, up: true, uv },
        pin_auth: None,
        pin_protocol: None,
    }
}

fn descriptor(credential_id: &[u8]) -> webauthn::PublicKeyCredentialDescriptor {
    webauthn::PublicKeyCredentialDescriptor {
        ty: webauthn::PublicKeyCredentialType::PublicKey,
        id: credential_id.to_vec().into(),
        transports: None,
    }
}

/// The authenticator's futures only await what is below, and that is always ready.
fn now<T>(future: impl Future<Output = Result<T, StatusCode>>) -> Result<T, AuthenticatorError> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result.map_err(|status| AuthenticatorError::Ctap { status: status.into() }),
        Poll::Pending => Err(other()),
    }
}

fn other() -> AuthenticatorError {
    AuthenticatorError::Ctap { status: Ctap2Error::Other.into() }
}

/// A private COSE key that is wiped when dropped.
struct SecretCose(CoseKey);

impl Drop for SecretCose {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

fn wipe(key: &mut CoseKey) {
    for (_, value) in &mut key.params {
        if let Value::Bytes(bytes) = value {
            bytes.zeroize();
        }
    }
}

fn secret_key(key: &CoseKey) -> Result<SecretKey, KeyFileError> {
    let d = Label::Int(iana::Ec2KeyParameter::D.to_i64());
    key.params
        .iter()
        .find(|(label, _)| *label == d)
        .and_then(|(_, value)| value.as_bytes())
        .and_then(|bytes| SecretKey::from_slice(bytes).ok())
        .ok_or(KeyFileError::Key)
}

fn coordinates(key: &SecretKey) -> (Vec<u8>, Vec<u8>) {
    let point = key.public_key().to_encoded_point(false);
    let part = |bytes: Option<&p256::FieldBytes>| bytes.map(|bytes| bytes.to_vec()).unwrap_or_default();
    (part(point.x()), part(point.y()))
}

fn public_cose(key: &SecretKey) -> CoseKey {
    let (x, y) = coordinates(key);
    CoseKeyBuilder::new_ec2_pub_key(iana::EllipticCurve::P_256, x, y)
        .algorithm(iana::Algorithm::ES256)
        .build()
}

fn private_cose(key: &SecretKey) -> CoseKey {
    let (x, y) = coordinates(key);
    let d = key.to_bytes().to_vec();
    CoseKeyBuilder::new_ec2_priv_key(iana::EllipticCurve::P_256, x, y, d)
        .algorithm(iana::Algorithm::ES256)
        .build()
}

/// An AAGUID as text (RFC 9562).
pub(super) fn uuid(bytes: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// Who is at the authenticator: whoever runs the command is present, and verified if their passphrase was right.
struct Person {
    verified: bool,
}

#[async_trait::async_trait]
impl UserValidationMethod for Person {
    type PasskeyItem = Item;

    async fn check_user<'a>(
        &self,
        _: UiHint<'a, Item>,
        presence: bool,
        _: bool,
    ) -> Result<UserCheck, Ctap2Error> {
        Ok(UserCheck { presence, verification: self.verified })
    }

    fn is_presence_enabled(&self) -> bool {
        true
    }

    fn is_verification_enabled(&self) -> Option<bool> {
        Some(self.verified)
    }
}

/// The one credential of one use.
#[derive(Default)]
struct Store {
    item: Option<Item>,
    made: Arc<Mutex<Option<Made>>>,
}

/// What make_credential made.
struct Made {
    key: SecretCose,
    credential_id: Vec<u8>,
}

#[derive(Clone)]
struct Item {
    key: Arc<SecretCose>,
    credential_id: Vec<u8>,
    rp_id: String,
    user_handle: Vec<u8>,
}

impl PasskeyAccessor for Item {
    fn key(&self) -> Cow<'_, CoseKey> {
        Cow::Borrowed(&self.key.0)
    }

    fn credential_id(&self) -> &[u8] {
        &self.credential_id
    }

    fn rp_id(&self) -> &str {
        &self.rp_id
    }

    fn user_handle(&self) -> Option<&[u8]> {
        Some(&self.user_handle)
    }

    fn username(&self) -> Option<&str> {
        None
    }

    fn user_display_name(&self) -> Option<&str> {
        None
    }

    /// None: a file can be copied, so a counter would prove nothing.
    fn counter(&self) -> Option<u32> {
        None
    }

    fn set_counter(&mut self, _: u32) {}

    fn extensions(&self) -> Cow<'_, CredentialExtensions> {
        Cow::Owned(CredentialExtensions::default())
    }
}

#[async_trait::async_trait]
impl CredentialStore for Store {
    type PasskeyItem = Item;

    async fn find_credentials(
        &self,
        ids: Option<&[webauthn::PublicKeyCredentialDescriptor]>,
        rp_id: &str,
        _: Option<&[u8]>,
    ) -> Result<Vec<Item>, StatusCode> {
        let allowed = |item: &&Item| ids.is_none_or(|ids| ids.iter().any(|id| *id.id == item.credential_id));
        let found: Vec<Item> =
            self.item.iter().filter(|item| item.rp_id == rp_id).filter(allowed).cloned().collect();
        if found.is_empty() { Err(Ctap2Error::NoCredentials.into()) } else { Ok(found) }
    }

    async fn save_credential(
        &mut self,
        mut credential: CtapPasskey,
        _: PublicKeyCredentialUserEntity,
        _: PublicKeyCredentialRpEntity,
        _: make_credential::Options,
    ) -> Result<(), StatusCode> {
        let key = SecretCose(credential.key.clone());
        wipe(&mut credential.key);
        let made = Made { key, credential_id: credential.credential_id.to_vec() };
        *self.made.lock().unwrap_or_else(PoisonError::into_inner) = Some(made);
        Ok(())
    }

    async fn update_credential(&mut self, _: &Item) -> Result<(), StatusCode> {
        Ok(())
    }

    async fn get_info(&self) -> StoreInfo {
        StoreInfo { discoverability: DiscoverabilitySupport::ForcedDiscoverable }
    }
}

#[cfg(test)]
#[path = "software_tests.rs"]
mod tests;
