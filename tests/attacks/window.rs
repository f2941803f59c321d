//! Puts a new file over a listed one, again and again, and reads it until that is refused: how long does what is new stay
//! unprotected? Arguments: the listed file, how many rounds. Says the times in microseconds.

use std::{
    fs::{self, File},
    time::{Duration, Instant},
};

use ana_tests::attempt::{argument, say};

/// After this a round has been lost for good.
const LIMIT: Duration = Duration::from_secs(10);

fn main() {
    let listed = argument(1);
    let rounds: usize = argument(2).to_str().and_then(|text| text.parse().ok()).unwrap_or(1);
    let fresh = listed.with_extension("fresh");
    let mut windows = Vec::with_capacity(rounds);
    for round in 0..rounds {
        let placed = fs::write(&fresh, format!("#!/bin/sh\necho {round}\n"))
            .and_then(|()| fs::rename(&fresh, &listed));
        let start = Instant::now();
        if let Err(error) = placed {
            say(&format!("attempt place: {error}"));
            return;
        }
        let mut open = Duration::ZERO;
        while start.elapsed() < LIMIT && File::open(&listed).is_ok() {
            open = start.elapsed();
        }
        windows.push(open);
    }
    windows.sort_unstable();
    let closed = windows.iter().filter(|window| **window < LIMIT / 2).count();
    let (middle, last) = (windows[rounds / 2].as_micros(), windows[rounds - 1].as_micros());
    say(&format!("closed {closed} of {rounds}, p50 {middle} us, max {last} us"));
}
