//! Which names lead to which addresses, as far as this session has asked or the supervisor knows itself.
//!
//! One table holds what protected names lead to. It only ever makes more connections stop, so whoever lies about it
//! harms himself; but it must not be flushed by a flood, so nothing that still counts is ever pushed out of it: when it is
//! full, further answers are not passed on. The other table holds what else addresses are called: to tell people, and, where
//! the supervisor has looked it up itself, to see that a connection shows a name of its own.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

/// Protected addresses that are known at a time.
pub const PROTECTED_MAX: usize = 32 << 10;
/// Names of one protected address.
const NAMES_MAX: usize = 1024;
/// Addresses of which it is known what else they are called, and names of one of them.
const OTHERS_MAX: usize = 4096;
const OTHER_NAMES_MAX: usize = 16;
/// An address counts for at least this long: programs keep addresses far beyond their time to live.
const COUNTS_FOR: Duration = Duration::from_secs(60 * 60);

/// The addresses and the names that a session knows.
#[derive(Debug, Default)]
pub struct Names {
    protected: HashMap<IpAddr, BTreeMap<String, Known>>,
    others: HashMap<IpAddr, VecDeque<Other>>,
    /// The addresses of `others`, the oldest first.
    order: VecDeque<IpAddr>,
}

/// Another name of an address.
#[derive(Clone, Debug)]
struct Other {
    name: String,
    /// The supervisor's own look-up has said so.
    confirmed: bool,
}

/// What is known of one name of an address.
#[derive(Clone, Copy, Debug)]
struct Known {
    until: Instant,
    /// The supervisor's own look-up has said so.
    resolved: bool,
}

/// The protected names of an address, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Called {
    /// Whoever said so.
    pub names: Vec<String>,
    /// Those of them that the supervisor has looked up itself.
    pub resolved: Vec<String>,
}

/// There is no room for one more protected address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{PROTECTED_MAX} addresses of protected names are known already")]
pub struct Full;

impl Names {
    /// `address` is one of the protected `name`, for `ttl` at least; `resolved`: the supervisor has found that itself. True:
    /// it was not known as that.
    ///
    /// # Errors
    /// There is no room: the answer that says so must not reach the agent.
    pub fn protect(
        &mut self,
        address: IpAddr,
        name: &str,
        ttl: Duration,
        resolved: bool,
        now: Instant,
    ) -> Result<bool, Full> {
        let until = now + ttl.max(COUNTS_FOR);
        if !self.protected.contains_key(&address) && self.protected.len() >= PROTECTED_MAX {
            self.expire(now);
            if self.protected.len() >= PROTECTED_MAX {
                return Err(Full);
            }
        }
        let names = self.protected.entry(address).or_default();
        if let Some(known) = names.get_mut(name) {
            *known = Known { until: until.max(known.until), resolved: known.resolved || resolved };
            return Ok(false);
        }
        if names.len() >= NAMES_MAX {
            return Err(Full);
        }
        names.insert(name.to_owned(), Known { until, resolved });
        Ok(true)
    }

