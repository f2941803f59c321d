//! What happened a moment ago: bounded, whatever an agent does.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    time::{Duration, Instant},
};

/// So much is remembered at a time; beyond it the oldest is forgotten, and is news again.
const MAX: usize = 1024;

/// Keys that were put in a moment ago. Each operation takes constant time, over many.
#[derive(Debug)]
pub struct Recent<K> {
    counts_for: Duration,
    known: HashMap<K, Instant>,
    /// The keys of `known`, the oldest first.
    order: VecDeque<(Instant, K)>,
}

impl<K: Eq + Hash + Clone> Recent<K> {
    /// What is put in counts for this long.
    pub fn new(counts_for: Duration) -> Self {
        Self { counts_for, known: HashMap::new(), order: VecDeque::new() }
    }

    /// Whether it was put in a moment ago.
    pub fn has(&self, key: &K, now: Instant) -> bool {
        self.known.get(key).is_some_and(|at| now.saturating_duration_since(*at) < self.counts_for)
    }

    /// Puts it in; false if it is there already.
    pub fn put(&mut self, key: K, now: Instant) -> bool {
        let over = |at: Instant| now.saturating_duration_since(at) >= self.counts_for;
        while let Some((at, _)) = self.order.front()
            && (over(*at) || self.order.len() >= MAX && !self.known.contains_key(&key))
        {
            if let Some((_, oldest)) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
        if self.known.contains_key(&key) {
            return false;
        }
        self.known.insert(key.clone(), now);
        self.order.push_back((now, key));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(10);

    #[test]
    fn the_same_is_news_again_after_a_while() {
        let (mut recent, now) = (Recent::new(TIME), Instant::now());
        assert!(!recent.has(&"a", now) && recent.put("a", now) && recent.has(&"a", now));
        assert!(!recent.put("a", now + TIME / 2) && recent.put("b", now + TIME / 2));
        assert!(!recent.has(&"a", now + TIME) && recent.put("a", now + TIME));
        assert!(!recent.put("b", now + TIME));
    }

    /// Half a million: with a look at everything for each it would take hours.
    #[test]
    fn a_flood_costs_little_time_and_memory() {
        let (mut recent, now) = (Recent::new(TIME), Instant::now());
        for number in 0..580_000u32 {
            assert!(recent.put(number, now));
            assert!(recent.known.len() <= MAX && recent.order.len() == recent.known.len());
        }
        assert!(recent.put(580_000, now + TIME));
        assert_eq!(recent.known.len(), 1);
        assert!(now.elapsed() < TIME, "{:?}", now.elapsed());
    }
}
