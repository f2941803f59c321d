//! An assertion: by whichever plugged-in key holds one of the passkeys that may answer.

use std::sync::Arc;

use ana_supervisor::approval::security_key::wire::{Assert, Fault, News, Pin, Signed};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use ctap_hid_fido2::fidokey::{GetAssertionArgsBuilder, get_assertion::get_assertion_params::Assertion};

use crate::{
    choose::{self, Holder, Patience, again, fault, holders, named},
    keys::{self, Key, Seen},
    pending::{BLINK_MAX, Pending, race},
    pin::{self, Way},
    talk::Talk,
    trouble::{Trouble, status},
};

/// One attempt with the keys that are plugged in now.
enum Attempt {
    Signed(News),
    /// One was unplugged, or has to be.
    LookAgain,
    /// They hold none of the passkeys.
    Others,
}

/// Goes on until there is an assertion, or it is taken back: a key may be plugged in, or unplugged, at any time.
pub(crate) fn sign(talk: &Talk, wish: &Assert) -> Result<News, Fault> {
    let allowed = decode_all(&wish.allowed)?;
    let client_data = decode(&wish.client_data)?;
    let mut seen = Seen::default();
    loop {
        let keys = keys::gather(talk, &mut seen)?;
        let names = keys.iter().map(|key| key.name.clone()).collect();
        let holders = holders(talk, &keys, &wish.rp_id, &allowed)?;
        // The others are closed.
        drop(keys);
        let request = Request { talk, wish, client_data: &client_data };
        match request.attempt(holders)? {
            Attempt::Signed(news) => return Ok(news),
            Attempt::LookAgain => seen.forget(),
            Attempt::Others => talk.say(&News::Others { keys: names }),
        }
    }
}

struct Request<'a> {
    talk: &'a Talk,
    wish: &'a Assert,
    client_data: &'a [u8],
}