    /// What the address was called; `confirmed`: by the supervisor's own look-up.
    pub fn note(&mut self, address: IpAddr, name: &str, confirmed: bool) {
        let names = self.others.entry(address).or_insert_with(|| {
            self.order.push_back(address);
            VecDeque::new()
        });
        match names.iter_mut().find(|other| other.name == name) {
            Some(known) => known.confirmed |= confirmed,
            None => names.push_back(Other { name: name.to_owned(), confirmed }),
        }
        if names.len() > OTHER_NAMES_MAX {
            names.pop_front();
        }
        if self.order.len() > OTHERS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.others.remove(&oldest);
        }
    }

    /// Whether the supervisor's own look-up has said that `name` has this address.
    pub fn is_confirmed(&self, address: IpAddr, name: &str) -> bool {
        let others = self.others.get(&address).into_iter().flatten();
        others.into_iter().any(|other| other.confirmed && other.name == name)
    }

    /// The protected names of an address. Being asked for keeps them.
    pub fn protected_names(&mut self, address: IpAddr, now: Instant) -> Called {
        let Some(names) = self.protected.get_mut(&address) else { return Called::default() };
        for known in names.values_mut() {
            known.until = known.until.max(now + COUNTS_FOR);
        }
        let resolved = names.iter().filter(|(_, known)| known.resolved).map(|(name, _)| name.clone());
        Called { resolved: resolved.collect(), names: names.keys().cloned().collect() }
    }

    /// What else the address was called last.
    pub fn other_name(&self, address: IpAddr) -> Option<&str> {
        self.others.get(&address)?.back().map(|other| other.name.as_str())
    }

    /// Forgets what does not count any more, and gives the addresses that are not protected by a name any longer.
    pub fn expire(&mut self, now: Instant) -> Vec<IpAddr> {
        let mut gone = Vec::new();
        self.protected.retain(|address, names| {
            names.retain(|_, known| known.until > now);
            if names.is_empty() {
                gone.push(*address);
            }
            !names.is_empty()
        });
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

    #[test]
    fn an_address_has_every_name_that_it_was_given() {
        let (mut names, now) = (Names::default(), Instant::now());
        for (name, new) in [("b.test", true), ("a.test", true), ("b.test", false)] {
            assert_eq!(names.protect(address(1), name, Duration::ZERO, false, now), Ok(new));
        }
        assert_eq!(names.protected_names(address(1), now).names, ["a.test", "b.test"]);
        assert_eq!(names.protected_names(address(2), now), Called::default());
    }

    #[test]
    fn a_name_outlives_its_time_to_live_and_longer_while_it_is_used() {
        let (mut names, now) = (Names::default(), Instant::now());
        names.protect(address(1), "a.test", Duration::from_secs(1), false, now).unwrap();
        names.protect(address(2), "b.test", Duration::from_secs(1), false, now).unwrap();
        let later = now + COUNTS_FOR - Duration::from_secs(1);
        assert!(names.expire(later).is_empty());
        assert_eq!(names.protected_names(address(1), later).names, ["a.test"]);
        assert_eq!(names.expire(now + COUNTS_FOR), [address(2)]);
        assert_eq!(names.expire(later + COUNTS_FOR), [address(1)]);
    }

    #[test]
    fn a_flood_pushes_out_nothing_that_is_protected() {
        let (mut names, now) = (Names::default(), Instant::now());
        names.protect(address(0), "api.test", Duration::ZERO, false, now).unwrap();
        for number in 0..100_000 {
            names.note(address(number), "other.test", false);
        }
        assert!(names.others.len() <= OTHERS_MAX);
        for number in 1..u32::try_from(PROTECTED_MAX).unwrap() {
            assert_eq!(names.protect(address(number), "x.test", Duration::ZERO, false, now), Ok(true));
        }
        assert_eq!(names.protect(address(99_999), "x.test", Duration::ZERO, false, now), Err(Full));
        assert_eq!(names.protected_names(address(0), now).names, ["api.test"]);
        // Once the old ones do not count any more there is room.
        assert_eq!(
            names.protect(address(99_999), "x.test", Duration::ZERO, false, now + 2 * COUNTS_FOR),
            Ok(true)
        );
    }

    #[test]
    fn an_address_with_too_many_names_takes_no_more() {
        let (mut names, now) = (Names::default(), Instant::now());
        for number in 0..NAMES_MAX {
            names.protect(address(1), &format!("{number}.test"), Duration::ZERO, false, now).unwrap();
        }
        assert_eq!(names.protect(address(1), "one-more.test", Duration::ZERO, false, now), Err(Full));
    }

    #[test]
    fn what_the_supervisor_has_found_itself_is_told_apart() {
        let (mut names, now) = (Names::default(), Instant::now());
        for (name, resolved) in [("a.test", true), ("b.test", false), ("a.test", false)] {
            names.protect(address(1), name, Duration::ZERO, resolved, now).unwrap();
        }
        let called = names.protected_names(address(1), now);
        assert_eq!((called.names.len(), called.resolved), (2, vec!["a.test".to_owned()]));
    }

    #[test]
    fn only_the_supervisors_own_look_ups_confirm() {
        let mut names = Names::default();
        names.note(address(1), "a.test", false);
        assert!(!names.is_confirmed(address(1), "a.test"));
        names.note(address(1), "a.test", true);
        names.note(address(1), "a.test", false);
        assert!(names.is_confirmed(address(1), "a.test") && !names.is_confirmed(address(2), "a.test"));
        for number in 0..100 {
            names.note(address(1), &format!("{number}.test"), false);
        }
        assert_eq!(names.other_name(address(1)), Some("99.test"));
        assert!(names.others[&address(1)].len() <= OTHER_NAMES_MAX);
    }
}
