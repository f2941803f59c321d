//! Connects to every socket in a folder as often as it is told, says nothing, and keeps the connections until its stdin
//! ends. Arguments: the folder, how many connections to each.

use std::{io::Read, os::unix::net::UnixStream};

use ana_tests::attempt::{argument, say, tell_io};

fn main() {
    let folder = argument(1);
    let many: usize = argument(2).to_str().and_then(|text| text.parse().ok()).unwrap_or(70);
    let mut kept = Vec::new();
    let entries = tell_io("list", std::fs::read_dir(&folder));
    for entry in entries.into_iter().flatten().flatten() {
        if entry.path().extension().is_none_or(|end| end != "sock") {
            continue;
        }
        for _ in 0..many {
            match UnixStream::connect(entry.path()) {
                Ok(stream) => kept.push(stream),
                Err(error) => {
                    say(&format!("refused: {error}"));
                    break;
                }
            }
        }
    }
    say(&format!("connected {}", kept.len()));
    tell_io("wait", std::io::stdin().read_to_end(&mut Vec::new()));
}
