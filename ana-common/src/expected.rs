//! What may be executed without a hold: the guard compares it with what is.

use core::hash::{Hash, Hasher};

use crate::FileKey;

/// The most bytes of arguments and environment that are compared; with more, the exec is held.
pub const BLOCK_BYTES: usize = 8 * 1024;
/// The same in words.
pub const BLOCK_WORDS: usize = BLOCK_BYTES / 8;

/// The value of `EXPECTED`: the one exec that a process may do without being held.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    pub file: FileKey,
    /// When the process started, in clock ticks (1/100 s) since boot, as field 22 of /proc/PID/stat shows it.
    pub started: u64,
    /// The number that `BLOCKS` has for the arguments and the environment; never 0.
    pub block: u64,
}

/// The key of `BLOCKS`: arguments and environment as they lie in an image's memory, one behind the other. The kernel
/// compares keys byte for byte.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Bytes of the arguments, every NUL included.
    pub arguments: u32,
    /// Bytes of the arguments and the environment together; never 0, at most [`BLOCK_BYTES`].
    pub length: u32,
    /// The arguments, then the environment; zeroes after them.
    pub words: [u64; BLOCK_WORDS],
}

impl Hash for Block {
    /// What follows the bytes is zeroes in every block.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let words = self.words.iter().take((self.length as usize).div_ceil(8));
        (self.arguments, self.length).hash(state);
        words.for_each(|word| word.hash(state));
    }
}

impl Block {
    /// `bytes` is the arguments, then the environment, each string with its NUL; the first `arguments` bytes of it are the
    /// arguments. `None`: it is empty, or longer than is compared.
    pub fn new(bytes: &[u8], arguments: usize) -> Option<Self> {
        if bytes.is_empty() || bytes.len() > BLOCK_BYTES || arguments > bytes.len() {
            return None;
        }
        let mut words = [0; BLOCK_WORDS];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks(8)) {
            let mut whole = [0; 8];
            whole[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_ne_bytes(whole);
        }
        let (arguments, length) = (u32::try_from(arguments).ok()?, u32::try_from(bytes.len()).ok()?);
        Some(Self { arguments, length, words })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_zero_and_too_much_is_refused() {
        let block = Block::new(b"a\0bc\0PATH=/\0", 5).unwrap();
        assert_eq!((block.arguments, block.length), (5, 12));
        assert_eq!(block.words[0], u64::from_ne_bytes(*b"a\0bc\0PAT"));
        assert_eq!(block.words[1], u64::from_ne_bytes(*b"H=/\0\0\0\0\0"));
        assert!(block.words[2..].iter().all(|&word| word == 0));
        let long = [b'x'; BLOCK_BYTES + 1];
        assert!(Block::new(&long, 1).is_none());
        assert!(Block::new(&long[1..], BLOCK_BYTES).is_some());
        assert!(Block::new(b"", 0).is_none());
    }
}
