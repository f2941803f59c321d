//! Verdicts on connections.

use std::{net::IpAddr, path::Path, time::Duration};

use super::{parse, try_parse};
use crate::{
    operation::Verify,
    policy::{Action, By, ConnectVerdict, Destination, Policy, Scope, Showing, Target},
};

/// A connection to 192.0.2.1:443 that shows nothing, by a program that no rule lists.
fn to<'a>() -> Destination<'a> {
    Destination {
        address: IpAddr::from([192, 0, 2, 1]),
        port: 443,
        shown: None,
        encrypted: false,
        names: &[],
        resolved: &[],
        shown_is_its_own: false,
        local: false,
        exe: &[],
    }
}

fn own(name: &str) -> Destination<'_> {
    Destination { shown: Some(name), shown_is_its_own: true, ..to() }
}

/// The rules behind a head.
fn policy(rules: &str) -> Policy {
    parse(&format!("version = 1\n{rules}"))
}

fn decided(verdict: &ConnectVerdict) -> (Action, &str, By) {
    (verdict.verdict.action, &verdict.verdict.rule, verdict.by)
}

const PAYMENTS: &str =
    "[[connect]]\nname = 'payments'\nhost = ['api.stripe.com', '*.prod.example.com']\nport = [443]";

#[test]
fn a_name_that_is_shown() {
    let policy = policy(PAYMENTS);
    let verdict = policy.judge_connect(&own("API.Stripe.com."));
    assert_eq!(decided(&verdict), (Action::Approve, "payments", By::Shown));
    assert_eq!(verdict.name.as_deref(), Some("api.stripe.com"));
    assert!(verdict.confirmed);
    assert_eq!(
        verdict.verdict.because,
        "policy.toml:4:9: approve host \"api.stripe.com\", shown: api.stripe.com"
    );
    assert_eq!(policy.judge_connect(&own("db.prod.example.com")).verdict.rule, "payments");
    for other in ["stripe.com", "x.api.stripe.com", "prod.example.com", "a.b.prod.example.com"] {
        assert_eq!(decided(&policy.judge_connect(&own(other))).1, "builtin:network", "{other}");
    }
    let elsewhere = Destination { port: 8443, ..own("api.stripe.com") };
    let verdict = policy.judge_connect(&elsewhere);
    assert_eq!(decided(&verdict), (Action::Allow, "builtin:network", By::Default));
    assert_eq!(verdict.verdict.because, "no rule decides: [network] default = \"allow\"");
}

#[test]
fn an_address_of_a_protected_name_counts_when_nothing_trustworthy_is_shown() {
    let policy = policy(PAYMENTS);
    let names = ["other.example".to_owned(), "api.stripe.com".to_owned()];
    let known = Destination { names: &names, ..to() };
    let by_address = (Action::Approve, "payments", By::Address);
    assert_eq!(decided(&policy.judge_connect(&known)), by_address);
    for shown in ["192.0.2.1", "", "..", "1.2", "é.example", "[2001:db8::1]"] {
        let verdict =
            policy.judge_connect(&Destination { shown: Some(shown), shown_is_its_own: true, ..known });
        assert_eq!(decided(&verdict), by_address, "{shown:?} is no name");
    }
    let innocent = Destination { shown: Some("innocent.example"), ..known };
    assert_eq!(decided(&policy.judge_connect(&innocent)), by_address, "not confirmed");
    let confirmed = Destination { shown_is_its_own: true, ..innocent };
    assert_eq!(policy.judge_connect(&confirmed).by, By::Default, "another site of the same address");
    assert_eq!(decided(&policy.judge_connect(&Destination { encrypted: true, ..confirmed })), by_address);
    assert!(!policy.judge_connect(&known).confirmed, "the session's resolver said so");
    assert!(policy.judge_connect(&Destination { resolved: &names, ..known }).confirmed);
    let address = self::policy(&format!("{PAYMENTS}\naddress = true"));
    assert_eq!(decided(&address.judge_connect(&confirmed)), by_address);
}

