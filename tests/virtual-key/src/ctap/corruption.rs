//! Faults that replace or cut the CBOR of an answer.

use ciborium::Value;

use super::cbor;
use crate::fault::Fault;

/// Deep enough for every parser's limit, and still fewer than the 64 reports that hidraw keeps for who reads slowly.
const DEPTH: usize = 3000;

pub(super) fn apply(fault: Option<Fault>, mut bytes: Vec<u8>) -> Vec<u8> {
    match fault {
        Some(Fault::TruncatedCbor) => {
            bytes.truncate(bytes.len() / 2);
            bytes
        }
        Some(Fault::RandomCbor(seed)) => cbor::encoded(&Random(seed).map(3)),
        // Arrays of one element, and a 0 in the innermost.
        Some(Fault::DeepNesting) => [vec![0x81; DEPTH], vec![0]].concat(),
        _ => bytes,
    }
}

/// SplitMix64: the same values for the same seed, on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn bytes(&mut self, max: u64) -> Vec<u8> {
        let length = self.below(max);
        (0..length).map(|_| self.next().to_le_bytes()[0]).collect()
    }

    /// With the keys of real answers, so that clients look at what is behind them.
    fn map(&mut self, depth: u32) -> Value {
        let entries = self.below(8);
        Value::Map((0..entries).map(|_| (Value::from(self.below(9)), self.value(depth))).collect())
    }

    fn value(&mut self, depth: u32) -> Value {
        match self.below(if depth == 0 { 6 } else { 9 }) {
            0 => Value::from(self.next()),
            1 => Value::from(-1 - i64::from(u32::try_from(self.below(1 << 32)).unwrap_or(0))),
            2 => Value::Bytes(self.bytes(100)),
            3 => Value::Text(String::from_utf8_lossy(&self.bytes(40)).into_owned()),
            4 => Value::Bool(self.below(2) == 0),
            5 => Value::Null,
            6 => {
                let length = self.below(4);
                Value::Array((0..length).map(|_| self.value(depth - 1)).collect())
            }
            7 => self.map(depth - 1),
            _ => cbor::map([("id", Value::Bytes(self.bytes(70))), ("type", self.value(depth - 1))]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_cbor() {
        let of = |seed| apply(Some(Fault::RandomCbor(seed)), Vec::new());
        assert_eq!(of(1), of(1));
        let different: std::collections::BTreeSet<Vec<u8>> = (0..100).map(of).collect();
        assert!(different.len() > 80);
        for bytes in different {
            let value: Value = ciborium::from_reader(bytes.as_slice()).unwrap();
            assert!(value.is_map());
        }
    }

    #[test]
    fn deep_nesting_is_too_deep_and_fits() {
        let bytes = apply(Some(Fault::DeepNesting), Vec::new());
        assert!(bytes.len() < usize::from(crate::hid::MESSAGE_MAX));
        let result: Result<Value, _> = ciborium::from_reader(bytes.as_slice());
        assert!(matches!(result, Err(ciborium::de::Error::RecursionLimitExceeded)));
    }
}
