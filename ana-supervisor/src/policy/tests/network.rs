//! `[network]`: settings and what follows from them.

use super::{golden::messages, parse, try_parse};
use crate::policy::{
    AGENTS_EXAMPLE, Action, GIT_EXAMPLE, Loopback, NETWORK_APPROVE_EXAMPLE, NETWORK_STRICT_EXAMPLE,
    network_starter, starter,
};

#[test]
fn every_setting_arrives() {
    let policy = parse(
        "version = 1\n[network]\ndefault = 'approve'\nloopback = 'any'\nencrypted_dns = 'allow'\nquic = 'allow'\n\
         inspect = [8443, 443]",
    );
    let network = policy.network().unwrap();
    assert_eq!((network.default, network.loopback), (Action::Approve, Loopback::Any));
    assert!(network.encrypted_dns && network.quic);
    assert_eq!(network.inspect, [443, 8443]);
}

#[test]
fn defaults() {
    let policy = parse("version = 1\n[network]");
    let network = policy.network().unwrap();
    assert_eq!((network.default, network.loopback), (Action::Allow, Loopback::Approve));
    assert!(!network.encrypted_dns && !network.quic && network.inspect.is_empty());
}

#[test]
fn names_are_looked_at_where_rules_need_them() {
    let inspect = |rules: &str| parse(&format!("version = 1\n{rules}")).network().unwrap().inspect.clone();
    let rule = |name: &str, lines: &str| format!("[[connect]]\nname = '{name}'\n{lines}\n");
    assert_eq!(inspect(&rule("a", "host = 'a.example'")), [80, 443, 8080, 8443]);
    assert_eq!(inspect(&rule("a", "host = 'a.example'\nport = [9000, 443]")), [443, 9000]);
    assert_eq!(inspect(&rule("a", "cidr = '192.0.2.1'\nport = 22")), [0; 0]);
    let both = rule("a", "host = 'a.example'\nport = 9000") + &rule("b", "host = 'b.example'");
    assert_eq!(inspect(&both), [80, 443, 8080, 8443, 9000]);
    assert_eq!(inspect(&("[network]\ninspect = []\n".to_owned() + &both)), [0; 0]);
}

#[test]
fn wrong_settings() {
    let cases = [
        ("default = 'ask'", "`default` must be \"approve\" or \"allow\" or \"deny\""),
        ("loopback = 'allow'", "`loopback` must be \"approve\" or \"any\" or \"deny\""),
        ("encrypted_dns = 'deny'", "`encrypted_dns` must be \"refuse\" or \"allow\""),
        ("quic = true", "`quic` must be a string, this is a boolean"),
        ("inspect = [0]", "`inspect` must lie between 1 and 65535"),
        ("inspect = [65536]", "`inspect` must lie between 1 and 65535"),
        ("inspect = [443, 443]", "`inspect`: 443 is listed twice"),
        ("inspect = [53]", "`inspect`: nothing can connect to port 53"),
        ("inspect = '443'", "`inspect` must be an array, this is a string"),
        ("x = 1", "unknown key `x` in [network]"),
    ];
    for (line, message) in cases {
        assert_eq!(messages(&format!("version = 1\n[network]\n{line}")), [message]);
    }
    assert_eq!(messages("version = 1\nnetwork = 1"), ["`network` must be a table, this is an integer"]);
    let twice = super::try_parse(&[
        "version = 1\n[network]\nquic = 'allow'",
        "version = 1\n[network]\nquic = 'allow'",
    ]);
    let errors = twice.unwrap_err();
    assert_eq!(errors.problems()[0].message, "`network.quic` is set in another file already");
}

/// Each with the examples for programs, as files of their own and as one.
#[test]
fn the_examples_hold() {
    for (example, default) in
        [(NETWORK_APPROVE_EXAMPLE, Action::Allow), (NETWORK_STRICT_EXAMPLE, Action::Deny)]
    {
        let policy =
            try_parse(&[GIT_EXAMPLE, AGENTS_EXAMPLE, example]).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(policy.network().unwrap().default, default);
        assert_eq!(policy.connect_rules().len(), 4);
        let one = parse(&(starter(&["/usr/bin/git".into()], false) + network_starter(example)));
        assert_eq!((one.connect_rules().len(), one.exec_rules().len()), (4, 1));
    }
}