#[test]
fn ranges() {
    let policy = policy(
        "[[connect]]\nname = 'office'\ncidr = ['192.0.2.0/24', '2001:db8::1']\nport = 22\n\
         [[connect]]\nname = 'both'\nhost = 'x.example'\ncidr = ['198.51.100.0/24']\nverdict = 'deny'",
    );
    let at = |address: &str, port| Destination { address: address.parse().unwrap(), port, ..to() };
    let by = |asked: &Destination<'_>| policy.judge_connect(asked).verdict.rule;
    for inside in ["192.0.2.255", "::ffff:192.0.2.0", "2001:db8::1"] {
        assert_eq!(by(&at(inside, 22)), "office", "{inside}");
        assert_eq!(by(&at(inside, 23)), "builtin:network", "{inside}");
    }
    assert_eq!(by(&at("192.0.3.0", 22)), "builtin:network");
    let verdict = policy.judge_connect(&at("198.51.100.7", 1));
    assert_eq!(decided(&verdict), (Action::Deny, "both", By::Cidr));
    assert_eq!(verdict.verdict.because, "policy.toml:9:9: deny cidr \"198.51.100.0/24\"");
    assert_eq!(by(&own("x.example")), "both");
    assert_eq!(by(&Destination { shown: Some("x.example"), ..at("198.51.100.7", 1) }), "both");
}

/// Whoever may show any name to any address must not be allowed by a name.
#[test]
fn what_is_allowed_is_proven() {
    let strict = policy(
        "[network]\ndefault = 'deny'\n\
         [[connect]]\nname = 'code'\nhost = 'github.com'\nverdict = 'allow'\n\
         [[connect]]\nname = 'mirror'\nhost = 'mirror.example'\nverdict = 'allow'\naddress = true",
    );
    let because = |asked: &Destination<'_>| {
        let verdict = strict.judge_connect(asked);
        assert_eq!(decided(&verdict), (Action::Deny, "builtin:network", By::Default));
        verdict.verdict.because
    };
    let github = ["github.com".to_owned()];
    assert_eq!(decided(&strict.judge_connect(&own("github.com"))), (Action::Allow, "code", By::Shown));
    assert_eq!(
        because(&Destination { shown: Some("github.com"), ..to() }),
        "no rule decides: [network] default = \"deny\"; rule \"code\" does not allow it: \
         the address is not known to be that of the name shown"
    );
    let hidden = Destination { encrypted: true, ..own("github.com") };
    assert!(because(&hidden).ends_with("another name may be hidden behind the one shown"));
    assert!(
        because(&Destination { names: &github, resolved: &github, ..to() }).ends_with("it shows no name")
    );
    assert_eq!(because(&own("example.com")), "no rule decides: [network] default = \"deny\"");

    let mirror = ["mirror.example".to_owned()];
    let known = Destination { names: &mirror, ..to() };
    assert!(because(&known).ends_with("it shows no name"), "only the session's resolver says so");
    let resolved = Destination { resolved: &mirror, ..known };
    for asked in [resolved, Destination { shown: Some("x.example"), ..resolved }] {
        assert_eq!(decided(&strict.judge_connect(&asked)), (Action::Allow, "mirror", By::Address));
    }
}

#[test]
fn a_skipped_allow_leaves_it_to_the_next_rule() {
    let policy = policy(
        "[[connect]]\nname = 'docs'\nhost = 'docs.example.com'\nverdict = 'allow'\n\
         [[connect]]\nname = 'rest'\nhost = '**.example.com'",
    );
    assert_eq!(policy.judge_connect(&own("docs.example.com")).verdict.rule, "docs");
    let lie = Destination { shown: Some("docs.example.com"), ..to() };
    let verdict = policy.judge_connect(&lie);
    assert_eq!(decided(&verdict), (Action::Approve, "rest", By::Shown));
    assert!(verdict.verdict.because.contains("; rule \"docs\" does not allow it: "), "{verdict:?}");
}

#[test]
fn programs_are_known_by_their_judged_image() {
    let policy = policy(
        "[[exec]]\nname = 'git'\nfile = ['/usr/bin/git', '/usr/bin/git2']\notherwise = 'allow'\n\
         [[connect]]\nname = 'by git'\nhost = 'github.com'\nexe = '/usr/bin/git'\nverdict = 'allow'\n\
         [[connect]]\nname = 'others'\nhost = 'github.com'\n[connect.test]\napprove = ['github.com:443']",
    );
    let by = |exe: &[&Path]| policy.judge_connect(&Destination { exe, ..own("github.com") }).verdict.rule;
    assert_eq!(by(&[]), "others");
    assert_eq!(by(&[Path::new("/usr/bin/git2")]), "others");
    assert_eq!(by(&[Path::new("/usr/bin/git2"), Path::new("/usr/bin/git")]), "by git");
}

