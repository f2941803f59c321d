//! Rules for connections against a model that only knows the manual: no code of the judge's, no clever matching.

use std::{net::IpAddr, path::Path};

use proptest::prelude::*;

use super::try_parse;
use crate::policy::{Action, Cidr, Destination, HostPattern};

const NAMES: [&str; 6] = ["a", "b.a", "c.b.a", "b.b", "dns.google", "x.dns.google"];
const HOSTS: [&str; 8] = ["a", "b.a", "*.a", "**.a", "**", "*.b", "dns.google", "*.*.a"];
const CIDRS: [&str; 5] = ["192.0.2.0/24", "192.0.2.1", "0.0.0.0/0", "2001:db8::/32", "127.0.0.0/8"];
const ADDRESSES: [&str; 6] =
    ["192.0.2.1", "::ffff:192.0.2.1", "192.0.2.77", "8.8.8.8", "2001:db8::1", "127.0.0.1"];
const EXES: [&str; 2] = ["/bin/a", "/bin/b"];

#[derive(Clone, Debug)]
struct Rule {
    hosts: Vec<&'static str>,
    cidrs: Vec<&'static str>,
    ports: Vec<u16>,
    exe: Vec<&'static str>,
    address: bool,
    verdict: &'static str,
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let some = |all: &'static [&'static str], most| prop::sample::subsequence(all.to_vec(), 0..most);
    let ports = prop::sample::subsequence(vec![80, 443, 853], 0..2);
    let verdict = prop::sample::select(vec!["allow", "deny", "approve"]);
    let rule = (some(&HOSTS, 3), some(&CIDRS, 2), ports, some(&EXES, 2), any::<bool>(), verdict).prop_map(
        |(hosts, cidrs, ports, exe, address, verdict)| {
            let address = address && !hosts.is_empty();
            Rule { hosts, cidrs, ports, exe, address, verdict }
        },
    );
    let rule = rule.prop_filter("a rule is about something", |r| !r.hosts.is_empty() || !r.cidrs.is_empty());
    prop::collection::vec(rule, 0..4)
}

#[derive(Clone, Debug)]
struct Asked {
    address: IpAddr,
    port: u16,
    shown: Option<&'static str>,
    encrypted: bool,
    names: Vec<String>,
    resolved: Vec<String>,
    own: bool,
    local: bool,
    exe: Vec<&'static Path>,
}

fn asked() -> impl Strategy<Value = Asked> {
    let names = prop::sample::subsequence(NAMES.to_vec(), 0..3);
    let shown = prop_oneof![
        2 => Just(None),
        1 => prop::sample::select(vec!["", "192.0.2.1", "a..b", "\u{e9}"]).prop_map(Some),
        5 => prop::sample::select(NAMES.to_vec()).prop_map(Some),
    ];
    let exe = prop::sample::subsequence(EXES.map(Path::new).to_vec(), 0..3);
    let to = (prop::sample::select(ADDRESSES.to_vec()), prop::sample::select(vec![22, 53, 80, 443, 853]));
    (to, shown, any::<[bool; 4]>(), names, exe).prop_map(
        |((address, port), shown, [encrypted, own, local, all], names, exe)| {
            let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
            let resolved = if all { names.clone() } else { names.iter().take(1).cloned().collect() };
            let address = address.parse().unwrap();
            Asked { address, port, shown, encrypted, names, resolved, own, local, exe }
        },
    )
}

/// `*` is one label, `**` is one or more.
fn naive(pattern: &[&str], name: &[&str]) -> bool {
    match (pattern, name) {
        ([], rest) => rest.is_empty(),
        (["**", after @ ..], rest) => (1..=rest.len()).any(|taken| naive(after, &rest[taken..])),
        (["*", after @ ..], [_, rest @ ..]) => naive(after, rest),
        ([own, after @ ..], [label, rest @ ..]) => own == label && naive(after, rest),
        ([_, ..], []) => false,
    }
}

fn split(text: &str) -> Vec<&str> {
    text.split('.').collect()
}

fn matches(rule: &Rule, name: &str) -> bool {
    rule.hosts.iter().any(|host| naive(&split(host), &split(name)))
}

/// The bits of an address, behind those of its family.
fn bits(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(v4) => format!("4{:032b}", v4.to_bits()),
        IpAddr::V6(v6) => format!("6{:0128b}", v6.to_bits()),
    }
}

