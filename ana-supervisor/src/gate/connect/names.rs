//! Which names lead to which addresses, as far as this session has asked or the supervisor knows itself.
//!
//! One table holds what protected names lead to. It only ever makes more connections stop, so whoever lies about it
//! harms himself; but it must not be flushed by a flood, so nothing that still counts is ever pushed out of it: when it is
//! full, further answers are not passed on. The other table holds what else addresses are called: to tell people, and, where
//! the supervisor has looked it up itself, to see that a connection shows a name of its own.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

/// Names of protected addresses that are known at a time, each counted once for each of its addresses.
pub const PAIRS_MAX: usize = 64 << 10;
/// Protected addresses that are known at a time.
pub const PROTECTED_MAX: usize = 32 << 10;
/// Of both, the share that answers to the agent may take. The rest is for what the supervisor looks up itself.
const LEARNED_PAIRS_MAX: usize = PAIRS_MAX / 4 * 3;
const LEARNED_MAX: usize = PROTECTED_MAX / 4 * 3;
/// Names of one protected address. Of further ones it counts by which rules they are protected, and that is known.
const NAMES_MAX: usize = 256;
/// Addresses of which it is known what else they are called, and names of one of them.
const OTHERS_MAX: usize = 4096;
const OTHER_NAMES_MAX: usize = 16;
/// An address counts for at least this long: programs keep addresses far beyond their time to live.
const COUNTS_FOR: Duration = Duration::from_secs(60 * 60);

/// The addresses and the names that a session knows.
#[derive(Debug, Default)]
pub struct Names {
    protected: HashMap<IpAddr, Address>,
    /// How many names all of `protected` have together.
    pairs: usize,
    others: HashMap<IpAddr, VecDeque<Other>>,
    /// The addresses of `others`, the oldest first.
    order: VecDeque<IpAddr>,
}

/// A protected address: its names, and the rules that protect any of them.
#[derive(Debug, Default)]
struct Address {
    names: BTreeMap<Arc<str>, Known>,
    rules: BTreeSet<usize>,
}

/// Another name of an address.
#[derive(Clone, Debug)]
struct Other {
    name: Arc<str>,
    /// The supervisor's own look-up has said so.
    confirmed: bool,
}

/// What is known of one name of an address.
#[derive(Clone, Debug)]
struct Known {
    until: Instant,
    /// The supervisor's own look-up has said so.
    resolved: bool,
    rules: Arc<[usize]>,
}

/// A name that rules protect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protected {
    pub name: Arc<str>,
    /// Which: their places in the policy.
    pub rules: Arc<[usize]>,
}

/// Who says what an address is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A server that the agent asked.
    Agents,
    /// One of the host's servers, to the supervisor.
    Own,
}

/// The protected names of an address, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Called {
    /// Whoever said so.
    pub names: Vec<String>,
    /// Those of them that a server of the host's has said.
    pub resolved: Vec<String>,
}

/// There is no room for one more name of a protected address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many addresses of protected names are known already")]
pub struct Full;

/// Of the protected names of one answer those that count: as many as an address may have, and whatever another rule protects.
pub fn counting(all: impl IntoIterator<Item = Protected>) -> Vec<Protected> {
    let (mut counting, mut rules) = (Vec::new(), BTreeSet::new());
    for name in all {
        if counting.len() < NAMES_MAX || name.rules.iter().any(|rule| !rules.contains(rule)) {
            rules.extend(name.rules.iter().copied());
            counting.push(name);
        }
    }
    counting
}

impl Names {
    /// `address` has these protected names, for `ttl` at least. Gives the rules that protect the address.
    ///
    /// # Errors
    /// There is no room: the answer that says so must not reach the agent.
    pub fn protect(
        &mut self,
        address: IpAddr,
        names: &[Protected],
        ttl: Duration,
        source: Source,
        now: Instant,
    ) -> Result<&BTreeSet<usize>, Full> {
        let (until, resolved) = (now + ttl.max(COUNTS_FOR), source == Source::Own);
        let (pairs_max, addresses_max, names_max) = match source {
            Source::Own => (PAIRS_MAX, PROTECTED_MAX, usize::MAX),
            Source::Agents => (LEARNED_PAIRS_MAX, LEARNED_MAX, NAMES_MAX),
        };
        if !self.protected.contains_key(&address)
            && (self.protected.len() >= addresses_max || self.pairs >= pairs_max)
        {
            return Err(Full);
        }
        let known_as = self.protected.entry(address).or_default();
        for Protected { name, rules } in names {
            if let Some(known) = known_as.names.get_mut(name) {
                known.until = until.max(known.until);
                known.resolved |= resolved;
                continue;
            }
            let is_new = rules.iter().any(|rule| !known_as.rules.contains(rule));
            if known_as.names.len() >= names_max && !is_new {
                continue;
            }
            if self.pairs >= pairs_max {
                return Err(Full);
            }
            self.pairs += 1;
            known_as.rules.extend(rules.iter().copied());
            known_as.names.insert(Arc::clone(name), Known { until, resolved, rules: Arc::clone(rules) });
        }
        Ok(&known_as.rules)
    }

