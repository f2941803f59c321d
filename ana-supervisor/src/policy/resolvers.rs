//! The well-known public servers of DNS over HTTPS and TLS: whoever asks them gets names that the session's resolver
//! has not seen. The list is no wall (anybody can run such a server); it keeps programs that come with one of these
//! built in (browsers, Node's and Go's libraries) to the session's own DNS.

use std::{net::IpAddr, sync::LazyLock};

use super::{cidr::Cidr, host::host_name};

/// Each stands for itself and every name below it. From memory, in part compared with lists on the web (AdGuard's "Known DNS
/// Providers", DNSCrypt's public-resolvers.md): a help, not a reference.
const NAMES: [&str; 66] = [
    // Cloudflare, its gateway for companies, Mozilla's and Chrome's entrances.
    "cloudflare-dns.com",
    "cloudflare-gateway.com",
    "one.one.one.one",
    "dns.cloudflare.com",
    // Google.
    "dns.google",
    "dns.google.com",
    // Quad9.
    "dns.quad9.net",
    "dns9.quad9.net",
    "dns10.quad9.net",
    "dns11.quad9.net",
    "dns12.quad9.net",
    "dns-nosec.quad9.net",
    // OpenDNS, Cisco Umbrella.
    "doh.opendns.com",
    "dns.opendns.com",
    "doh.familyshield.opendns.com",
    "familyshield.opendns.com",
    "sandbox.opendns.com",
    "doh.sandbox.opendns.com",
    "dns.umbrella.com",
    "dns.sse.cisco.com",
    "doh.umbrella.com",
    // AdGuard.
    "adguard-dns.com",
    "dns.adguard.com",
    "dns-family.adguard.com",
    "dns-unfiltered.adguard.com",
    // NextDNS, Control D, RethinkDNS: a name below for each customer.
    "dns.nextdns.io",
    "dns1.nextdns.io",
    "dns2.nextdns.io",
    "doh.nextdns.io",
    "dns.controld.com",
    "freedns.controld.com",
    "rethinkdns.com",
    // CleanBrowsing.
    "doh.cleanbrowsing.org",
    "security-filter-dns.cleanbrowsing.org",
    "family-filter-dns.cleanbrowsing.org",
    "adult-filter-dns.cleanbrowsing.org",
    // Mullvad.
    "dns.mullvad.net",
    "doh.mullvad.net",
    // Associations, universities, registries, states.
    "dns.digitale-gesellschaft.ch",
    "dns.switch.ch",
    "doh.applied-privacy.net",
    "dot1.applied-privacy.net",
    "dns.njal.la",
    "doh.libredns.gr",
    "dot.libredns.gr",
    "wikimedia-dns.org",
    "odvr.nic.cz",
    "ordns.he.net",
    "doh.ffmuc.net",
    "dnsforge.de",
    "dns0.eu",
    "joindns4.eu",
    "canadianshield.cira.ca",
    "public.dns.iij.jp",
    "dns.twnic.tw",
    // Providers of access, and others.
    "doh.xfinity.com",
    "dot.xfinity.com",
    "doh.dns.sb",
    "dot.sb",
    "doh.sb",
    "doh.dns.apple.com",
    "dns.alidns.com",
    "doh.pub",
    "dot.pub",
    "doh.360.cn",
    "dns.yandex.net",
];

