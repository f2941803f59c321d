//! A key's PIN, typed by its person elsewhere.

use std::{sync::Arc, time::Duration};

use ana_supervisor::approval::security_key::wire::{Fault, News, Pin};

use crate::{
    choose::fault,
    keys::Key,
    pending::{ANSWER_MAX, ask},
    talk::Talk,
    trouble::{Trouble, status},
};

/// How often it is looked whether the key is still plugged in.
const LOOK: Duration = Duration::from_millis(250);

/// How a key verifies its person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Pin,
    /// A PIN that has to be set first.
    NewPin,
    /// A finger on the key itself.
    BuiltIn,
    None,
}

impl Way {
    pub(crate) fn of(key: &Key) -> Self {
        match (key.facts.option("uv"), key.facts.option("clientPin")) {
            (Some(true), _) => Self::BuiltIn,
            (_, Some(true)) => Self::Pin,
            (_, Some(false)) => Self::NewPin,
            (_, None) => Self::None,
        }
    }

    /// A key that takes no finger any more may still take its PIN.
    pub(crate) fn falls_back(self, key: &Key) -> bool {
        self == Self::BuiltIn && key.facts.option("clientPin") == Some(true)
    }
}

/// Asks for the PIN, and says how many tries are left. `None`: the key was unplugged.
///
/// # Errors
/// What goes on is to end; the PIN is blocked.
pub(crate) fn enter(talk: &Talk, key: &Arc<Key>, wrong: bool) -> Result<Option<Pin>, Fault> {
    let retries = match ask(talk, key, ANSWER_MAX, |hid| hid.get_pin_retries())? {
        Ok(0) => return Err(Fault::PinBlocked { key: key.name.clone() }),
        Ok(retries) => u32::try_from(retries).ok(),
        Err(Trouble::Gone) => return Ok(None),
        Err(Trouble::Status(status::PIN_BLOCKED)) => return Err(Fault::PinBlocked { key: key.name.clone() }),
        Err(Trouble::Status(_)) => None,
        Err(trouble @ (Trouble::Garbled(_) | Trouble::Silent)) => return Err(fault(key, trouble)),
    };
    typed(talk, key, &News::Pin { key: key.name.clone(), retries, wrong })
}

/// Asks for a new PIN, and sets it. `None`: the key was unplugged.
///
/// # Errors
/// What goes on is to end; the key does not take it.
pub(crate) fn set(talk: &Talk, key: &Arc<Key>) -> Result<Option<Pin>, Fault> {
    let wanted = News::NewPin { key: key.name.clone(), length_min: key.facts.pin_length_min };
    let Some(pin) = typed(talk, key, &wanted)? else { return Ok(None) };
    let new = pin.clone();
    match ask(talk, key, ANSWER_MAX, move |hid| hid.set_new_pin(&new.0))? {
        Ok(()) => Ok(Some(pin)),
        Err(Trouble::Gone) => Ok(None),
        Err(trouble) => Err(fault(key, trouble)),
    }
}

fn typed(talk: &Talk, key: &Key, question: &News) -> Result<Option<Pin>, Fault> {
    talk.forget_pin();
    talk.say_again(question);
    loop {
        if let Some(pin) = talk.pin(LOOK)? {
            return Ok(Some(pin));
        }
        if !key.is_there() {
            return Ok(None);
        }
    }
}

/// After three wrong PINs in a row a key wants to be unplugged (CTAP 2.1, 6.5.5.7.1): waits for that.
///
/// # Errors
/// What goes on is to end.
pub(crate) fn wait_until_unplugged(talk: &Talk, key: &Key) -> Result<(), Fault> {
    talk.say_again(&News::Locked { key: key.name.clone() });
    while key.is_there() {
        talk.pause(LOOK)?;
    }
    Ok(())
}
