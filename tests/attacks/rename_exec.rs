//! Puts a new program over a listed one and executes it at once, again and again. Arguments: the listed file, a program to
//! be copied, the rounds. Says how the runs ended.

use std::{fs, os::unix::process::ExitStatusExt, process::Command};

use ana_tests::attempt::{argument, say, tell_io};

fn main() {
    let (listed, program) = (argument(1), argument(2));
    let rounds: u32 = argument(3).to_str().and_then(|text| text.parse().ok()).unwrap_or(1);
    let fresh = listed.with_extension("fresh");
    let (mut ran, mut killed, mut other) = (0, 0, 0);
    for round in 0..rounds {
        let placed = fs::copy(&program, &fresh).and_then(|_bytes| fs::rename(&fresh, &listed));
        if tell_on_failure(placed) {
            return;
        }
        match Command::new(&listed).arg(round.to_string()).status() {
            Ok(status) if status.success() => ran += 1,
            Ok(status) if status.signal().is_some() => killed += 1,
            _ => other += 1,
        }
    }
    say(&format!("rounds {rounds} ran {ran} killed {killed} other {other}"));
}

fn tell_on_failure(placed: std::io::Result<()>) -> bool {
    placed.is_err() && tell_io("place", placed).is_none()
}
