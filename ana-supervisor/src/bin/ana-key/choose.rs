//! Which key is meant, where several are plugged in.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ana_supervisor::approval::security_key::wire::{Fault, News};
use ctap_hid_fido2::fidokey::GetAssertionArgsBuilder;
use ctap_hid_fido2::fidokey::{MakeCredentialArgsBuilder, get_assertion::get_assertion_params::Assertion};

use crate::{
    keys::Key,
    pending::{ANSWER_MAX, BLINK_MAX, Pending, ask, race},
    talk::Talk,
    trouble::{Trouble, status},
};

/// Bytes of credential ids in one question: a key takes messages of at least 1,024 bytes.
const IDS_BYTES: usize = 600;

/// All of them blink; the one that is touched is meant. `None`: look again at what is plugged in.
///
/// # Errors
/// What goes on is to end; a person says no.
pub(crate) fn touched(talk: &Talk, keys: &[Arc<Key>]) -> Result<Option<Arc<Key>>, Fault> {
    if let [only] = keys {
        return Ok(Some(Arc::clone(only)));
    }
    let mut patience = Patience::default();
    loop {
        talk.say_again(&News::Choose { keys: keys.iter().map(|key| key.name.clone()).collect() });
        let open = keys.iter().map(|key| {
            let can = key.facts.can_be_selected();
            Pending::start(talk, key, move |hid| match can {
                true => hid.selection(),
                // An older key blinks for a credential that it forgets at once: not a resident one.
                false => {
                    let nothing =
                        MakeCredentialArgsBuilder::new("ana:select", b"").without_pin_and_uv().build();
                    hid.make_credential_with_args(&nothing).map(drop)
                }
            })
        });
        let (key, answer) = race(talk, open.collect(), BLINK_MAX)?;
        match answer {
            // What an older key says to a touch when it wants its PIN.
            Ok(())
            | Err(Trouble::Status(status::PIN_REQUIRED | status::PIN_INVALID | status::PIN_NOT_SET)) => {
                return Ok(Some(key));
            }
            Err(trouble) if again(&trouble) => patience.spend(&key, &trouble)?,
            Err(Trouble::Status(status::CHANNEL_BUSY)) => {
                wait_for_others(talk, &key)?;
                return Ok(None);
            }
            Err(Trouble::Gone | Trouble::Silent) => return Ok(None),
            Err(trouble) => return Err(fault(&key, trouble)),
        }
    }
}

/// A key that holds some of the credentials in question.
pub(crate) struct Holder {
    pub(crate) key: Arc<Key>,
    /// All of them where the key does not say without a PIN.
    pub(crate) ids: Vec<Vec<u8>>,
    /// It has said so.
    pub(crate) certain: bool,
}

/// Which of the keys hold one of these credentials. None of them blinks for this (CTAP 2.1, 6.2.2: "up" false).
///
/// # Errors
/// What goes on is to end.
pub(crate) fn holders(
    talk: &Talk,
    keys: &[Arc<Key>],
    rp_id: &str,
    ids: &[Vec<u8>],
) -> Result<Vec<Holder>, Fault> {
    let mut holders = Vec::new();
    for key in keys {
        let ids = that_fit(key, ids);
        for part in parts(&ids, at_most(key)) {
            match held(talk, key, rp_id, part)? {
                Held::One(id) => {
                    holders.push(Holder { key: Arc::clone(key), ids: vec![id], certain: true });
                    break;
                }
                Held::Perhaps => {
                    holders.push(Holder { key: Arc::clone(key), ids: ids.clone(), certain: false });
                    break;
                }
                Held::None => {}
            }
        }
    }
    Ok(holders)
}

/// Those that the key could have made.
fn that_fit(key: &Key, ids: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let longest = usize::try_from(key.facts.id_length_max).unwrap_or_default();
    ids.iter().filter(|id| longest == 0 || id.len() <= longest).cloned().collect()
}

/// How many ids the key takes at a time; it may not say.
fn at_most(key: &Key) -> usize {
    usize::try_from(key.facts.ids_max).unwrap_or_default().clamp(1, 8)
}

/// As many of these as one question has room for.
pub(crate) fn that_fit_at_once(key: &Key, ids: &[Vec<u8>]) -> Vec<Vec<u8>> {
    parts(&that_fit(key, ids), at_most(key)).first().map(|part| part.to_vec()).unwrap_or_default()
}

enum Held {
    One(Vec<u8>),
    None,
    /// It does not say.
    Perhaps,
}

fn held(talk: &Talk, key: &Arc<Key>, rp_id: &str, ids: &[Vec<u8>]) -> Result<Held, Fault> {
    let (rp, part) = (rp_id.to_owned(), ids.to_vec());
    let answer = ask(talk, key, ANSWER_MAX, move |hid| {
        let mut look = GetAssertionArgsBuilder::new(&rp, b"").without_pin_and_uv().without_up();
        for id in &part {
            look = look.add_credential_id(id);
        }
        hid.get_assertion_with_args(&look.build())
    })?;
    Ok(match answer {
        Ok(found) => match named(&found, ids) {
            Some(id) => Held::One(id),
            None => Held::None,
        },
        Err(Trouble::Status(status::PIN_REQUIRED | status::CHANNEL_BUSY)) => Held::Perhaps,
        // A key that makes no sense, is gone, or says no: it holds nothing for us.
        Err(Trouble::Status(_) | Trouble::Gone | Trouble::Garbled(_) | Trouble::Silent) => Held::None,
    })
}

