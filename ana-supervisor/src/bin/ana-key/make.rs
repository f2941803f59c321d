//! A new credential, on the key that its person touches.

use std::sync::Arc;

use ana_supervisor::approval::security_key::wire::{Attestation, Fault, Made, Make, News, Pin};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use ctap_hid_fido2::{
    fidokey::{
        CredentialExtension, CredentialSupportedKeyType, MakeCredentialArgsBuilder,
        credential_management::credential_management_params::CredentialProtectionPolicy,
        make_credential::make_credential_params::Attestation as Attested,
    },
    public_key_credential_user_entity::PublicKeyCredentialUserEntity,
};

use crate::{
    choose::{self, Patience, again, fault, holders},
    keys::{self, Key, Seen},
    pending::{BLINK_MAX, ask},
    pin::{self, Way},
    sign::{decode, decode_all},
    talk::Talk,
    trouble::{Trouble, status},
};

/// Goes on until there is a credential, or it is taken back: a key may be plugged in, or unplugged, at any time.
pub(crate) fn make(talk: &Talk, wish: &Make) -> Result<News, Fault> {
    let exclude = decode_all(&wish.exclude)?;
    let mut seen = Seen::default();
    loop {
        let keys = keys::gather(talk, &mut seen)?;
        let Some(key) = choose::touched(talk, &keys)? else {
            seen.forget();
            continue;
        };
        drop(keys);
        // Before it blinks; the key looks at the list as well.
        if !exclude.is_empty()
            && holders(talk, std::slice::from_ref(&key), &wish.rp_id, &exclude)?.iter().any(|h| h.certain)
        {
            return Err(Fault::Excluded { key: key.name.clone() });
        }
        match on(talk, wish, &exclude, &key)? {
            Some(made) => return Ok(News::Made(Box::new(made))),
            None => seen.forget(),
        }
    }
}

/// `None`: the key was unplugged.
fn on(talk: &Talk, wish: &Make, exclude: &[Vec<u8>], key: &Arc<Key>) -> Result<Option<Made>, Fault> {
    let mut way = Way::of(key);
    // A key with a PIN may want it for any new credential (CTAP 2.1, 6.4: makeCredUvNotRqd).
    let wants = key.facts.option("alwaysUv") == Some(true)
        || (way == Way::Pin && (wish.resident || key.facts.option("makeCredUvNotRqd") != Some(true)));
    let mut verify = wish.verify || wants;
    let (mut pin, mut new_pin, mut wrong, mut patience) = (None, false, false, Patience::default());
    loop {
        if verify && pin.is_none() {
            match way {
                Way::None => return Err(Fault::CannotVerify { key: key.name.clone() }),
                Way::BuiltIn => {}
                Way::Pin => match pin::enter(talk, key, wrong)? {
                    None => return Ok(None),
                    entered => pin = entered,
                },
                Way::NewPin if new_pin => {}
                Way::NewPin => match pin::set(talk, key)? {
                    None => return Ok(None),
                    set => (pin, new_pin) = (set, true),
                },
            }
        }
        talk.say_again(&News::Touch { key: key.name.clone(), finger: verify && way == Way::BuiltIn });
        let request = Request::of(wish, exclude, key, pin.clone(), verify && way == Way::BuiltIn)?;
        match ask(talk, key, BLINK_MAX, move |hid| request.send(hid))? {
            Ok(attested) => return Ok(Some(made(key, attested))),
            Err(Trouble::Gone) => return Ok(None),
            Err(Trouble::Status(status::CHANNEL_BUSY)) => {
                choose::wait_for_others(talk, key)?;
                return Ok(None);
            }
            Err(Trouble::Status(status::PIN_INVALID)) if pin.is_some() => (pin, wrong) = (None, true),
            Err(Trouble::Status(status::PIN_REQUIRED)) if !verify => verify = true,
            Err(Trouble::Status(status::UV_BLOCKED)) if way.falls_back(key) => way = Way::Pin,
            Err(trouble @ Trouble::Status(status::UV_INVALID)) => patience.spend(key, &trouble)?,
            Err(Trouble::Status(status::PIN_AUTH_BLOCKED | status::UV_BLOCKED)) => {
                pin::wait_until_unplugged(talk, key)?;
                return Ok(None);
            }
            Err(trouble) if again(&trouble) => patience.spend(key, &trouble)?,
            Err(trouble) => return Err(fault(key, trouble)),
        }
    }
}

