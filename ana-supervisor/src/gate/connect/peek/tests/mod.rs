//! What real clients send, what they never send, and what an attacker might.

mod dns;
mod hello;
mod http;
mod props;

use super::{Peek, Shown, look};

/// First bytes of real clients; the fuzzer starts from them, too.
macro_rules! captured {
    ($name:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fuzz/corpus/peek/", $name))
    };
}
pub(in crate::gate::connect) use captured;

fn shown(bytes: &[u8]) -> Shown {
    match look(bytes, false) {
        Peek::Done(shown) => shown,
        Peek::More => panic!("more of {} bytes is wanted", bytes.len()),
    }
}

fn name(shown: &Shown) -> Option<&str> {
    shown.name.as_deref()
}

/// Whatever is cut off, the answer is the same or not yet there.
fn any_prefix(bytes: &[u8]) {
    let whole = look(bytes, false);
    for length in 0..bytes.len() {
        let part = look(&bytes[..length], false);
        assert!(
            part == Peek::More || part == whole,
            "{length} of {} bytes: {part:?}, {whole:?}",
            bytes.len()
        );
    }
}
