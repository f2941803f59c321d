//! A key in a test's hand.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::{
    builder::Builder,
    ctap::Authenticator,
    fault::Misbehaviour,
    hid::Link,
    person::{Hand, Person},
    seen::Request,
};

/// What has not happened by then does not happen. Guests without hardware to help are slow.
const LIMIT: Duration = Duration::from_secs(60);

/// A key that is plugged in. Dropped, it is unplugged and forgotten.
pub struct VirtualKey {
    key: Arc<Authenticator>,
    link: Link,
}

/// A key that is not plugged in: keeps its credentials, PIN and counter.
pub struct Unplugged {
    key: Arc<Authenticator>,
}

impl VirtualKey {
    /// A new key of this name (`HID_NAME`).
    #[must_use]
    pub fn builder(name: &str) -> Builder {
        Builder::new(name)
    }

    /// Its `/dev/hidrawN`.
    #[must_use]
    pub fn hidraw(&self) -> PathBuf {
        self.link.node().clone()
    }

    /// What happens from now on when it asks for user presence, also to the request that waits now.
    pub fn person(&self, person: Person) {
        self.key.live.set_person(person);
    }

    /// What is wrong from now on: a [`crate::Fault`], one `.on(Command)`, or `None`. Also with the answer that is not
    /// given yet.
    pub fn misbehaves(&self, misbehaviour: impl Into<Misbehaviour>) {
        self.key.live.misbehave(misbehaviour.into());
    }

    /// Touches the key, if it blinks.
    pub fn touch(&self) {
        self.key.live.hand(Hand::Touch);
    }

    /// Refuses, if it blinks.
    pub fn deny(&self) {
        self.key.live.hand(Hand::Deny);
    }

    /// Whether a request waits for a touch.
    #[must_use]
    pub fn is_blinking(&self) -> bool {
        self.key.live.is_blinking()
    }

    /// Waits until a request waits for a touch.
    ///
    /// # Panics
    /// None came within a minute.
    pub fn until_blinking(&self) {
        self.until("blinks", |blinking, _| blinking);
    }

    /// Waits until no request waits for a touch any more.
    ///
    /// # Panics
    /// One still does, after a minute.
    pub fn until_dark(&self) {
        self.until("is dark", |blinking, _| !blinking);
    }

    /// Waits until what was asked is as wanted.
    ///
    /// # Panics
    /// It is not, after a minute.
    pub fn until_seen(&self, what: &str, so: impl Fn(&[Request]) -> bool) {
        self.until(what, |_, seen| so(seen));
    }

    /// What was asked so far, in this order.
    #[must_use]
    pub fn seen(&self) -> Vec<Request> {
        self.key.live.seen()
    }

    /// When the last report of the last answer was given to the kernel: CLOCK_BOOTTIME, nanoseconds. `None`: none was.
    #[must_use]
    pub fn answered_at(&self) -> Option<u64> {
        self.key.live.answered_at()
    }

    /// How many wrong PINs are left.
    #[must_use]
    pub fn pin_retries(&self) -> u8 {
        self.key.store().pin_retries
    }

    /// The last count that it gave out.
    #[must_use]
    pub fn counter(&self) -> u32 {
        self.key.store().counter
    }

    /// The next count is one more. Lower than it was: a clone, or a key that was reset.
    pub fn set_counter(&self, counter: u32) {
        self.key.store().counter = counter;
    }

    /// Pulls it out, also in the middle of a request. Whoever has it open reads an error.
    #[must_use]
    pub fn unplug(self) -> Unplugged {
        let Self { key, link } = self;
        drop(link);
        Unplugged { key }
    }

    fn until(&self, what: &str, so: impl Fn(bool, &[Request]) -> bool) {
        if !self.key.live.until(LIMIT, so) {
            panic!(
                "the key {:?} never {what}; blinking: {}, seen: {:#?}",
                self.key.settings.name,
                self.is_blinking(),
                self.seen()
            );
        }
    }
}

impl Unplugged {
    pub(crate) const fn new(key: Arc<Authenticator>) -> Self {
        Self { key }
    }

    /// Plugs it in. A PIN that was tried three times in a row can be tried again.
    ///
    /// # Errors
    /// The device cannot be made, or does not come up.
    pub fn plug(self) -> io::Result<VirtualKey> {
        self.key.store().power_cycle();
        let link = Link::plug(Arc::clone(&self.key))?;
        Ok(VirtualKey { key: self.key, link })
    }

    /// What was asked while it was plugged in.
    #[must_use]
    pub fn seen(&self) -> Vec<Request> {
        self.key.live.seen()
    }
}

impl std::fmt::Debug for VirtualKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "VirtualKey({:?}, {})", self.key.settings.name, Path::new(self.link.node()).display())
    }
}

impl std::fmt::Debug for Unplugged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Unplugged({:?})", self.key.settings.name)
    }
}