/// Addresses that serve nothing but DNS. From the same sources.
const ADDRESSES: [&str; 72] = [
    // Cloudflare.
    "1.1.1.0/30",
    "1.0.0.0/30",
    "104.16.248.249",
    "104.16.249.249",
    "162.159.36.1",
    "162.159.46.1",
    "162.159.61.4",
    "172.64.41.4",
    "2606:4700::6810:f8f9",
    "2606:4700::6810:f9f9",
    "2606:4700:4700::/48",
    // Google.
    "8.8.8.8",
    "8.8.4.4",
    "2001:4860:4860::/48",
    // Quad9.
    "9.9.9.8/29",
    "149.112.112.8/29",
    "149.112.112.112",
    "2620:fe::/48",
    // OpenDNS.
    "208.67.222.222",
    "208.67.220.220",
    "208.67.222.220",
    "208.67.220.222",
    "208.67.222.123",
    "208.67.220.123",
    "208.67.222.2",
    "208.67.220.2",
    "146.112.41.2",
    "146.112.41.3",
    "146.112.41.4",
    "146.112.41.5",
    "2620:119:35::/48",
    "2620:119:53::/48",
    "2620:119:fc::/48",
    // AdGuard.
    "94.140.14.0/24",
    "94.140.15.0/24",
    "2a10:50c0::/48",
    // NextDNS.
    "45.90.28.0/24",
    "45.90.30.0/24",
    "2a07:a8c0::/32",
    "2a07:a8c1::/32",
    // Control D.
    "76.76.2.0/24",
    "76.76.10.0/24",
    "2606:1a40::/48",
    "2606:1a40:1::/48",
    // CleanBrowsing.
    "185.228.168.0/24",
    "185.228.169.0/24",
    "2a0d:2a00:1::/48",
    "2a0d:2a00:2::/48",
    // Mullvad.
    "194.242.2.0/28",
    "2a07:e340::/64",
    // Others, in the order of the names.
    "185.95.218.42",
    "185.95.218.43",
    "2a05:fc84::42",
    "2a05:fc84::43",
    "130.59.31.248",
    "130.59.31.251",
    "185.71.138.138",
    "2001:67c:930::1",
    "193.17.47.1",
    "185.43.135.1",
    "74.82.42.42",
    "2001:470:20::2",
    "101.101.101.101",
    "185.222.222.222",
    "45.11.45.11",
    "223.5.5.5",
    "223.6.6.6",
    "2400:3200::1",
    "2400:3200:baba::1",
    "1.12.12.12",
    "120.53.53.53",
    "77.88.8.8",
];

/// The names; each stands for those below it, too.
pub fn resolver_names() -> impl Iterator<Item = &'static str> {
    NAMES.into_iter()
}

/// The addresses. A connection to one is refused by its address, whatever name it shows.
pub fn resolver_addresses() -> impl Iterator<Item = Cidr> {
    static RANGES: LazyLock<Vec<Cidr>> =
        LazyLock::new(|| ADDRESSES.into_iter().filter_map(|text| Cidr::new(text).ok()).collect());
    RANGES.iter().copied()
}

/// The listed name that this one is, or lies below.
pub(super) fn resolver_of_name(name: &str) -> Option<&'static str> {
    let name = host_name(name)?;
    resolver_names().find(|listed| {
        name.strip_suffix(listed).is_some_and(|before| before.is_empty() || before.ends_with('.'))
    })
}

/// The listed range that the address lies in.
pub(super) fn resolver_of_address(address: IpAddr) -> Option<Cidr> {
    resolver_addresses().find(|range| range.contains(address))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_lists_hold_what_they_say() {
        assert_eq!(resolver_addresses().count(), ADDRESSES.len());
        assert_eq!(resolver_addresses().collect::<BTreeSet<_>>().len(), ADDRESSES.len(), "twice");
        assert_eq!(NAMES.iter().collect::<BTreeSet<_>>().len(), NAMES.len(), "twice");
        for name in NAMES {
            assert_eq!(host_name(name).as_deref(), Some(name));
            assert!(resolver_of_name(name).is_some());
        }
    }

    #[test]
    fn names_below_count_and_names_beside_do_not() {
        assert_eq!(resolver_of_name("DNS.google."), Some("dns.google"));
        assert_eq!(resolver_of_name("abc123.dns.nextdns.io"), Some("dns.nextdns.io"));
        assert_eq!(resolver_of_name("mozilla.cloudflare-dns.com"), Some("cloudflare-dns.com"));
        for other in ["mydns.google", "google", "dns.google.example.com", "cloudflare.com", "", "8.8.8.8"] {
            assert_eq!(resolver_of_name(other), None, "{other}");
        }
    }

    #[test]
    fn addresses() {
        for listed in ["1.1.1.1", "::ffff:8.8.8.8", "9.9.9.9", "2606:4700:4700::1111", "94.140.14.14"] {
            assert!(resolver_of_address(listed.parse().unwrap()).is_some(), "{listed}");
        }
        for other in ["1.1.1.4", "192.0.2.1", "2001:db8::1", "9.9.9.16", "127.0.0.1"] {
            assert!(resolver_of_address(other.parse().unwrap()).is_none(), "{other}");
        }
    }
}
