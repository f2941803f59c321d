//! Connects to every socket in a folder and says what a client would say. Arguments: the folder; then any command,
//! which is run as a client from inside the session.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    process::Command,
    time::Duration,
};

use ana_tests::attempt::{argument, run, say, tell_io};

fn main() {
    let folder = argument(1);
    let entries = tell_io("list", std::fs::read_dir(&folder));
    for entry in entries.into_iter().flatten().flatten() {
        if entry.path().extension().is_none_or(|end| end != "sock") {
            continue;
        }
        let Some(mut stream) = tell_io("connect", UnixStream::connect(entry.path())) else { continue };
        tell_io("timeout", stream.set_read_timeout(Some(Duration::from_secs(5))));
        tell_io("say", stream.write_all(b"{\"approve\":\"everything\"}\n"));
        let mut answer = vec![0; 4096];
        match stream.read(&mut answer) {
            Ok(length) => say(&format!("answer {}", String::from_utf8_lossy(&answer[..length]))),
            Err(error) => say(&format!("no answer: {error}")),
        }
    }
    let client: Vec<_> = std::env::args_os().skip(2).collect();
    if let Some((program, arguments)) = client.split_first() {
        run("client", Command::new(program).args(arguments));
    }
}
