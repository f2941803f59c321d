//! A person who keeps saying no is asked less and less often.
//!
//! One denial is an ordinary answer: the agent reads the reason, and its next attempt may be the right one. The second
//! in a row, and each further one, closes the desk for a while, twice as long each time; an approval opens it for good.
//! What counts is an agent that asks *again*: denials of questions that were put before the last denial (many at once)
//! are one answer. What a rule denies, and a question that nobody answers, do not count: somebody who is not there has
//! said nothing, and should find the question when he comes back.
//!
//! No clock in here: the times are nanoseconds of CLOCK_BOOTTIME.

/// After the second denial in a row.
const FIRST_NS: u64 = 10_000_000_000;
/// However many denials there were.
const LONGEST_NS: u64 = 300_000_000_000;

/// The denials in a row of one session.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    denials: u32,
    /// When the last one that counted was given.
    last_ns: u64,
    until_ns: u64,
}

/// Nothing is asked now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closed {
    /// So many denials in a row led to it.
    pub(super) denials: u32,
    /// How long it stays so.
    pub(super) left_ns: u64,
}

impl Backoff {
    /// A person said no at `now_ns` to a question that was put at `asked_ns`.
    pub(super) fn denied(&mut self, asked_ns: u64, now_ns: u64) {
        if self.denials > 0 && asked_ns <= self.last_ns {
            return;
        }
        self.denials = self.denials.saturating_add(1);
        self.last_ns = now_ns;
        // No pause closes nothing, not even for a question whose clock was read a moment before this denial.
        self.until_ns = match pause_ns(self.denials) {
            0 => 0,
            pause => now_ns.saturating_add(pause),
        };
    }

    /// A person said yes.
    pub(super) fn approved(&mut self) {
        *self = Self::default();
    }

    /// Whether a question may not be put at `now_ns`.
    pub(super) fn closed(&self, now_ns: u64) -> Option<Closed> {
        let left_ns = self.until_ns.saturating_sub(now_ns);
        (left_ns > 0).then_some(Closed { denials: self.denials, left_ns })
    }
}

fn pause_ns(denials: u32) -> u64 {
    match denials {
        0 | 1 => 0,
        more => FIRST_NS.saturating_mul(1 << (more - 2).min(32)).min(LONGEST_NS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn the_second_denial_in_a_row_closes_and_each_further_one_doubles() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.closed(0), None);
        backoff.denied(0, 5);
        assert_eq!(backoff.closed(5), None, "one denial is an answer");
        assert_eq!(backoff.closed(4), None, "nor was it closed before");
        let mut now = 5;
        let mut pauses = Vec::new();
        for denials in 2..9 {
            now += SECOND;
            backoff.denied(now, now);
            let closed = backoff.closed(now).expect("closed");
            assert_eq!(closed.denials, denials);
            assert_eq!(backoff.closed(now + closed.left_ns - 1).map(|closed| closed.left_ns), Some(1));
            assert_eq!(backoff.closed(now + closed.left_ns), None);
            pauses.push(closed.left_ns / SECOND);
            now += closed.left_ns;
        }
        assert_eq!(pauses, [10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn an_approval_begins_anew() {
        let mut backoff = Backoff::default();
        backoff.denied(0, 0);
        backoff.denied(1, 1);
        assert!(backoff.closed(2).is_some());
        backoff.approved();
        assert_eq!(backoff.closed(2), None);
        backoff.denied(3, 3);
        assert_eq!(backoff.closed(3), None);
    }

    #[test]
    fn what_was_asked_before_the_last_denial_is_no_further_one() {
        let mut backoff = Backoff::default();
        for now in 10..20 {
            backoff.denied(5, now);
        }
        assert_eq!(backoff.closed(20), None, "all of these waited when the first was denied");
        backoff.denied(11, 30);
        assert_eq!(backoff.closed(30), Some(Closed { denials: 2, left_ns: FIRST_NS }), "asked again");
        backoff.denied(12, 40);
        assert_eq!(backoff.closed(40).unwrap().left_ns, FIRST_NS - 10);
    }

    #[test]
    fn no_number_of_denials_overflows() {
        let mut backoff = Backoff { denials: u32::MAX - 1, last_ns: 0, until_ns: 0 };
        backoff.denied(7, 7);
        backoff.denied(8, u64::MAX - 1);
        assert!(backoff.closed(u64::MAX - 1).is_some());
        assert_eq!(pause_ns(u32::MAX), LONGEST_NS);
    }
}
