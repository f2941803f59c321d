//! Keeps the kernel's maps in line with what is protected: the policy's addresses, and those that its names lead to.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use crate::{
    kernel::{KernelError, network::NetworkMaps},
    policy::{Cidr, Policy},
};

/// On which ports an address is protected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Ports {
    every: bool,
    some: BTreeSet<u16>,
}

impl Ports {
    fn of(ports: &[u16]) -> Self {
        Self { every: ports.is_empty(), some: ports.iter().copied().collect() }
    }

    fn join(mut self, other: Self) -> Self {
        self.every |= other.every;
        self.some.extend(other.some);
        if self.every { Self { every: true, some: BTreeSet::new() } } else { self }
    }

    fn is_empty(&self) -> bool {
        !self.every && self.some.is_empty()
    }
}

/// The protected addresses as the kernel knows them.
pub(super) struct Protection {
    policy: Arc<Policy>,
    maps: NetworkMaps,
    /// What the policy protects by address, each with its ports.
    prefixes: Vec<(Cidr, Ports)>,
    /// The numbers that the kernel knows sets of ports by.
    sets: HashMap<Ports, u32>,
    /// On which ports each address of a protected name is.
    addresses: HashMap<IpAddr, Ports>,
}

impl Protection {
    /// Tells the kernel what the policy names by address.
    ///
    /// # Errors
    /// A map is full: there is more to protect than the kernel can be told.
    pub(super) fn start(policy: Arc<Policy>, maps: NetworkMaps) -> Result<Self, KernelError> {
        let prefixes = prefixes(&policy);
        let cidrs: Vec<Cidr> = prefixes.iter().map(|(cidr, _)| *cidr).collect();
        let mut protection = Self { policy, maps, prefixes, sets: HashMap::new(), addresses: HashMap::new() };
        for cidr in cidrs {
            // The longest prefix is the one that the kernel finds: it has what the shorter ones have, too.
            let ports = protection.ports_of_prefix(cidr);
            let set = protection.set(&ports)?;
            protection.maps.protect(cidr.address(), cidr.prefix(), set)?;
        }
        for port in protection.policy.network().map(|network| network.inspect.clone()).unwrap_or_default() {
            protection.maps.inspect(port)?;
        }
        Ok(protection)
    }

    /// `address` has names that these rules protect.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub(super) fn protect(&mut self, address: IpAddr, rules: &BTreeSet<usize>) -> Result<(), KernelError> {
        let named = rules.iter().filter_map(|rule| self.policy.connect_rules().get(*rule));
        let ports = named.map(|rule| Ports::of(rule.ports())).fold(Ports::default(), Ports::join);
        if ports.is_empty() {
            return Ok(());
        }
        let ports = ports.join(self.ports_of_prefix(Cidr::host(address)));
        if self.addresses.get(&address) == Some(&ports) {
            return Ok(());
        }
        let set = self.set(&ports)?;
        self.maps.protect(address, Cidr::host(address).prefix(), set)?;
        self.addresses.insert(address, ports);
        Ok(())
    }

    /// No protected name has this address any more.
    ///
    /// # Errors
    /// The map cannot be changed.
    pub(super) fn forget(&mut self, address: IpAddr) -> Result<(), KernelError> {
        if self.addresses.remove(&address).is_none() {
            return Ok(());
        }
        let host = Cidr::host(address);
        let listed = self.prefixes.iter().any(|(cidr, _)| *cidr == host);
        match listed {
            // The policy names it by itself.
            true => {
                let ports = self.ports_of_prefix(host);
                let set = self.set(&ports)?;
                self.maps.protect(address, host.prefix(), set)
            }
            false => self.maps.unprotect(address, host.prefix()),
        }
    }

    fn ports_of_prefix(&self, inner: Cidr) -> Ports {
        let covering = self
            .prefixes
            .iter()
            .filter(|(cidr, _)| cidr.prefix() <= inner.prefix() && cidr.contains(inner.address()));
        covering.map(|(_, ports)| ports.clone()).fold(Ports::default(), Ports::join)
    }

    fn set(&mut self, ports: &Ports) -> Result<u32, KernelError> {
        if let Some(number) = self.sets.get(ports) {
            return Ok(*number);
        }
        let number = u32::try_from(self.sets.len()).unwrap_or(u32::MAX);
        let all: Vec<u16> = if ports.every { vec![0] } else { ports.some.iter().copied().collect() };
        for port in all {
            self.maps.port_set(number, port)?;
        }
        self.sets.insert(ports.clone(), number);
        Ok(number)
    }
}

fn prefixes(policy: &Policy) -> Vec<(Cidr, Ports)> {
    let rules = policy.connect_rules().iter();
    let listed = rules.flat_map(|rule| rule.cidrs().map(|cidr| (cidr, Ports::of(rule.ports()))));
    let encrypted_dns = policy.network().is_some_and(|network| !network.encrypted_dns);
    let resolvers = crate::policy::resolver_addresses().filter(|_| encrypted_dns);
    listed.chain(resolvers.map(|cidr| (cidr, Ports::of(&[443, 853])))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_takes_in_all_others() {
        let some = Ports::of(&[443, 80]);
        assert_eq!(some.clone().join(Ports::of(&[22])), Ports::of(&[22, 80, 443]));
        assert_eq!(some.clone().join(Ports::of(&[])), Ports::of(&[]));
        assert_eq!(Ports::of(&[]).join(some), Ports::of(&[]));
        assert!(Ports::default().is_empty() && !Ports::of(&[]).is_empty());
    }
}