/// What one authenticatorMakeCredential says.
struct Request {
    rp_id: String,
    client_data: Vec<u8>,
    user: PublicKeyCredentialUserEntity,
    exclude: Vec<Vec<u8>>,
    algorithms: Vec<CredentialSupportedKeyType>,
    resident: bool,
    protect: bool,
    pin: Option<Pin>,
    built_in: bool,
}

impl Request {
    fn of(
        wish: &Make,
        exclude: &[Vec<u8>],
        key: &Key,
        pin: Option<Pin>,
        built_in: bool,
    ) -> Result<Self, Fault> {
        Ok(Self {
            rp_id: wish.rp_id.clone(),
            client_data: decode(&wish.client_data)?,
            user: PublicKeyCredentialUserEntity::new(
                Some(&decode(&wish.user_id)?),
                Some(&wish.user),
                Some(&wish.user),
            ),
            // It was asked silently about all of them before.
            exclude: choose::that_fit_at_once(key, exclude),
            algorithms: algorithms(&key.facts.algorithms),
            resident: wish.resident,
            protect: key.facts.extension("credProtect"),
            pin,
            built_in,
        })
    }

    fn send(self, hid: &ctap_hid_fido2::FidoKeyHid) -> anyhow::Result<Attested> {
        // The library hashes what it calls the challenge: clientDataJSON.
        let mut args = MakeCredentialArgsBuilder::new(&self.rp_id, &self.client_data).user_entity(&self.user);
        args = match (&self.pin, self.built_in) {
            (Some(pin), _) => args.pin(&pin.0),
            (None, true) => args,
            (None, false) => args.without_pin_and_uv(),
        };
        for id in &self.exclude {
            args = args.exclude_authenticator(id);
        }
        for algorithm in &self.algorithms {
            args = args.key_type(*algorithm);
        }
        if self.resident {
            args = args.resident_key();
        }
        if self.protect {
            // Who does not know the credential's id cannot use or find it without the PIN (CTAP 2.1, 12.1).
            let policy = CredentialProtectionPolicy::UserVerificationOptionalWithCredentialIdList;
            args = args.extensions(&[CredentialExtension::CredProtect(Some(policy))]);
        }
        hid.make_credential_with_args(&args.build())
    }
}

/// What the key offers of what ana verifies, in the order in which it is offered; a key that says nothing is asked for
/// both.
fn algorithms(offered: &[i64]) -> Vec<CredentialSupportedKeyType> {
    use CredentialSupportedKeyType::{Ecdsa256, Ed25519};
    let known = |number: &i64| match number {
        -7 => Some(Ecdsa256),
        -8 => Some(Ed25519),
        _ => None,
    };
    let both: Vec<_> = offered.iter().filter_map(known).collect();
    if both.is_empty() { vec![Ecdsa256, Ed25519] } else { both }
}

fn made(key: &Key, attested: Attested) -> Made {
    let text = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    Made {
        key: key.name.clone(),
        authenticator_data: text(&attested.auth_data),
        attestation: Attestation {
            format: crate::trouble::plain(&attested.fmt),
            algorithm: attested.attstmt_alg,
            signature: text(&attested.attstmt_sig),
            certificates: attested.attstmt_x5c.iter().map(|der| text(der)).collect(),
        },
        transports: key.facts.transports.clone(),
    }
}