/// The credential of an assertion: a key may leave it out where only one was asked for (CTAP 2.1, 6.2.2).
pub(crate) fn named(found: &[Assertion], asked: &[Vec<u8>]) -> Option<Vec<u8>> {
    match (found.first(), asked) {
        (Some(assertion), [only]) if assertion.credential_id.is_empty() => Some(only.clone()),
        (Some(assertion), _) => asked.iter().find(|id| **id == assertion.credential_id).cloned(),
        (None, _) => None,
    }
}

fn parts(ids: &[Vec<u8>], at_most: usize) -> Vec<&[Vec<u8>]> {
    let (mut parts, mut from, mut bytes) = (Vec::new(), 0, 0);
    for (place, id) in ids.iter().enumerate() {
        if place > from && (place - from == at_most || bytes + id.len() > IDS_BYTES) {
            parts.push(&ids[from..place]);
            (from, bytes) = (place, 0);
        }
        bytes += id.len();
    }
    parts.push(&ids[from..]);
    parts.retain(|part| !part.is_empty());
    parts
}

/// Nobody touched it in time: it is asked anew, until whoever asked has had enough.
pub(crate) fn again(trouble: &Trouble) -> bool {
    use status::{ACTION_TIMEOUT, KEEPALIVE_CANCEL, USER_ACTION_TIMEOUT};
    matches!(trouble, Trouble::Status(USER_ACTION_TIMEOUT | ACTION_TIMEOUT | KEEPALIVE_CANCEL))
}

/// Another program has asked it something, a browser maybe: it is tried again a little later.
///
/// # Errors
/// What goes on is to end.
pub(crate) fn wait_for_others(talk: &Talk, key: &Key) -> Result<(), Fault> {
    const LATER: Duration = Duration::from_millis(500);
    let why = "another program is using it".to_owned();
    talk.say(&News::Unusable { keys: vec![key.name.clone()], why });
    talk.pause(LATER)
}

/// A key that says at once that nobody touched it is not asked for ever.
pub(crate) struct Patience {
    since: Instant,
    left: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self { since: Instant::now(), left: 5 }
    }
}

impl Patience {
    /// # Errors
    /// It was asked too often in too short a time.
    pub(crate) fn spend(&mut self, key: &Key, trouble: &Trouble) -> Result<(), Fault> {
        let quick = self.since.elapsed() < Duration::from_secs(2);
        self.since = Instant::now();
        self.left = if quick { self.left.saturating_sub(1) } else { Self::default().left };
        if self.left == 0 { Err(fault(key, trouble.clone())) } else { Ok(()) }
    }
}

/// What is told of trouble that ends it.
pub(crate) fn fault(key: &Key, trouble: Trouble) -> Fault {
    let key = key.name.clone();
    match trouble {
        Trouble::Status(status::OPERATION_DENIED) => Fault::Denied { key },
        Trouble::Status(status::CREDENTIAL_EXCLUDED) => Fault::Excluded { key },
        Trouble::Status(status::PIN_BLOCKED) => Fault::PinBlocked { key },
        Trouble::Status(status::PIN_NOT_SET) => Fault::PinNotSet { key },
        Trouble::Status(status::PIN_POLICY_VIOLATION) => Fault::PinPolicy { key },
        Trouble::Status(status::KEY_STORE_FULL) => Fault::Full { key },
        Trouble::Status(status) => Fault::Ctap { key, status },
        Trouble::Garbled(why) => Fault::Garbled { key, why },
        Trouble::Silent | Trouble::Gone => Fault::Silent { key },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_cut_where_a_key_could_not_take_them() {
        let ids: Vec<Vec<u8>> = [64, 64, 64, 500, 700, 16].iter().map(|length| vec![7; *length]).collect();
        let lengths = |at_most| parts(&ids, at_most).iter().map(|part| part.len()).collect::<Vec<_>>();
        assert_eq!(lengths(8), [3, 1, 1, 1]);
        assert_eq!(lengths(2), [2, 2, 1, 1]);
        assert_eq!(lengths(1), [1; 6]);
        assert!(parts(&[], 8).is_empty());
    }

    #[test]
    fn a_key_may_leave_out_the_only_name() {
        let unnamed = Assertion::default();
        let named_so = Assertion { credential_id: vec![1], ..Assertion::default() };
        assert_eq!(named(std::slice::from_ref(&unnamed), &[vec![1]]), Some(vec![1]));
        assert_eq!(named(&[unnamed], &[vec![1], vec![2]]), None);
        assert_eq!(named(std::slice::from_ref(&named_so), &[vec![2], vec![1]]), Some(vec![1]));
        assert_eq!(named(&[named_so], &[vec![2]]), None);
        assert_eq!(named(&[], &[vec![2]]), None);
    }
}
