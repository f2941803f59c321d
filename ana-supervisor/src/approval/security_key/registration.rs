//! A new credential: what is asked for, and the check of what came (WebAuthn, 7.1, as far as it concerns a relying party
//! that trusts no attestation: a signature by the new key follows).

use std::time::Duration;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use coset::cbor::Value;
use pkcs8::rand_core::{OsRng, RngCore};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::wire::{self, Made, Make, Order};
use crate::{
    approval::{
        assertion::{AT, BE, BS, ED, RESERVED, UP, UV, after_extensions},
        client_data,
        cose::{KeyError, PublicKey},
        passkeys::Passkeys,
        software::{Registration, uuid},
    },
    operation::Verify,
};

/// rpIdHash, flags, signCount, AAGUID, the id's length.
const HEAD: usize = 32 + 1 + 4;

/// Why a new credential is not one.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RegistrationError {
    #[error("the key's answer is not base64url")]
    Base64(#[source] base64::DecodeError),
    #[error("the key's answer is cut off")]
    Short,
    #[error("the key made a credential for another relying party")]
    RpId,
    #[error("the key did not see a person")]
    NotPresent,
    #[error("the key did not verify the person, and was asked to")]
    NotVerified,
    #[error("the key's answer carries no credential")]
    NoCredential,
    #[error("the key's answer sets reserved flags, or flags that contradict each other ({flags:#04x})")]
    Flags { flags: u8 },
    #[error("the credential's id has {length} bytes; 16 to 1023 are usual")]
    IdLength { length: usize },
    #[error("the credential's public key cannot be used")]
    PublicKey(#[source] KeyError),
    #[error("the key's answer has {extra} bytes too many, or extensions that are not one CBOR map")]
    Trailing { extra: usize },
}

/// A credential that is asked for.
#[derive(Debug)]
pub struct NewCredential {
    rp_id: String,
    /// clientDataJSON, base64url: what the attestation is over.
    pub client_data: String,
    verify: Verify,
}

impl NewCredential {
    /// What `ana-key` is told to get one that none of the enrolled keys holds, within `limit`.
    pub fn ask(
        list: &Passkeys,
        user: &str,
        verify: Verify,
        resident: bool,
        limit: Duration,
    ) -> (Self, Order) {
        let (mut challenge, mut user_id) = ([0; 32], [0; 32]);
        OsRng.fill_bytes(&mut challenge);
        OsRng.fill_bytes(&mut user_id);
        let client_data = BASE64_URL_SAFE_NO_PAD.encode(client_data::encode_new(&challenge, &list.origin));
        let order = Make {
            rp_id: list.rp_id.clone(),
            user: user.to_owned(),
            user_id: BASE64_URL_SAFE_NO_PAD.encode(user_id),
            client_data: client_data.clone(),
            exclude: list.passkeys.iter().map(|passkey| passkey.credential_id.clone()).collect(),
            resident,
            verify: verify == Verify::Pin,
            limit_ms: wire::milliseconds(limit),
        };
        (Self { rp_id: list.rp_id.clone(), client_data, verify }, Order::Make(order))
    }

    /// What came.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn check(&self, made: &Made) -> Result<Registration, RegistrationError> {
        let data =
            BASE64_URL_SAFE_NO_PAD.decode(&made.authenticator_data).map_err(RegistrationError::Base64)?;
        let (head, rest) = data.split_at_checked(HEAD).ok_or(RegistrationError::Short)?;
        let (rp_id_hash, flags) = head.split_at(32);
        let (flags, count) = flags.split_first_chunk::<1>().ok_or(RegistrationError::Short)?;
        let [flags] = *flags;
        self.check_head(rp_id_hash, flags)?;
        let count = count.first_chunk::<4>().ok_or(RegistrationError::Short)?;
        let (aaguid, rest) = rest.split_first_chunk::<16>().ok_or(RegistrationError::Short)?;
        let (length, rest) = rest.split_first_chunk::<2>().ok_or(RegistrationError::Short)?;
        let length = usize::from(u16::from_be_bytes(*length));
        if !(16..=1023).contains(&length) {
            return Err(RegistrationError::IdLength { length });
        }
        let (id, rest) = rest.split_at_checked(length).ok_or(RegistrationError::Short)?;
        let key = first_value(rest).ok_or(RegistrationError::Short)?;
        let public_key = BASE64_URL_SAFE_NO_PAD.encode(key);
        PublicKey::from_b64(&public_key).map_err(RegistrationError::PublicKey)?;
        let rest = &rest[key.len()..];
        let extra = if flags & ED != 0 {
            after_extensions(rest).map_err(|_no_map| RegistrationError::Trailing { extra: rest.len() })?
        } else {
            rest.len()
        };
        if extra != 0 {
            return Err(RegistrationError::Trailing { extra });
        }
        Ok(Registration {
            credential_id: BASE64_URL_SAFE_NO_PAD.encode(id),
            public_key,
            aaguid: uuid(aaguid),
            be: flags & BE != 0,
            bs: flags & BS != 0,
            sign_count: u32::from_be_bytes(*count),
        })
    }

    fn check_head(&self, rp_id_hash: &[u8], flags: u8) -> Result<(), RegistrationError> {
        if rp_id_hash != Sha256::digest(&self.rp_id).as_slice() {
            return Err(RegistrationError::RpId);
        }
        if flags & UP == 0 {
            return Err(RegistrationError::NotPresent);
        }
        if self.verify == Verify::Pin && flags & UV == 0 {
            return Err(RegistrationError::NotVerified);
        }
        if flags & AT == 0 {
            return Err(RegistrationError::NoCredential);
        }
        if flags & RESERVED != 0 || (flags & BS != 0 && flags & BE == 0) {
            return Err(RegistrationError::Flags { flags });
        }
        Ok(())
    }
}