fn inside(cidr: &str, address: IpAddr) -> bool {
    let (network, prefix) = cidr.split_once('/').map_or((cidr, 999), |(n, p)| (n, p.parse().unwrap()));
    let network = bits(network.parse().unwrap());
    let end = network.len().min(1 + prefix);
    bits(address).starts_with(&network[..end])
}

fn model(rules: &[Rule], asked: &Asked, default: &str, loopback: &str, dns: bool) -> (&'static str, String) {
    let shown = asked.shown.filter(|shown| NAMES.contains(shown));
    let trusted = shown.is_some() && asked.own && !asked.encrypted;
    for (number, rule) in rules.iter().enumerate() {
        let port = rule.ports.is_empty() || rule.ports.contains(&asked.port);
        let exe = rule.exe.is_empty() || rule.exe.iter().any(|exe| asked.exe.contains(&Path::new(exe)));
        let is_shown = shown.is_some_and(|name| matches(rule, name));
        let any = |names: &[String]| names.iter().any(|name| matches(rule, name));
        let by_name = match rule.verdict {
            "allow" => (is_shown && trusted) || (rule.address && any(&asked.resolved)),
            _ => is_shown || ((rule.address || !trusted) && any(&asked.names)),
        };
        let by_address = rule.cidrs.iter().any(|cidr| inside(cidr, asked.address));
        if port && exe && (by_name || by_address) {
            return (rule.verdict, format!("r{number}"));
        }
    }
    let public = |name: &str| name.ends_with("dns.google");
    let resolver = shown.is_some_and(public)
        || (!trusted && asked.names.iter().any(|name| public(name)))
        || (asked.address.to_canonical() == IpAddr::from([8, 8, 8, 8]) && asked.port != 53)
        || asked.port == 853;
    match (loopback, default) {
        _ if resolver && !dns => ("deny", "builtin:encrypted-dns".into()),
        ("any", _) if asked.local => ("allow", "builtin:local-services".into()),
        ("deny", _) if asked.local => ("deny", "builtin:local-services".into()),
        (..) if asked.local => ("approve", "builtin:local-services".into()),
        (_, "allow") => ("allow", "builtin:network".into()),
        (_, "deny") => ("deny", "builtin:network".into()),
        (..) => ("approve", "builtin:network".into()),
    }
}

fn text(rules: &[Rule], [default, loopback, dns]: [&str; 3]) -> String {
    let mut text = format!(
        "version = 1\n[network]\ndefault = '{default}'\nloopback = '{loopback}'\nencrypted_dns = '{dns}'\n\
         [[exec]]\nname = 'e'\nfile = {EXES:?}\n"
    );
    for (number, rule) in rules.iter().enumerate() {
        text += &format!(
            "[[connect]]\nname = 'r{number}'\nverdict = '{}'\naddress = {}\n",
            rule.verdict, rule.address
        );
        for (key, list) in [("host", &rule.hosts), ("cidr", &rule.cidrs), ("exe", &rule.exe)] {
            if !list.is_empty() {
                text += &format!("{key} = {list:?}\n");
            }
        }
        if !rule.ports.is_empty() {
            text += &format!("port = {:?}\n", rule.ports);
        }
    }
    text
}

