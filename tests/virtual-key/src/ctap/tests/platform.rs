//! The platform's side of CTAP2, written against the specification and with other means than the authenticator's.

use aes::{
    Aes256, Block,
    cipher::{BlockDecrypt, BlockEncrypt, KeyInit},
};
use ciborium::Value;
use ed25519_dalek::Verifier as _;
use hmac::{Hmac, Mac};
use p256::{
    PublicKey, SecretKey,
    elliptic_curve::sec1::{FromEncodedPoint, ToEncodedPoint},
};
use rand_core::OsRng;
use sha2::{Digest, Sha256};

use super::super::{
    Authenticator, Status,
    cbor::{self, Fields, encoded, map},
};
use crate::{
    builder::Builder,
    seen::{Command, Request},
};

pub(super) const RP: &str = "ana.example";
pub(super) const HASH: [u8; 32] = [0x5a; 32];

pub(super) fn key(build: impl FnOnce(Builder) -> Builder) -> Authenticator {
    Authenticator::new(build(Builder::new("test")).settings)
}

/// The bytes of an answer after an OK.
pub(super) fn ask_bytes(key: &Authenticator, command: u8, parameters: &[u8]) -> Result<Vec<u8>, Status> {
    let turn = key.live.begin(Command::of(command));
    let answer = key.answer(turn, &[&[command], parameters].concat());
    let (status, rest) = answer.split_first().unwrap();
    key.live.end(turn, Some(Status(*status)));
    if *status == 0 { Ok(rest.to_vec()) } else { Err(Status(*status)) }
}

pub(super) fn ask(key: &Authenticator, command: u8, parameters: &Value) -> Result<Fields, Status> {
    let bytes = ask_bytes(key, command, &encoded(parameters))?;
    let fields = Fields::read(&bytes).unwrap();
    // Canonical, as CTAP2 wants it: written again, nothing moves.
    if !bytes.is_empty() {
        let value: Value = ciborium::from_reader(bytes.as_slice()).unwrap();
        let entries: Vec<(Value, Value)> = value.into_map().unwrap();
        assert_eq!(encoded(&cbor::map(entries)), bytes);
    }
    Ok(fields)
}

pub(super) fn last(key: &Authenticator) -> Request {
    key.live.seen().pop().unwrap()
}

pub(super) fn bytes(value: &[u8]) -> Value {
    Value::Bytes(value.to_vec())
}

/// The parameters of a request, to be changed.
#[derive(Clone)]
pub(super) struct Asking(Vec<(i64, Value)>);

impl Asking {
    pub(super) fn with(mut self, key: i64, value: impl Into<Value>) -> Self {
        self.0.retain(|(other, _)| *other != key);
        self.0.push((key, value.into()));
        self
    }

    pub(super) fn without(mut self, key: i64) -> Self {
        self.0.retain(|(other, _)| *other != key);
        self
    }

    pub(super) fn value(&self) -> Value {
        map(self.0.clone())
    }

    pub(super) fn of(self, key: &Authenticator, command: u8) -> Result<Fields, Status> {
        ask(key, command, &self.value())
    }
}

pub(super) fn options(options: &[(&str, bool)]) -> Value {
    map(options.iter().copied())
}

pub(super) fn list(ids: &[&[u8]]) -> Value {
    Value::Array(ids.iter().map(|id| map([("id", bytes(id)), ("type", Value::from("public-key"))])).collect())
}

pub(super) fn making(algorithms: &[i64]) -> Asking {
    let algorithms = algorithms
        .iter()
        .map(|algorithm| map([("alg", Value::from(*algorithm)), ("type", Value::from("public-key"))]));
    Asking(Vec::new())
        .with(1, bytes(&HASH))
        .with(2, map([("id", RP), ("name", "Ana")]))
        .with(3, map([("id", bytes(b"user")), ("name", Value::from("ana"))]))
        .with(4, Value::Array(algorithms.collect()))
}

pub(super) fn getting() -> Asking {
    Asking(Vec::new()).with(1, RP).with(2, bytes(&HASH))
}

/// A credential as a relying party keeps it.
pub(super) struct Registered {
    pub(super) format: String,
    pub(super) statement: Fields,
    pub(super) data: Data,
    pub(super) raw: Vec<u8>,
    pub(super) id: Vec<u8>,
    pub(super) cose: Vec<u8>,
    pub(super) aaguid: Vec<u8>,
    pub(super) extensions: Option<Value>,
}

/// The first 37 bytes of authenticator data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Data {
    pub(super) rp_id_hash: Vec<u8>,
    pub(super) flags: u8,
    pub(super) counter: u32,
}

