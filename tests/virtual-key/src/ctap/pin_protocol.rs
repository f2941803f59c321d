//! PIN/UV auth protocols one and two, the authenticator's side (CTAP 2.1, 6.5.6 and 6.5.7).

use aes::cipher::{BlockDecryptMut, BlockEncryptMut, KeyIvInit, block_padding::NoPadding};
use ciborium::Value;
use hmac::{Hmac, Mac};
use p256::{PublicKey, SecretKey};
use sha2::{Digest, Sha256};

use super::{
    Status,
    cbor::{self, Fields, required},
};
use crate::algorithm::{coordinates, random};

const BLOCK: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    One,
    Two,
}

impl Protocol {
    pub(crate) const ALL: [Self; 2] = [Self::One, Self::Two];

    pub(crate) fn of(number: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| i64::from(protocol.number()) == number)
    }

    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::One => 1,
            Self::Two => 2,
        }
    }

    /// `authenticate`: protocol one keeps the first half.
    fn authenticate(self, key: &[u8; 32], message: &[u8]) -> Vec<u8> {
        let mac = <Hmac<Sha256> as Mac>::new_from_slice(key);
        let mut mac = mac.unwrap_or_else(|error| panic!("HMAC takes keys of every length: {error}"));
        mac.update(message);
        let bytes = mac.finalize().into_bytes();
        match self {
            Self::One => bytes[..16].to_vec(),
            Self::Two => bytes.to_vec(),
        }
    }

    /// `verify`
    pub(crate) fn verifies(self, key: &[u8; 32], message: &[u8], mac: &[u8]) -> bool {
        self.authenticate(key, message) == mac
    }
}

/// `getPublicKey`: the key agreement key as a `COSE_Key`, with the algorithm number that is not really one (6.5.6).
pub(crate) fn public_key(key: &SecretKey) -> Value {
    let (x, y) = coordinates(&key.public_key());
    let number = |n: i64| Value::from(n);
    cbor::map([(1, number(2)), (3, number(-25)), (-1, number(1)), (-2, x), (-3, y)])
}

/// What platform and authenticator have in common after the key agreement.
pub(crate) struct SharedSecret {
    protocol: Protocol,
    hmac_key: [u8; 32],
    aes_key: [u8; 32],
}

impl SharedSecret {
    /// `decapsulate`
    ///
    /// # Errors
    /// The platform's key is none.
    pub(crate) fn agree(protocol: Protocol, ours: &SecretKey, theirs: &Fields) -> Result<Self, Status> {
        let coordinate = |key: i64| required(theirs.bytes(key)?);
        let point = [vec![4], coordinate(-2)?, coordinate(-3)?].concat();
        // Points that are not on the curve are refused here.
        let theirs = PublicKey::from_sec1_bytes(&point).map_err(|_point| Status::INVALID_PARAMETER)?;
        let z = p256::ecdh::diffie_hellman(ours.to_nonzero_scalar(), theirs.as_affine());
        let (hmac_key, aes_key) = match protocol {
            Protocol::One => {
                let key: [u8; 32] = Sha256::digest(z.raw_secret_bytes()).into();
                (key, key)
            }
            Protocol::Two => {
                let kdf = z.extract::<Sha256>(Some(&[0; 32]));
                let expanded = |info: &[u8]| {
                    let mut key = [0; 32];
                    kdf.expand(info, &mut key).unwrap_or_else(|error| panic!("HKDF gives 32 bytes: {error}"));
                    key
                };
                (expanded(b"CTAP2 HMAC key"), expanded(b"CTAP2 AES key"))
            }
        };
        Ok(Self { protocol, hmac_key, aes_key })
    }

    pub(crate) fn verifies(&self, message: &[u8], mac: &[u8]) -> bool {
        self.protocol.verifies(&self.hmac_key, message, mac)
    }

    /// `encrypt`, of whole blocks: protocol two puts a random IV in front.
    pub(crate) fn encrypt(&self, plaintext: &[u8]) -> Vec<u8> {
        let iv: [u8; BLOCK] = match self.protocol {
            Protocol::One => [0; BLOCK],
            Protocol::Two => random(),
        };
        let cipher = cbc::Encryptor::<aes::Aes256>::new(&self.aes_key.into(), &iv.into());
        let ciphertext = cipher.encrypt_padded_vec_mut::<NoPadding>(plaintext);
        match self.protocol {
            Protocol::One => ciphertext,
            Protocol::Two => [iv.to_vec(), ciphertext].concat(),
        }
    }

    /// `decrypt`: none if it is not made of whole blocks.
    pub(crate) fn decrypt(&self, ciphertext: &[u8]) -> Option<Vec<u8>> {
        let (iv, ciphertext) = match self.protocol {
            Protocol::One => ([0; BLOCK], ciphertext),
            Protocol::Two => ciphertext.split_first_chunk().map(|(iv, rest)| (*iv, rest))?,
        };
        let cipher = cbc::Decryptor::<aes::Aes256>::new(&self.aes_key.into(), &iv.into());
        cipher.decrypt_padded_vec_mut::<NoPadding>(ciphertext).ok()
    }
}
