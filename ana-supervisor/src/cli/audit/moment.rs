//! A moment as people write it.

use std::str::FromStr;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// A moment: `2026-11-21T12:00:00Z`, `2026-11-21 12:00` or `2026-11-21` (here), `2h` or `7d` ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment(pub(super) Timestamp);

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text, Timestamp::now(), &TimeZone::system())
    }
}

impl Moment {
    fn parse(text: &str, now: Timestamp, zone: &TimeZone) -> Result<Self, String> {
        if let Ok(moment) = text.parse::<Timestamp>() {
            return Ok(Self(moment));
        }
        let local =
            text.parse::<DateTime>().or_else(|_| text.parse::<Date>().map(|date| date.at(0, 0, 0, 0)));
        if let Ok(local) = local {
            return zone.to_timestamp(local).map(Self).map_err(|error| error.to_string());
        }
        let ago = match text.strip_suffix('d').map(str::parse::<i64>) {
            Some(Ok(days)) => days.checked_mul(24).map(SignedDuration::from_hours),
            _ => text.parse::<SignedDuration>().ok(),
        };
        ago.filter(|ago| !ago.is_negative()).and_then(|ago| now.checked_sub(ago).ok()).map(Self).ok_or_else(
            || "write 2026-11-21T12:00:00Z, \"2026-11-21 12:00\", 2026-11-21, 90m, 2h or 7d (ago)".into(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_written() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().expect("a moment");
        let read = |text| Moment::parse(text, now, &TimeZone::UTC).map(|moment| moment.0.to_string());
        for (text, moment) in [
            ("2026-11-20T01:02:03Z", "2026-11-20T01:02:03Z"),
            ("2026-11-20T01:02:03+01:00", "2026-11-20T00:02:03Z"),
            ("2026-11-20 01:02", "2026-11-20T01:02:00Z"),
            ("2026-11-20", "2026-11-20T00:00:00Z"),
            ("2h", "2026-11-21T10:00:00Z"),
            ("90m", "2026-11-21T10:30:00Z"),
            ("7d", "2026-11-14T12:00:00Z"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(moment), "{text}");
        }
        for text in ["", "x", "-2h", "2026-13-01", "9999999999999999999d", "7"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