impl Data {
    pub(super) fn of(raw: &[u8]) -> Self {
        let counter = u32::from_be_bytes(raw[33..37].try_into().unwrap());
        Self { rp_id_hash: raw[..32].to_vec(), flags: raw[32], counter }
    }
}

pub(super) fn rp_id_hash() -> Vec<u8> {
    Sha256::digest(RP).to_vec()
}

pub(super) fn registered(answer: &Fields) -> Registered {
    let raw = answer.bytes(2).unwrap().unwrap();
    let length = usize::from(u16::from_be_bytes(raw[53..55].try_into().unwrap()));
    let mut rest = &raw[55 + length..];
    let cose: Value = ciborium::from_reader(&mut rest).unwrap();
    let extensions = (!rest.is_empty()).then(|| ciborium::from_reader(&mut rest).unwrap());
    assert!(rest.is_empty());
    Registered {
        format: answer.text(1).unwrap().unwrap(),
        statement: answer.map(3).unwrap().unwrap(),
        data: Data::of(&raw),
        aaguid: raw[37..53].to_vec(),
        id: raw[55..55 + length].to_vec(),
        cose: encoded(&cose),
        extensions,
        raw,
    }
}

pub(super) fn register(key: &Authenticator, algorithm: i64) -> Registered {
    registered(&making(&[algorithm]).of(key, 1).unwrap())
}

/// An assertion, as it came.
pub(super) struct Assertion {
    pub(super) raw: Vec<u8>,
    pub(super) signature: Vec<u8>,
    pub(super) id: Option<Vec<u8>>,
    pub(super) number: Option<i64>,
}

impl Assertion {
    pub(super) fn of(answer: &Fields) -> Self {
        Self {
            raw: answer.bytes(2).unwrap().unwrap(),
            signature: answer.bytes(3).unwrap().unwrap(),
            id: answer.map(1).unwrap().map(|descriptor| descriptor.bytes("id").unwrap().unwrap()),
            number: answer.number(5).unwrap(),
        }
    }

    pub(super) fn verifies(&self, credential: &Registered) -> bool {
        verifies(&credential.cose, &[self.raw.as_slice(), &HASH].concat(), &self.signature)
    }
}

pub(super) fn assert(key: &Authenticator, credential: &Registered) -> Assertion {
    Assertion::of(&getting().with(3, list(&[&credential.id])).of(key, 2).unwrap())
}

/// A signature under a `COSE_Key`.
pub(super) fn verifies(cose: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let key = Fields::read(cose).unwrap();
    let x = key.bytes(-2).unwrap().unwrap();
    match key.number(3).unwrap().unwrap() {
        -7 => {
            let y = key.bytes(-3).unwrap().unwrap();
            assert_eq!((key.number(1), key.number(-1)), (Ok(Some(2)), Ok(Some(1))));
            let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(&[vec![4], x, y].concat()).unwrap();
            let signature = p256::ecdsa::Signature::from_der(signature);
            signature.is_ok_and(|signature| key.verify(message, &signature).is_ok())
        }
        -8 => {
            assert_eq!((key.number(1), key.number(-1)), (Ok(Some(1)), Ok(Some(6))));
            let key = ed25519_dalek::VerifyingKey::from_bytes(&x.try_into().unwrap()).unwrap();
            let signature = ed25519_dalek::Signature::from_slice(signature).unwrap();
            key.verify(message, &signature).is_ok()
        }
        other => panic!("COSE algorithm {other}"),
    }
}

/// The platform after a key agreement (CTAP 2.1, 6.5.6 and 6.5.7).
pub(super) struct Platform {
    protocol: i64,
    key: SecretKey,
    hmac_key: Vec<u8>,
    aes_key: Vec<u8>,
}

impl Platform {
    pub(super) fn agree(key: &Authenticator, protocol: i64) -> Self {
        let answer = pin_asking(protocol, 2).of(key, 6).unwrap();
        let theirs = answer.map(1).unwrap().unwrap();
        assert_eq!(theirs.number(3), Ok(Some(-25)));
        let coordinate = |key: i64| theirs.bytes(key).unwrap().unwrap();
        let point = p256::EncodedPoint::from_affine_coordinates(
            coordinate(-2).as_slice().into(),
            coordinate(-3).as_slice().into(),
            false,
        );
        let theirs = PublicKey::from_encoded_point(&point).unwrap();
        let ours = SecretKey::random(&mut OsRng);
        let z = p256::ecdh::diffie_hellman(ours.to_nonzero_scalar(), theirs.as_affine());
        let z = z.raw_secret_bytes();
        let (hmac_key, aes_key) = match protocol {
            1 => (Sha256::digest(z).to_vec(), Sha256::digest(z).to_vec()),
            _ => {
                // HKDF of RFC 5869, by hand, with one block of output.
                let prk = mac(&[0; 32], z);
                let expand = |info: &[u8]| mac(&prk, &[info, &[1]].concat());
                (expand(b"CTAP2 HMAC key"), expand(b"CTAP2 AES key"))
            }
        };
        Self { protocol, key: ours, hmac_key, aes_key }
    }