    /// What the address was called; `confirmed`: by the supervisor's own look-up.
    pub fn note(&mut self, address: IpAddr, called: &[Arc<str>], confirmed: bool) {
        let names = self.others.entry(address).or_insert_with(|| {
            self.order.push_back(address);
            VecDeque::new()
        });
        for name in called {
            match names.iter_mut().find(|other| other.name == *name) {
                Some(known) => known.confirmed |= confirmed,
                None => names.push_back(Other { name: Arc::clone(name), confirmed }),
            }
            if names.len() > OTHER_NAMES_MAX {
                names.pop_front();
            }
        }
        if self.order.len() > OTHERS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.others.remove(&oldest);
        }
    }

    /// Of the names of one answer those that [`Self::note`] is to keep: the first, and the last ones.
    pub fn noted<T>(mut names: Vec<T>) -> Vec<T> {
        let more = names.len().saturating_sub(OTHER_NAMES_MAX);
        if more > 0 {
            names.drain(1..=more);
        }
        names
    }

    /// Whether the supervisor's own look-up has said that `name` has this address.
    pub fn is_confirmed(&self, address: IpAddr, name: &str) -> bool {
        let others = self.others.get(&address).into_iter().flatten();
        others.into_iter().any(|other| other.confirmed && *other.name == *name)
    }

    /// The protected names of an address. Being asked for keeps them.
    pub fn protected_names(&mut self, address: IpAddr, now: Instant) -> Called {
        let Some(Address { names, .. }) = self.protected.get_mut(&address) else { return Called::default() };
        for known in names.values_mut() {
            known.until = known.until.max(now + COUNTS_FOR);
        }
        let resolved = names.iter().filter(|(_, known)| known.resolved).map(|(name, _)| name.to_string());
        Called { resolved: resolved.collect(), names: names.keys().map(ToString::to_string).collect() }
    }

    /// What else the address was called last.
    pub fn other_name(&self, address: IpAddr) -> Option<&str> {
        self.others.get(&address)?.back().map(|other| &*other.name)
    }

    /// Forgets what does not count any more, and gives the addresses that are not protected by a name any longer.
    pub fn expire(&mut self, now: Instant) -> Vec<IpAddr> {
        let (mut gone, mut pairs) = (Vec::new(), 0);
        self.protected.retain(|address, Address { names, rules }| {
            let before = names.len();
            names.retain(|_, known| known.until > now);
            pairs += names.len();
            if names.len() < before {
                *rules = names.values().flat_map(|known| known.rules.iter().copied()).collect();
            }
            if names.is_empty() {
                gone.push(*address);
            }
            !names.is_empty()
        });
        self.pairs = pairs;
        gone
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(number: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number))
    }

    fn by_rule(name: &str, rule: usize) -> Protected {
        Protected { name: name.into(), rules: [rule].into() }
    }

    impl Names {
        fn put(&mut self, at: IpAddr, name: &str, source: Source, now: Instant) -> Result<usize, Full> {
            self.protect(at, &[by_rule(name, 0)], Duration::ZERO, source, now).map(BTreeSet::len)
        }
    }

    #[test]
    fn an_address_has_every_name_that_it_was_given() {
        let (mut names, now) = (Names::default(), Instant::now());
        for name in ["b.test", "a.test", "b.test"] {
            names.put(address(1), name, Source::Agents, now).unwrap();
        }
        assert_eq!(names.protected_names(address(1), now).names, ["a.test", "b.test"]);
        assert_eq!(names.protected_names(address(2), now), Called::default());
        assert_eq!(names.pairs, 2);
    }

    #[test]
    fn a_name_outlives_its_time_to_live_and_longer_while_it_is_used() {
        let (mut names, now) = (Names::default(), Instant::now());
        names.put(address(1), "a.test", Source::Agents, now).unwrap();
        names.put(address(2), "b.test", Source::Agents, now).unwrap();
        let later = now + COUNTS_FOR - Duration::from_secs(1);
        assert!(names.expire(later).is_empty());
        assert_eq!(names.protected_names(address(1), later).names, ["a.test"]);
        assert_eq!(names.expire(now + COUNTS_FOR), [address(2)]);
        assert_eq!(names.expire(later + COUNTS_FOR), [address(1)]);
        assert_eq!(names.pairs, 0);
    }

    #[test]
    fn a_flood_pushes_out_nothing_that_is_protected() {
        let (mut names, now) = (Names::default(), Instant::now());
        names.put(address(0), "api.test", Source::Agents, now).unwrap();
        for number in 0..100_000 {
            names.note(address(number), &["other.test".into()], false);
        }
        assert!(names.others.len() <= OTHERS_MAX);
        for number in 1..u32::try_from(LEARNED_MAX).unwrap() {
            names.put(address(number), "x.test", Source::Agents, now).unwrap();
        }
        assert_eq!(names.put(address(99_999), "x.test", Source::Agents, now), Err(Full));
        assert_eq!(names.protected_names(address(0), now).names, ["api.test"]);
        // Once the old ones do not count any more there is room.
        let later = now + 2 * COUNTS_FOR;
        names.expire(later);
        assert_eq!(names.put(address(99_999), "x.test", Source::Agents, later), Ok(1));
    }

    /// Many answers with many names and many addresses each, as a hostile server sends them.
    #[test]
    fn what_answers_say_is_bounded_and_leaves_room_for_the_supervisors_own_look_ups() {
        let (mut names, now) = (Names::default(), Instant::now());
        let mut refused = 0;
        for answer in 0..400 {
            let said = (0..200).map(|number| by_rule(&format!("{answer}-{number}.test"), 0));
            let said = counting(said.collect::<Vec<_>>());
            for number in 0..250 {
                let at = address(answer / 5 * 250 + number);
                refused += u32::from(names.protect(at, &said, Duration::ZERO, Source::Agents, now).is_err());
            }
        }
        assert!(refused > 0 && names.pairs <= LEARNED_PAIRS_MAX, "{}", names.pairs);
        let pairs: usize = names.protected.values().map(|known| known.names.len()).sum();
        assert_eq!(pairs, names.pairs);
        assert!(names.protected.values().all(|known| known.names.len() <= NAMES_MAX));
        assert_eq!(names.put(address(0), "api.test", Source::Own, now), Ok(1));
        assert_eq!(names.put(address(9_999_999), "api.test", Source::Own, now), Ok(1));
        assert_eq!(names.protected_names(address(9_999_999), now).resolved, ["api.test"]);
        for number in 0..16 {
            assert_eq!(names.put(address(8_000_000 + number), "api.test", Source::Own, now), Ok(1));
        }
    }

    #[test]
    fn an_address_with_too_many_names_keeps_every_rule_that_protects_it() {
        let (mut names, now) = (Names::default(), Instant::now());
        for number in 0..2 * NAMES_MAX {
            names.put(address(1), &format!("{number}.test"), Source::Agents, now).unwrap();
        }
        assert_eq!(names.protected_names(address(1), now).names.len(), NAMES_MAX);
        let other = [by_rule("one-more.test", 0), by_rule("other.test", 7)];
        let rules = names.protect(address(1), &other, Duration::ZERO, Source::Agents, now).unwrap();
        assert_eq!(*rules, BTreeSet::from([0, 7]));
        let called = names.protected_names(address(1), now).names;
        assert!(called.contains(&"other.test".to_owned()) && !called.contains(&"one-more.test".to_owned()));
        names.put(address(1), "own.test", Source::Own, now).unwrap();
        assert_eq!(names.protected_names(address(1), now).resolved, ["own.test"]);
    }

    #[test]
    fn of_an_answer_with_too_many_names_those_are_left_that_count() {
        let many = (0..1000).map(|number| by_rule(&number.to_string(), usize::from(number == 999)));
        let left = counting(many);
        assert_eq!((left.len(), &*left[NAMES_MAX].name), (NAMES_MAX + 1, "999"));
        assert_eq!(
            Names::noted((0..100).collect()),
            [0, 85, 86, 87, 88, 89, 90, 91, 92, 93, 94, 95, 96, 97, 98, 99]
        );
        assert_eq!(Names::noted(vec![1, 2, 3]), [1, 2, 3]);
        assert!(Names::noted::<u8>(Vec::new()).is_empty());
    }

    #[test]
    fn what_a_server_of_the_hosts_has_said_is_told_apart() {
        let (mut names, now) = (Names::default(), Instant::now());
        for (name, source) in
            [("a.test", Source::Own), ("b.test", Source::Agents), ("a.test", Source::Agents)]
        {
            names.put(address(1), name, source, now).unwrap();
        }
        let called = names.protected_names(address(1), now);
        assert_eq!((called.names.len(), called.resolved), (2, vec!["a.test".to_owned()]));
    }

    #[test]
    fn only_the_supervisors_own_look_ups_confirm() {
        let mut names = Names::default();
        names.note(address(1), &["a.test".into()], false);
        assert!(!names.is_confirmed(address(1), "a.test"));
        names.note(address(1), &["a.test".into()], true);
        names.note(address(1), &["a.test".into()], false);
        assert!(names.is_confirmed(address(1), "a.test") && !names.is_confirmed(address(2), "a.test"));
        for number in 0..100 {
            names.note(address(1), &[format!("{number}.test").into()], false);
        }
        assert_eq!(names.other_name(address(1)), Some("99.test"));
        assert!(names.others[&address(1)].len() <= OTHER_NAMES_MAX);
    }
}
