//! Ranges of addresses.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// The addresses that share their first bits with this one; IPv4-mapped ranges are IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

/// Why a text is no range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadCidr {
    NotAnAddress,
    /// The prefix is no number, or longer than the address: the longest possible.
    Prefix(u8),
    /// Bits behind the prefix are set; without them it would be this.
    HostBits(Cidr),
    /// The kernel takes 0.0.0.0/8 and :: for loopback, and so does everything here.
    Unspecified,
}

impl Cidr {
    /// "192.0.2.0/24"; an address alone is that address.
    pub(super) fn new(text: &str) -> Result<Self, BadCidr> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_none| BadCidr::NotAnAddress)?;
        let longest = bits(address);
        let prefix = match prefix {
            None => longest,
            // Digits only: `parse` would take a sign.
            Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                text.parse().ok().filter(|prefix| *prefix <= longest).ok_or(BadCidr::Prefix(longest))?
            }
            Some(_) => return Err(BadCidr::Prefix(longest)),
        };
        let network = Self { address: masked(address, prefix), prefix };
        if network.address != address {
            return Err(BadCidr::HostBits(network.normal()));
        }
        let network = network.normal();
        let nothing = [
            Self { address: Ipv4Addr::UNSPECIFIED.into(), prefix: 8 },
            Self { address: Ipv6Addr::UNSPECIFIED.into(), prefix: 128 },
        ];
        if nothing.iter().any(|range| range.covers(&network)) {
            return Err(BadCidr::Unspecified);
        }
        Ok(network)
    }

    /// ::ffff:a.b.c.d/(96 + n) is a.b.c.d/n.
    fn normal(self) -> Self {
        match (self.address.to_canonical(), self.prefix.checked_sub(MAPPED)) {
            (IpAddr::V4(v4), Some(prefix)) if self.address.is_ipv6() => Self { address: v4.into(), prefix },
            _ => self,
        }
    }

    /// The range of this one address.
    pub fn host(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self { address, prefix: bits(address) }
    }

    /// The first address; never an IPv4-mapped one.
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// How many of its bits count: at most 32 for IPv4, at most 128 for IPv6.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether the address (IPv4, if it is IPv4-mapped) lies in it.
    pub fn contains(self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.prefix) == self.address
    }

    /// Whether these ranges together hold every address, because each family's whole range is among them.
    pub(super) fn everywhere(mut ranges: impl Iterator<Item = Self>) -> bool {
        let mut whole = [false; 2];
        ranges.any(|range| {
            whole[usize::from(range.address.is_ipv6())] |= range.prefix == 0;
            whole == [true; 2]
        })
    }

    pub(super) fn covers(self, other: &Self) -> bool {
        self.prefix <= other.prefix && self.contains(other.address)
    }
}

/// The bits before the IPv4 address in an IPv4-mapped one.
const MAPPED: u8 = 96;

fn bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(prefix.into())).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(prefix.into())).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix == bits(self.address) {
            true => write!(f, "{}", self.address),
            false => write!(f, "{}/{}", self.address, self.prefix),
        }
    }
}