    pub(super) fn public(&self) -> Value {
        let point = self.key.public_key().to_encoded_point(false);
        map([
            (1, Value::from(2)),
            (3, Value::from(-25)),
            (-1, Value::from(1)),
            (-2, bytes(point.x().unwrap())),
            (-3, bytes(point.y().unwrap())),
        ])
    }

    /// AES-256-CBC by hand.
    pub(super) fn encrypt(&self, plaintext: &[u8]) -> Vec<u8> {
        let cipher = Aes256::new(self.aes_key.as_slice().into());
        let iv = if self.protocol == 1 { [0; 16] } else { [0x77; 16] };
        let mut out = if self.protocol == 1 { Vec::new() } else { iv.to_vec() };
        let mut before = iv;
        for chunk in plaintext.chunks(16) {
            let mut block = Block::clone_from_slice(chunk);
            block.iter_mut().zip(before).for_each(|(byte, other)| *byte ^= other);
            cipher.encrypt_block(&mut block);
            before = block.into();
            out.extend(before);
        }
        out
    }

    pub(super) fn decrypt(&self, ciphertext: &[u8]) -> Vec<u8> {
        let cipher = Aes256::new(self.aes_key.as_slice().into());
        let (mut before, ciphertext) = match self.protocol {
            1 => (vec![0; 16], ciphertext),
            _ => (ciphertext[..16].to_vec(), &ciphertext[16..]),
        };
        let mut out = Vec::new();
        for chunk in ciphertext.chunks(16) {
            let mut block = Block::clone_from_slice(chunk);
            cipher.decrypt_block(&mut block);
            out.extend(block.iter().zip(&before).map(|(byte, other)| byte ^ other));
            before = chunk.to_vec();
        }
        out
    }

    pub(super) fn authenticate(&self, key: &[u8], message: &[u8]) -> Vec<u8> {
        let mut mac = mac(key, message);
        mac.truncate(if self.protocol == 1 { 16 } else { 32 });
        mac
    }

    pub(super) fn authenticate_shared(&self, message: &[u8]) -> Vec<u8> {
        self.authenticate(&self.hmac_key, message)
    }

    pub(super) fn pin_hash_enc(&self, pin: &str) -> Value {
        Value::Bytes(self.encrypt(&Sha256::digest(pin)[..16]))
    }

    pub(super) fn new_pin_enc(&self, pin: &str) -> Vec<u8> {
        let mut padded = pin.as_bytes().to_vec();
        padded.resize(64, 0);
        self.encrypt(&padded)
    }

    /// The token of getPinToken's kind of requests.
    pub(super) fn token(&self, key: &Authenticator, asking: Asking) -> Result<Vec<u8>, Status> {
        let answer = asking.with(3, self.public()).of(key, 6)?;
        Ok(self.decrypt(&answer.bytes(2).unwrap().unwrap()))
    }
}

fn mac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(key).unwrap();
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

/// clientPIN's parameters.
pub(super) fn pin_asking(protocol: i64, sub_command: i64) -> Asking {
    Asking(Vec::new()).with(1, protocol).with(2, sub_command)
}

/// getPinToken, after a key agreement of its own.
pub(super) fn pin_token(
    key: &Authenticator,
    protocol: i64,
    pin: &str,
) -> Result<(Platform, Vec<u8>), Status> {
    let platform = Platform::agree(key, protocol);
    let asking = pin_asking(protocol, 5).with(6, platform.pin_hash_enc(pin));
    let token = platform.token(key, asking)?;
    Ok((platform, token))
}

/// A request with the pinUvAuthParam for a PIN.
pub(super) fn authorized(
    asking: Asking,
    command: u8,
    key: &Authenticator,
    protocol: i64,
    pin: &str,
) -> Asking {
    let (platform, token) = pin_token(key, protocol, pin).unwrap();
    let (param, number) = if command == 1 { (8, 9) } else { (6, 7) };
    asking.with(param, bytes(&platform.authenticate(&token, &HASH))).with(number, protocol)
}
