//! A security key: what its person has to do, as the helper process tells it.

use std::{
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use zeroize::Zeroizing;

use super::secret::{Secret, Typed};
use crate::{
    approval::security_key::{
        Helper, HelperError,
        wire::{Fault, Made, News, Order, Pin, Signed},
    },
    operation::Bytes,
    pipeline::chain,
};

/// A PIN has 4 to 63 characters (CTAP 2.1, 6.5.1), at most 63 bytes.
const PIN_MIN: usize = 4;
const PIN_BYTES_MAX: usize = 63;

/// One order to the helper, and what becomes of it.
pub struct Dialogue {
    helper: Helper,
    /// What the person is to do, in the helper's words; `None`: it looks for keys.
    news: Option<News>,
    typing: Option<Typing>,
    /// What was wrong with the last thing that was typed.
    complaint: Option<String>,
    what: Purpose,
}

/// What the key is wanted for.
#[derive(Clone, Debug)]
pub struct Purpose {
    /// Stands before "touch …", where there is more than one step.
    pub step: String,
    /// The names of the passkeys that may answer; empty: a new one is made.
    pub passkeys: Vec<String>,
    /// When it is too late.
    pub until: jiff::Timestamp,
}

struct Typing {
    secret: Secret,
    /// The first of two equal ones, when a PIN is chosen.
    first: Option<Zeroizing<String>>,
    new: bool,
    length_min: usize,
}

/// What came of it.
#[derive(Debug)]
pub enum Heard {
    /// It goes on.
    Open,
    Made(Box<Made>),
    Signed(Box<Signed>),
    Failed(Fault),
}

impl Dialogue {
    /// Gives the helper its order.
    pub fn start(mut helper: Helper, order: &Order, what: Purpose) -> Result<Self, Fault> {
        helper.tell(order).map_err(lost)?;
        Ok(Self { helper, news: None, typing: None, complaint: None, what })
    }

    /// The helper, for the next order.
    pub fn into_helper(self) -> Helper {
        self.helper
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.helper.as_fd()
    }

    /// When to call [`Dialogue::tick`] at the latest.
    pub fn timeout(&self) -> Option<Duration> {
        let second = Some(Duration::from_secs(1));
        [second, self.helper.silence_left()].into_iter().flatten().min()
    }

    /// Time passed.
    pub fn tick(&mut self) -> Heard {
        match self.helper.check() {
            Ok(()) => Heard::Open,
            Err(error) => Heard::Failed(lost(error)),
        }
    }

    /// The helper has said something.
    pub fn hear(&mut self) -> Heard {
        let all = match self.helper.hear() {
            Ok(all) => all,
            Err(error) => return Heard::Failed(lost(error)),
        };
        for news in all {
            match news {
                News::Made(made) => return Heard::Made(made),
                News::Signed(signed) => return Heard::Signed(signed),
                News::Failed(fault) => return Heard::Failed(fault.escaped()),
                News::Pin { .. } | News::NewPin { .. } => self.ask(news),
                News::Keys(_)
                | News::Insert
                | News::Others { .. }
                | News::Unusable { .. }
                | News::Choose { .. }
                | News::Locked { .. }
                | News::Touch { .. } => {
                    (self.typing, self.complaint) = (None, None);
                    self.news = Some(news);
                }
            }
        }
        Heard::Open
    }

    fn ask(&mut self, news: News) {
        let (mut new, mut length_min) = (false, PIN_MIN);
        if let News::NewPin { length_min: at_least, .. } = &news {
            (new, length_min) = (true, usize::try_from(*at_least).unwrap_or(PIN_MIN));
        }
        let wrong = matches!(news, News::Pin { wrong: true, .. });
        self.complaint = wrong.then(|| "that PIN is wrong".to_owned());
        self.typing = Some(Typing { secret: Secret::new(), first: None, new, length_min });
        self.news = Some(news);
    }

    /// Keys were pressed.
    pub fn typed(&mut self, keys: &[u8]) -> Heard {
        let Some(typing) = &mut self.typing else {
            // Escape alone, Ctrl-C, Ctrl-D.
            return if matches!(keys, [0x1b] | [.., 0x03 | 0x04]) { self.cancel() } else { Heard::Open };
        };
        let pin = match typing.secret.take(keys) {
            Typed::More => return Heard::Open,
            Typed::Cancelled => return self.cancel(),
            Typed::Line(pin) => pin,
        };
        // What the key would refuse costs no try.
        if pin.chars().count() < typing.length_min || pin.len() > PIN_BYTES_MAX {
            self.complaint = Some(format!("a PIN has {} to {PIN_BYTES_MAX} characters", typing.length_min));
            return Heard::Open;
        }
        self.complaint = None;
        match (typing.new, typing.first.take()) {
            (true, None) => {
                typing.first = Some(pin);
                return Heard::Open;
            }
            (true, Some(first)) if first != pin => {
                self.complaint = Some("the two differ; once more from the start".to_owned());
                return Heard::Open;
            }
            _ => {}
        }
        self.typing = None;
        match self.helper.tell(&Order::Pin(Pin(pin))) {
            Ok(()) => Heard::Open,
            Err(error) => Heard::Failed(lost(error)),
        }
    }

    /// A PIN is being typed.
    pub fn secret(&self) -> bool {
        self.typing.is_some()
    }

    fn cancel(&mut self) -> Heard {
        self.typing = None;
        // If it is gone, it blinks no more either.
        self.helper.tell(&Order::Cancel).ok();
        Heard::Failed(Fault::Cancelled)
    }

    fn seconds_left(&self) -> i64 {
        self.what.until.duration_since(jiff::Timestamp::now()).as_secs().max(0)
    }

    /// What stands below the question; where a PIN is being typed, the last line ends in its prompt.
    pub fn lines(&self) -> Vec<String> {
        let left = format!("{} s left, ", self.seconds_left());
        if self.typing.is_some() {
            return self.worded(&left);
        }
        self.words().into_iter().map(|line| format!("{line}  ({left}Esc: not now)")).collect()
    }

    /// The same without the time, for where nothing is drawn anew.
    pub fn words(&self) -> Vec<String> {
        self.worded("")
    }

    /// `left`: how much time there is, where it belongs into a prompt.
    fn worded(&self, left: &str) -> Vec<String> {
        let mut lines: Vec<String> = self.complaint.iter().cloned().collect();
        lines.push(format!("{}{}", self.what.step, self.instruction(left)));
        lines
    }

    fn instruction(&self, left: &str) -> String {
        let passkeys = self.what.passkeys.join(" or ");
        match &self.news {
            None | Some(News::Keys(_)) => "looking for your security key ...".to_owned(),
            Some(News::Insert) if passkeys.is_empty() => "plug in the security key".to_owned(),
            Some(News::Insert) => format!("plug in your security key ({passkeys})"),
            Some(News::Others { keys }) => {
                format!("{} does not hold {passkeys}: plug in the key that does", all(keys, "and"))
            }
            Some(News::Unusable { keys, why }) => {
                format!("{} cannot be used: {}", all(keys, "and"), plain(why))
            }
            Some(News::Choose { keys }) => format!("touch the key that is meant: {}", all(keys, "or")),
            Some(News::Pin { key, retries, .. }) => {
                format!("PIN of {} ({}{left}Esc: not now): ", plain(key), tries(*retries))
            }
            Some(News::NewPin { key, length_min }) => {
                let again = self.typing.as_ref().is_some_and(|typing| typing.first.is_some());
                match again {
                    true => "the new PIN once more: ".to_owned(),
                    false => {
                        format!("{} has no PIN; choose one of at least {length_min} characters: ", plain(key))
                    }
                }
            }
            Some(News::Locked { key }) => {
                format!("{} takes no more PINs before it was unplugged: plug it out and in again", plain(key))
            }
            Some(News::Touch { key, finger: false }) => format!("touch {}", plain(key)),
            Some(News::Touch { key, finger: true }) => format!("put your finger on {}", plain(key)),
            Some(News::Made(_) | News::Signed(_) | News::Failed(_)) => String::new(),
        }
    }
}

/// What a fault of the helper is to the person.
fn lost(error: HelperError) -> Fault {
    Fault::Other { why: chain(&error) }.escaped()
}

fn tries(retries: Option<u32>) -> String {
    match retries {
        None => String::new(),
        Some(1) => "the last try before the key is blocked for good, ".to_owned(),
        Some(n) => format!("{n} tries left, "),
    }
}

fn all(names: &[String], between: &str) -> String {
    names.iter().map(|name| plain(name)).collect::<Vec<_>>().join(&format!(" {between} "))
}

/// A key chooses its own name.
fn plain(text: &str) -> String {
    Bytes::from(text).escaped()
}
