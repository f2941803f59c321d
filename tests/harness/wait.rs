//! Waiting for a condition, never for an amount of time.

use std::time::{Duration, Instant};

/// How long a condition may take on a loaded machine of two cores before the test gives up.
pub const LIMIT: Duration = Duration::from_secs(30);

/// How long what happens at once may take there: far from never, which is what it is told from.
pub const SOON: Duration = Duration::from_secs(15);

const STEP: Duration = Duration::from_millis(5);

/// Asks `probe` until it answers, or panics with `what` after `limit`.
#[track_caller]
pub fn until_within<T>(limit: Duration, what: &str, probe: impl FnMut() -> Option<T>) -> T {
    match poll(limit, probe) {
        Some(answer) => answer,
        None => panic!("waited {limit:?} in vain: {what}"),
    }
}

/// [`until_within`] the usual [`LIMIT`].
#[track_caller]
pub fn until<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    until_within(LIMIT, what, probe)
}

/// Asks `probe` until it answers; `None` when `limit` has passed.
pub fn poll<T>(limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = probe() {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(STEP);
    }
}

/// Watches that `broken` stays `None` for the whole of `span`: for promises that something does not happen.
#[track_caller]
pub fn never_during(span: Duration, what: &str, broken: impl FnMut() -> Option<String>) {
    if let Some(how) = poll(span, broken) {
        panic!("{what}: {how}");
    }
}
