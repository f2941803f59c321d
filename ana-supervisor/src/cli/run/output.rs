//! The agent's output on its way to the person's streams.

use std::{
    fs::File,
    io::{self, IsTerminal, Read, Write},
    os::fd::OwnedFd,
    sync::mpsc::Sender,
};

/// What bubblewrap says when it may not make a user namespace, or may not be root in it.
const SANDBOX_FAILED: [&[u8]; 2] = [b"No permissions to creat", b"setting up uid map: Permission denied"];

/// The session's terminal speaks to whichever of our streams is one.
pub(super) fn write_to_person(bytes: &[u8]) -> io::Result<()> {
    if io::stdout().is_terminal() {
        io::stdout().write_all(bytes)?;
        io::stdout().flush()
    } else {
        io::stderr().write_all(bytes)
    }
}

/// Copies a pipe of the agent's to one of our streams in a thread; tells at its end whether the agent's sandbox complained
/// there.
pub(super) fn copy(pipe: OwnedFd, mut to: impl Write + Send + 'static, done: Sender<bool>) {
    std::thread::spawn(move || {
        let (mut from, mut bytes, mut tail, mut complained) =
            (File::from(pipe), vec![0; 64 << 10], Vec::new(), false);
        while let Ok(length @ 1..) = from.read(&mut bytes) {
            complained |= mentions_sandbox(&mut tail, &bytes[..length]);
            // Nobody reads on (`| head`): the agent gets SIGPIPE or EPIPE when we close our end.
            if to.write_all(&bytes[..length]).and_then(|()| to.flush()).is_err() {
                break;
            }
        }
        done.send(complained).ok();
    });
}

pub(super) fn mentions_sandbox(tail: &mut Vec<u8>, output: &[u8]) -> bool {
    tail.extend_from_slice(output);
    let found = SANDBOX_FAILED.iter().any(|text| tail.windows(text.len()).any(|window| window == *text));
    let longest = SANDBOX_FAILED.iter().map(|text| text.len()).max().unwrap_or_default();
    tail.drain(..tail.len().saturating_sub(longest));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_that_is_cut_in_two_is_found() {
        for text in SANDBOX_FAILED.map(|text| [b"bwrap: ", text, b"\n"].concat()) {
            for cut in 0..text.len() {
                let mut tail = Vec::new();
                let first = mentions_sandbox(&mut tail, &text[..cut]);
                assert!(first | mentions_sandbox(&mut tail, &text[cut..]), "{cut}");
            }
        }
        assert!(!mentions_sandbox(&mut Vec::new(), b"Permission denied"));
    }
}