#[test]
fn listeners_of_the_host() {
    let local = Destination { address: "127.0.0.1".parse().unwrap(), port: 5432, local: true, ..to() };
    let judged = |text: &str| {
        let verdict = policy(text).judge_connect(&local);
        (verdict.verdict.action, verdict.verdict.rule.clone(), verdict.scope)
    };
    let rule = "builtin:local-services".to_owned();
    assert_eq!(judged("[network]"), (Action::Approve, rule.clone(), Scope::Session));
    assert_eq!(judged("[network]\ndefault = 'deny'"), (Action::Approve, rule.clone(), Scope::Session));
    assert_eq!(judged("[network]\nloopback = 'any'\ndefault = 'deny'").0, Action::Allow);
    assert_eq!(judged("[network]\nloopback = 'deny'").0, Action::Deny);
    let database = "[network]\nloopback = 'deny'\n[[connect]]\nname = 'database'\ncidr = ['127.0.0.1', '::1']\n\
                    port = 5432\nverdict = 'allow'";
    assert_eq!(judged(database).1, "database");
    let named = policy(PAYMENTS);
    let tunnel = Destination { port: 443, shown: Some("api.stripe.com"), ..local };
    assert_eq!(named.judge_connect(&tunnel).verdict.rule, "payments");
}

#[test]
fn servers_of_encrypted_dns() {
    let refused = (Action::Deny, "builtin:encrypted-dns");
    let judged = |policy: &Policy, asked: &Destination<'_>| {
        let verdict = policy.judge_connect(asked);
        (verdict.verdict.action, verdict.verdict.rule.clone())
    };
    let names = ["dns.google".to_owned()];
    let address = |address: &str, port| Destination { address: address.parse().unwrap(), port, ..to() };
    let all = [
        own("mozilla.cloudflare-dns.com"),
        Destination { names: &names, ..to() },
        Destination { port: 853, ..to() },
        address("8.8.8.8", 443),
        Destination { shown: Some("innocent.example"), shown_is_its_own: true, ..address("9.9.9.9", 443) },
    ];
    let on = policy("[network]");
    let off = policy("[network]\nencrypted_dns = 'allow'");
    for asked in &all {
        assert_eq!(judged(&on, asked), (refused.0, refused.1.to_owned()), "{asked:?}");
        assert_eq!(judged(&off, asked).0, Action::Allow, "{asked:?}");
    }
    assert_eq!(judged(&on, &address("8.8.8.8", 53)).1, "builtin:network");
    let because = on.judge_connect(&all[0]).verdict.because;
    assert_eq!(because, "[network] encrypted_dns = \"refuse\": cloudflare-dns.com is a public resolver");
    let named = policy("[[connect]]\nname = 'google'\nhost = 'dns.google'\nverdict = 'allow'");
    assert_eq!(judged(&named, &own("dns.google")).1, "google");
    assert_eq!(judged(&named, &Destination { shown: Some("dns.google"), ..to() }).1, refused.1);
    assert!(on.refuses_dot() && named.refuses_dot() && !off.refuses_dot());
    assert!(!parse("version = 1").refuses_dot());
    let dot = policy("[[connect]]\nname = 'dot'\ncidr = '192.0.2.1'\nport = 853\nverdict = 'allow'");
    assert!(!dot.refuses_dot());
    assert_eq!(judged(&dot, &Destination { port: 853, ..to() }).1, "dot");
    assert_eq!(judged(&dot, &Destination { port: 853, ..address("192.0.2.2", 853) }).1, refused.1);
}

#[test]
fn every_setting_of_a_rule_arrives() {
    let policy = policy(
        "[defaults]\ntimeout = '7s'\nverify = 'pin'\n\
         [[connect]]\nname = 'a'\nhost = 'a.example'\nfor = '10m'\ngrace = '5s'\ntimeout = '9s'\nverify = 'presence'\n\
         [[connect]]\nname = 'b'\nhost = ['b.example', '*.b.example']\nfor = 'session'\n\
         [[connect]]\nname = 'c'\ncidr = '192.0.2.0/24'\nport = [9, 8]",
    );
    let [a, b, c] = ["a.example", "b.example", ""]
        .map(|name| policy.judge_connect(&Destination { port: 9, ..own(name) }));
    assert_eq!((a.scope, a.grace), (Scope::For(Duration::from_secs(600)), Duration::from_secs(5)));
    assert_eq!((a.verdict.timeout, a.verdict.verify), (Duration::from_secs(9), Verify::Presence));
    assert_eq!((b.scope, b.grace), (Scope::Session, Duration::from_secs(60)));
    assert_eq!((b.verdict.timeout, b.verdict.verify), (Duration::from_secs(7), Verify::Pin));
    assert_eq!((c.scope, c.by), (Scope::Once, By::Cidr));
    let [_, b, c] = policy.connect_rules() else { panic!("three rules") };
    assert_eq!(b.exact_hosts().collect::<Vec<_>>(), ["b.example"]);
    assert_eq!((b.hosts().count(), c.ports()), (2, &[8, 9][..]));
    assert_eq!(c.cidrs().map(|range| range.to_string()).collect::<Vec<_>>(), ["192.0.2.0/24"]);
}