/// The bytes of the CBOR item that stands first.
fn first_value(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes;
    coset::cbor::from_reader::<Value, _>(&mut rest).ok()?;
    bytes.get(..bytes.len() - rest.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::wire::Attestation, *};
    use crate::approval::samples::*;

    const FLAGS: u8 = UP | AT;

    /// What a key answers, piece by piece.
    fn answer(rp_id: &str, flags: u8, id: &[u8], key: &[u8], rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(id.len()).unwrap().to_be_bytes();
        let hash = Sha256::digest(rp_id);
        [&hash[..], &[flags], &7u32.to_be_bytes(), &[0xab; 16], &length, id, key, rest].concat()
    }

    fn cose() -> Vec<u8> {
        unb64(&Token::new("key").passkey.public_key)
    }

    fn check(verify: Verify, bytes: &[u8]) -> Result<Registration, RegistrationError> {
        let (asked, _) = NewCredential::ask(&list(vec![]), "bob", verify, false, Duration::from_secs(1));
        let attestation = Attestation {
            format: "none".into(),
            algorithm: 0,
            signature: String::new(),
            certificates: vec![],
        };
        let (key, transports) = ("key".into(), vec![]);
        asked.check(&Made { key, authenticator_data: b64(bytes), attestation, transports })
    }

    #[test]
    fn what_a_key_made_is_taken_apart() {
        let extensions = [0xa1, 0x6b, b'c', b'r', b'e', b'd', b'P', b'r', b'o', b't', b'e', b'c', b't', 2];
        let good = answer(RP_ID, FLAGS | ED | BE, &[5; 64], &cose(), &extensions);
        let found = check(Verify::Presence, &good).unwrap();
        assert_eq!(found.credential_id, b64([5; 64]));
        assert_eq!(found.public_key, b64(cose()));
        assert_eq!(found.aaguid, "abababab-abab-abab-abab-abababababab");
        assert_eq!((found.be, found.bs, found.sign_count), (true, false, 7));
        for cut in 0..good.len() {
            assert!(check(Verify::Presence, &good[..cut]).is_err(), "cut at {cut}");
        }
        assert!(check(Verify::Pin, &answer(RP_ID, FLAGS | UV, &[5; 64], &cose(), &[])).is_ok());
    }

    #[test]
    fn whatever_is_wrong_is_refused() {
        let refused = |bytes: Vec<u8>| check(Verify::Presence, &bytes).unwrap_err();
        let id = [5; 64];
        assert!(matches!(refused(answer("ana:other", FLAGS, &id, &cose(), &[])), RegistrationError::RpId));
        assert!(matches!(refused(answer(RP_ID, AT, &id, &cose(), &[])), RegistrationError::NotPresent));
        assert!(matches!(refused(answer(RP_ID, UP, &id, &cose(), &[])), RegistrationError::NoCredential));
        for flags in [FLAGS | BS, FLAGS | 0x02, FLAGS | 0x20] {
            assert!(matches!(
                refused(answer(RP_ID, flags, &id, &cose(), &[])),
                RegistrationError::Flags { .. }
            ));
        }
        assert!(matches!(
            refused(answer(RP_ID, FLAGS, &[5; 15], &cose(), &[])),
            RegistrationError::IdLength { length: 15 }
        ));
        assert!(matches!(refused(answer(RP_ID, FLAGS, &id, &[0xa0], &[])), RegistrationError::PublicKey(_)));
        for (flags, rest) in
            [(FLAGS, &[0u8][..]), (FLAGS | ED, &[0x01]), (FLAGS | ED, &[]), (FLAGS | ED, &[0xa0, 0])]
        {
            assert!(matches!(
                refused(answer(RP_ID, flags, &id, &cose(), rest)),
                RegistrationError::Trailing { .. }
            ));
        }
        let unverified = check(Verify::Pin, &answer(RP_ID, FLAGS, &id, &cose(), &[])).unwrap_err();
        assert!(matches!(unverified, RegistrationError::NotVerified));
    }

    proptest! {
        #[test]
        fn no_bytes_of_a_key_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            drop(check(Verify::Presence, &bytes));
            let head = answer(RP_ID, FLAGS | ED, &[5; 16], &bytes, &[]);
            drop(check(Verify::Presence, &head));
        }
    }
}