impl Request<'_> {
    fn attempt(&self, holders: Vec<Holder>) -> Result<Attempt, Fault> {
        let verifies =
            |holder: &Holder| self.wish.verify || holder.key.facts.option("alwaysUv") == Some(true);
        if holders.is_empty() {
            return Ok(Attempt::Others);
        }
        if !holders.iter().any(verifies) {
            return self.by_touch(&holders);
        }
        // A PIN is one key's.
        let keys: Vec<Arc<Key>> = holders.iter().map(|holder| Arc::clone(&holder.key)).collect();
        let Some(meant) = choose::touched(self.talk, &keys)? else { return Ok(Attempt::LookAgain) };
        match holders.into_iter().find(|holder| Arc::ptr_eq(&holder.key, &meant)) {
            Some(holder) => self.verified(holder),
            None => Ok(Attempt::LookAgain),
        }
    }

    fn by_touch(&self, holders: &[Holder]) -> Result<Attempt, Fault> {
        let mut patience = Patience::default();
        loop {
            let names: Vec<String> = holders.iter().map(|holder| holder.key.name.clone()).collect();
            self.talk.say_again(&News::Touch { key: names.join(" or "), finger: false });
            let open = holders.iter().map(|holder| self.start(holder, None, false)).collect();
            let (key, answer) = race(self.talk, open, BLINK_MAX)?;
            match answer {
                Err(trouble) if again(&trouble) => patience.spend(&key, &trouble)?,
                answer => {
                    let ids = holders.iter().find(|holder| Arc::ptr_eq(&holder.key, &key));
                    return self.outcome(
                        &key,
                        ids.map(|holder| holder.ids.as_slice()).unwrap_or_default(),
                        answer,
                    );
                }
            }
        }
    }

    fn verified(&self, holder: Holder) -> Result<Attempt, Fault> {
        let key = &holder.key;
        let mut way = Way::of(key);
        let (mut pin, mut wrong, mut patience) = (None, false, Patience::default());
        loop {
            match way {
                Way::NewPin => return Err(Fault::PinNotSet { key: key.name.clone() }),
                Way::None => return Err(Fault::CannotVerify { key: key.name.clone() }),
                Way::Pin if pin.is_none() => {
                    pin = pin::enter(self.talk, key, wrong)?;
                    if pin.is_none() {
                        return Ok(Attempt::LookAgain);
                    }
                }
                Way::Pin | Way::BuiltIn => {}
            }
            self.talk.say_again(&News::Touch { key: key.name.clone(), finger: way == Way::BuiltIn });
            let open = self.start(&holder, pin.clone(), way == Way::BuiltIn);
            let (_, answer) = race(self.talk, vec![open], BLINK_MAX)?;
            match answer {
                Err(Trouble::Status(status::PIN_INVALID)) if way == Way::Pin => (pin, wrong) = (None, true),
                Err(Trouble::Status(status::UV_BLOCKED)) if way.falls_back(key) => way = Way::Pin,
                Err(trouble @ Trouble::Status(status::UV_INVALID)) => patience.spend(key, &trouble)?,
                Err(Trouble::Status(status::PIN_AUTH_BLOCKED | status::UV_BLOCKED)) => {
                    pin::wait_until_unplugged(self.talk, key)?;
                    return Ok(Attempt::LookAgain);
                }
                Err(trouble) if again(&trouble) => patience.spend(key, &trouble)?,
                answer => return self.outcome(key, &holder.ids, answer),
            }
        }
    }

    fn outcome(
        &self,
        key: &Key,
        asked: &[Vec<u8>],
        answer: Result<Vec<Assertion>, Trouble>,
    ) -> Result<Attempt, Fault> {
        match answer {
            Ok(assertions) => {
                let garbled = |why: &str| Fault::Garbled { key: key.name.clone(), why: why.to_owned() };
                let id =
                    named(&assertions, asked).ok_or_else(|| garbled("it signed with another credential"))?;
                let assertion = assertions.into_iter().next().ok_or_else(|| garbled("it signed nothing"))?;
                Ok(Attempt::Signed(News::Signed(Box::new(Signed {
                    key: key.name.clone(),
                    credential_id: BASE64_URL_SAFE_NO_PAD.encode(id),
                    authenticator_data: BASE64_URL_SAFE_NO_PAD.encode(assertion.auth_data),
                    signature: BASE64_URL_SAFE_NO_PAD.encode(assertion.signature),
                }))))
            }
            Err(Trouble::Gone) => Ok(Attempt::LookAgain),
            Err(Trouble::Status(status::CHANNEL_BUSY)) => {
                choose::wait_for_others(self.talk, key)?;
                Ok(Attempt::LookAgain)
            }
            Err(Trouble::Status(status::NO_CREDENTIALS)) => Ok(Attempt::Others),
            Err(trouble) => Err(fault(key, trouble)),
        }
    }

    fn start(&self, holder: &Holder, pin: Option<Pin>, built_in: bool) -> Pending<Vec<Assertion>> {
        let (rp_id, client_data) = (self.wish.rp_id.clone(), self.client_data.to_vec());
        let ids = holder.ids.clone();
        Pending::start(self.talk, &holder.key, move |hid| {
            // The library hashes what it calls the challenge: clientDataJSON.
            let mut args = GetAssertionArgsBuilder::new(&rp_id, &client_data);
            args = match (&pin, built_in) {
                (Some(pin), _) => args.pin(&pin.0),
                (None, true) => args,
                (None, false) => args.without_pin_and_uv(),
            };
            for id in &ids {
                args = args.add_credential_id(id);
            }
            hid.get_assertion_with_args(&args.build())
        })
    }
}

pub(crate) fn decode_all(texts: &[String]) -> Result<Vec<Vec<u8>>, Fault> {
    texts.iter().map(|text| decode(text)).collect()
}

pub(crate) fn decode(text: &str) -> Result<Vec<u8>, Fault> {
    BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|error| Fault::Other { why: error.to_string() })
}
