//! What may be executed without a hold: the guard compares it with what is.

use crate::FileKey;

/// The most bytes of arguments and environment that are compared; with more, the exec is held. (The verifier walks through
/// every word: 2 ms of each start for a KiB.)
pub const EXPECTED_BYTES: usize = 8 * 1024;
/// The same in words.
pub const EXPECTED_WORDS: usize = EXPECTED_BYTES / 8;

/// The value of `EXPECTED`: the one exec that a process may do without being held.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    pub file: FileKey,
    /// When the process started, in clock ticks (1/100 s) since boot, as field 22 of /proc/PID/stat shows it.
    pub started: u64,
    /// Bytes of the arguments, every NUL included.
    pub arguments: u32,
    /// Bytes of the arguments and the environment together; never 0, at most [`EXPECTED_BYTES`].
    pub length: u32,
    /// The arguments, then the environment, as they will lie in the new image's memory; zeroes after them.
    pub words: [u64; EXPECTED_WORDS],
}

impl Expected {
    /// `block` is the arguments, then the environment, each string with its NUL; the first `arguments` bytes of it are the
    /// arguments. `None`: it is empty, or longer than is compared.
    pub fn new(file: FileKey, started: u64, block: &[u8], arguments: usize) -> Option<Self> {
        if block.is_empty() || block.len() > EXPECTED_BYTES || arguments > block.len() {
            return None;
        }
        let mut words = [0; EXPECTED_WORDS];
        for (word, bytes) in words.iter_mut().zip(block.chunks(8)) {
            let mut whole = [0; 8];
            whole[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_ne_bytes(whole);
        }
        let (arguments, length) = (u32::try_from(arguments).ok()?, u32::try_from(block.len()).ok()?);
        Some(Self { file, started, arguments, length, words })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_zero_and_too_much_is_refused() {
        let expected = Expected::new(FileKey::default(), 7, b"a\0bc\0PATH=/\0", 5).unwrap();
        assert_eq!((expected.arguments, expected.length), (5, 12));
        assert_eq!(expected.words[0], u64::from_ne_bytes(*b"a\0bc\0PAT"));
        assert_eq!(expected.words[1], u64::from_ne_bytes(*b"H=/\0\0\0\0\0"));
        assert!(expected.words[2..].iter().all(|&word| word == 0));
        let long = [b'x'; EXPECTED_BYTES + 1];
        assert!(Expected::new(FileKey::default(), 7, &long, 1).is_none());
        assert!(Expected::new(FileKey::default(), 7, &long[1..], EXPECTED_BYTES).is_some());
        assert!(Expected::new(FileKey::default(), 7, b"", 0).is_none());
    }
}