/// Or a grant for the name would let the next connection that shows it pass to any address.
#[test]
fn an_approval_by_an_unconfirmed_name_holds_once_where_not_everything_is_allowed() {
    let rule = "[[connect]]\nname = 'a'\nhost = 'a.example'\nfor = 'session'";
    let names = ["a.example".to_owned()];
    let poisoned = Destination { names: &names, ..to() };
    for default in ["approve", "deny"] {
        let strict = policy(&format!("[network]\ndefault = '{default}'\n{rule}"));
        let scope = |asked: &Destination<'_>| strict.judge_connect(asked).scope;
        assert_eq!(scope(&own("a.example")), Scope::Session);
        assert_eq!(scope(&Destination { shown: Some("a.example"), ..to() }), Scope::Once);
        assert_eq!(scope(&Destination { encrypted: true, ..own("a.example") }), Scope::Once);
        assert_eq!(scope(&poisoned), Scope::Once);
        assert_eq!(scope(&Destination { resolved: &names, ..poisoned }), Scope::Session);
    }
    let lenient = policy(rule);
    assert_eq!(lenient.judge_connect(&poisoned).scope, Scope::Session);
}

#[test]
fn what_people_ask_about() {
    let policy = policy(
        "[network]\ndefault = 'deny'\n\
         [[connect]]\nname = 'all on 25'\ncidr = ['0.0.0.0/0', '::/0']\nport = 25\n\
         [[connect]]\nname = 'a'\nhost = 'a.example'\nverdict = 'allow'\n\
         [connect.test]\napprove = ['a.example:25', '[::ffff:192.0.2.1]:25', '127.0.0.1:9']\n\
         deny = ['b.example:443', 'dns.google:443', '127.1.2.3:853']\nallow = ['a.example:443']",
    );
    assert_eq!(policy.test_count(), 7);
    let a = Target::Name("a.example".into(), 443);
    let judged = |showing| policy.judge_target(&a, showing, &[]).verdict.action;
    assert_eq!(judged(Showing::Own), Action::Allow);
    assert_eq!(judged(Showing::Unconfirmed), Action::Deny);
    assert_eq!(judged(Showing::Nothing), Action::Deny);
}

#[test]
fn targets() {
    let parse = |text: &str| text.parse::<Target>();
    assert_eq!(parse("Api.Example.com.:443"), Ok(Target::Name("api.example.com".into(), 443)));
    assert_eq!(parse("[2001:db8::1]:22"), Ok(Target::Address("2001:db8::1".parse().unwrap(), 22)));
    assert_eq!(parse("[::ffff:192.0.2.7]:22"), parse("192.0.2.7:22"));
    for text in ["api.example.com:443", "192.0.2.7:22", "[2001:db8::1]:22"] {
        assert_eq!(parse(text).unwrap().to_string(), text);
    }
    for bad in [
        "",
        "x",
        "x:",
        "x:0",
        "x:65536",
        "x:+1",
        ":1",
        "*.x:1",
        "2001:db8::1:22",
        "[192.0.2.7]:1",
        "1.2:3",
        "a b:1",
        "https://x:443",
        "x:443/",
        "é:1",
    ] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn without_a_section_there_is_no_gate() {
    let none = parse("version = 1");
    assert!(none.network().is_none());
    assert_eq!(none.judge_connect(&own("dns.google")).verdict.action, Action::Allow);
    assert!(policy("[network]").network().is_some() && policy(PAYMENTS).network().is_some());
    let split =
        try_parse(&["version = 1\n[network]\nquic = 'allow'", "version = 1\n[network]\ndefault = 'deny'"]);
    let network = split.unwrap().network().unwrap().clone();
    assert!(network.quic && network.default == Action::Deny);
    let target = Target::Name("x.example".into(), 1);
    assert_eq!(none.judge_target(&target, Showing::Nothing, &[]).verdict.action, Action::Allow);
}
