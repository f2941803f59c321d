//! Which number the guard knows each block of arguments and environment by. What is executed again and again is told to the
//! kernel once.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use ana_common::Block;

/// How long an exec that was let through may take. One that takes longer is killed when its block has to make room.
const ON_ITS_WAY: Duration = Duration::from_secs(10);

/// The numbers that were given.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    known: HashMap<Box<Block>, Known>,
    last: u64,
}

#[derive(Debug)]
struct Known {
    number: u64,
    used: Instant,
}

impl Numbers {
    /// The block's number, if it has one; it is in use `now`.
    pub(super) fn of(&mut self, block: &Block, now: Instant) -> Option<u64> {
        let known = self.known.get_mut(block)?;
        known.used = now;
        Some(known.number)
    }

    /// A number that nothing has had.
    pub(super) fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// The block has this number from now on.
    pub(super) fn give(&mut self, block: &Block, number: u64, now: Instant) {
        self.known.insert(Box::new(*block), Known { number, used: now });
    }

    /// Takes the number of the block that has been used least recently, unless it may be in use still.
    pub(super) fn make_room(&mut self, now: Instant) -> Option<Box<Block>> {
        let (oldest, known) = self.known.iter().min_by_key(|(_, known)| known.used)?;
        if now.duration_since(known.used) < ON_ITS_WAY {
            return None;
        }
        let oldest = oldest.clone();
        self.known.remove(&oldest);
        Some(oldest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_makes_room_and_no_number_is_given_twice() {
        let block = |text: &str| Block::new(text.as_bytes(), 1).unwrap();
        let [one, two, same_bytes] = [block("one"), block("two"), Block::new(b"one", 2).unwrap()];
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut numbers = Numbers::default();
        assert_eq!(numbers.of(&one, at(0)), None);
        for (block, second) in [(&one, 0), (&two, 1), (&same_bytes, 2)] {
            let number = numbers.next();
            numbers.give(block, number, at(second));
        }
        assert_eq!(numbers.of(&same_bytes, at(2)), Some(3));
        assert_eq!(numbers.of(&one, at(3)), Some(1));
        assert_eq!(numbers.make_room(at(10)), None, "all may be on their way");
        assert_eq!(*numbers.make_room(at(11)).unwrap(), two);
        assert_eq!(numbers.of(&two, at(11)), None);
        assert_eq!(numbers.next(), 4);
    }
}
