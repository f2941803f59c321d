//! The person at the key: who touches it, and when.

use std::time::{Duration, Instant};

use crate::ctap::Status;

/// What happens on each request for user presence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Person {
    /// A touch at once: the key does not even blink.
    Touches,
    /// A touch after this long.
    TouchesAfter(Duration),
    /// A refusal at once, as keys with a "no" button have it.
    Denies,
    /// Nothing, until the request is cancelled or the key itself gives up after this long.
    Never(Option<Duration>),
    /// Nothing by itself: `touch()` and `deny()` answer. (They do so in the other cases too, if they come first.)
    ByHand,
}

/// What a hand did to a blinking key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hand {
    Touch,
    Deny,
}

/// Where a request for user presence stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    Given,
    Ended(Status),
    /// Look again when something changed, or at the latest then.
    Open(Option<Instant>),
}

impl Person {
    pub(crate) fn answers(self, hand: Option<Hand>, since: Instant, now: Instant) -> Presence {
        let by = |limit: Duration, end: Presence| {
            let end_at = since + limit;
            if now >= end_at { end } else { Presence::Open(Some(end_at)) }
        };
        match (hand, self) {
            (Some(Hand::Touch), _) | (None, Self::Touches) => Presence::Given,
            (Some(Hand::Deny), _) | (None, Self::Denies) => Presence::Ended(Status::OPERATION_DENIED),
            (None, Self::TouchesAfter(delay)) => by(delay, Presence::Given),
            (None, Self::Never(Some(limit))) => by(limit, Presence::Ended(Status::USER_ACTION_TIMEOUT)),
            (None, Self::Never(None) | Self::ByHand) => Presence::Open(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_person_answers_in_their_own_time() {
        let since = Instant::now();
        let second = Duration::from_secs(1);
        let later = since + second;
        let nobody = |person: Person, now| person.answers(None, since, now);
        assert_eq!(nobody(Person::Touches, since), Presence::Given);
        assert_eq!(nobody(Person::TouchesAfter(second), since), Presence::Open(Some(later)));
        assert_eq!(nobody(Person::TouchesAfter(second), later), Presence::Given);
        assert_eq!(nobody(Person::Denies, since), Presence::Ended(Status::OPERATION_DENIED));
        assert_eq!(nobody(Person::Never(None), later), Presence::Open(None));
        assert_eq!(nobody(Person::Never(Some(second)), later), Presence::Ended(Status::USER_ACTION_TIMEOUT));
        assert_eq!(Person::ByHand.answers(Some(Hand::Touch), since, since), Presence::Given);
        let denied = Presence::Ended(Status::OPERATION_DENIED);
        assert_eq!(Person::Never(None).answers(Some(Hand::Deny), since, since), denied);
    }
}