fn word(action: Action) -> &'static str {
    action.word()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    /// The first rule that matches decides, and the judge has an answer to everything.
    #[test]
    fn as_the_manual_says(
        rules in rules(), asked in asked(), default in "(allow|approve|deny)", loopback in "(any|approve|deny)",
        dns in any::<bool>(),
    ) {
        let word_dns = if dns { "allow" } else { "refuse" };
        let policy = match try_parse(&[&text(&rules, [&default, &loopback, word_dns])]) {
            Ok(policy) => policy,
            Err(errors) => {
                // Generated blindly: a pattern or a whole rule may be one that never decides.
                prop_assert!(errors.problems().iter().all(|p| p.message.ends_with("can never decide")), "{errors}");
                return Ok(());
            }
        };
        let destination = Destination {
            address: asked.address, port: asked.port, shown: asked.shown, encrypted: asked.encrypted,
            names: &asked.names, resolved: &asked.resolved, shown_is_its_own: asked.own, local: asked.local,
            exe: &asked.exe,
        };
        let verdict = policy.judge_connect(&destination);
        let (action, rule) = model(&rules, &asked, &default, &loopback, dns);
        prop_assert_eq!((word(verdict.verdict.action), verdict.verdict.rule.clone()), (action, rule), "{:?}", verdict);
        prop_assert!(verdict.verdict.because.is_ascii());
    }

    /// A rule that is refused as one that never decides does not: without it every verdict is the same.
    #[test]
    fn what_is_called_shadowed_is(rules in rules(), asked in prop::collection::vec(asked(), 40)) {
        let Err(errors) = try_parse(&[&text(&rules, ["deny", "deny", "refuse"])]) else { return Ok(()) };
        let whole = |message: &str| message == "this rule can never decide";
        prop_assume!(errors.problems().iter().all(|problem| whole(&problem.message)));
        let place = |at: usize| errors.problems().iter().any(|problem| {
            let (_, line, _) = errors.position(problem).unwrap();
            let text = text(&rules, ["deny", "deny", "refuse"]);
            text.lines().nth(line) == Some(&format!("name = 'r{at}'"))
        });
        for asked in &asked {
            let (_, rule) = model(&rules, asked, "deny", "deny", false);
            for at in (0..rules.len()).filter(|at| place(*at)) {
                prop_assert_ne!(&rule, &format!("r{at}"), "{:?} {:?}", rules, asked);
            }
        }
    }

    #[test]
    fn names_match_as_the_definition_says(
        pattern in prop::collection::vec("(a|b|\\*|\\*\\*)", 1..6), name in prop::collection::vec("[ab]", 1..7),
        upper in any::<bool>(), dot in any::<bool>(),
    ) {
        let parsed = HostPattern::new(&pattern.join(".")).unwrap();
        let expected = naive(&pattern.iter().map(String::as_str).collect::<Vec<_>>(), &name.iter().map(String::as_str).collect::<Vec<_>>());
        let mut spelled = name.join(".");
        spelled = if upper { spelled.to_uppercase() } else { spelled };
        spelled.extend(dot.then_some('.'));
        prop_assert_eq!(parsed.matches(&spelled), expected);
    }

    #[test]
    fn a_pattern_covers_exactly_what_it_matches_too(
        mine in prop::collection::vec("(a|b|\\*|\\*\\*)", 1..5), theirs in prop::collection::vec("(a|b|\\*|\\*\\*)", 1..5),
        names in prop::collection::vec(prop::collection::vec("[abc]", 1..7), 60),
    ) {
        let (mine, theirs) = (HostPattern::new(&mine.join(".")).unwrap(), HostPattern::new(&theirs.join(".")).unwrap());
        if mine.covers(&theirs) {
            for name in names.iter().map(|labels| labels.join(".")) {
                prop_assert!(!theirs.matches(&name) || mine.matches(&name), "{}", name);
            }
        }
    }

    #[test]
    fn hostile_names_match_nothing_and_end(name in "\\PC{0,40}", pattern in prop::sample::select(HOSTS.to_vec())) {
        let pattern = HostPattern::new(pattern).unwrap();
        let plain = crate::policy::host_name(&name);
        prop_assert_eq!(pattern.matches(&name), plain.is_some_and(|plain| pattern.matches(&plain)));
    }

    #[test]
    fn ranges_hold_what_shares_their_bits(
        v4 in any::<bool>(), base in any::<u128>(), prefix in 0u8..=128, flip in prop::option::of(0u32..128),
    ) {
        let address = |bits: u128| -> IpAddr {
            if v4 { u32::try_from(bits >> 96).unwrap().to_be_bytes().into() } else { bits.to_be_bytes().into() }
        };
        let longest: u8 = if v4 { 32 } else { 128 };
        let prefix = prefix.min(longest);
        let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
        let text = format!("{}/{prefix}", address(base & mask));
        // What is not there to connect to, and IPv6 ranges around the mapped addresses, are cases of their own.
        let Ok(range) = Cidr::new(&text) else { return Ok(()) };
        prop_assume!(v4 || (base & mask) >> 32 != 0xffff);
        let changed = base ^ flip.map_or(0, |bit| 1u128 << (127 - bit));
        let same = changed & mask == base & mask;
        prop_assume!(v4 || changed >> 32 != 0xffff);
        prop_assert_eq!(range.contains(address(changed)), same, "{} {}", range, address(changed));
        prop_assert_eq!(Cidr::new(&range.to_string()), Ok(range));
    }
}
