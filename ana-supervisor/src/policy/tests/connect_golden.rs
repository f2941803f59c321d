//! Error messages about `[[connect]]`, letter by letter.

use super::golden::{BAD_NAME, errors, messages};

/// A rule for a.example with these further lines, from line 5 on.
fn rule(lines: &str) -> String {
    format!("version = 1\n[[connect]]\nname = 'a'\nhost = ['a.example']\n{lines}")
}

#[test]
fn a_name_that_is_not_ascii() {
    assert_eq!(
        errors("version = 1\n[[connect]]\nname = 'a'\nhost = ['b.example', 'bücher.example']"),
        "\
error: `host`: DNS carries names in ASCII only
 --> policy.toml:4:22
  |
4 | host = ['b.example', 'bücher.example']
  |                      ^^^^^^^^^^^^^^^^
  |
  = help: write the name as it is looked up: \"xn--bcher-kva.example\""
    );
}

#[test]
fn a_range_with_host_bits_names_the_range() {
    assert_eq!(
        errors("version = 1\n[[connect]]\nname = 'a'\ncidr = '192.0.2.7/24'"),
        "\
error: `cidr`: \"192.0.2.7/24\" has bits set behind its prefix
 --> policy.toml:4:8
  |
4 | cidr = '192.0.2.7/24'
  |        ^^^^^^^^^^^^^^
  |
  = help: the range is \"192.0.2.0/24\""
    );
}

#[test]
fn an_exe_that_no_rule_judges() {
    assert_eq!(
        errors(&rule("exe = ['~/bin/tool']")),
        "\
error: `exe`: no [[exec]] rule lists /home/alice/bin/tool
 --> policy.toml:5:8
  |
5 | exe = ['~/bin/tool']
  |        ^^^^^^^^^^^^
  |
  = help: only a program that a rule judges is known by more than its name; list it with `otherwise = \"allow\"` if it may run"
    );
}

#[test]
fn a_rule_behind_a_wider_one_shows_both() {
    assert_eq!(
        errors(&rule("[[connect]]\nname = 'b'\nhost = 'a.example'\nport = 443")),
        "\
error: this rule can never decide
 --> policy.toml:5:1
  |
2 | [[connect]]
  | ----------- this rule comes first and matches all of its connections
...
5 | [[connect]]
  | ^^^^^^^^^^^"
    );
}

#[test]
fn one_name_for_an_exec_and_a_connect_rule() {
    assert_eq!(
        errors(&rule("[[exec]]\nname = 'a'\nfile = '/bin/a'")),
        "\
error: two rules are called \"a\"
 --> policy.toml:6:8
  |
3 | name = 'a'
  |        --- the first
...
6 | name = 'a'
  |        ^^^"
    );
}

#[test]
fn a_failing_self_test_shows_the_deciding_line() {
    assert_eq!(
        errors(&rule("[connect.test]\nallow = ['a.example:443']")),
        "\
error: self-test failed: the verdict on `a.example:443` is approve, not allow
 --> policy.toml:6:10
  |
6 | allow = ['a.example:443']
  |          ^^^^^^^^^^^^^^^
  |
  = help: rule \"a\" decided, policy.toml:4:9: approve host \"a.example\", shown: a.example"
    );
}

#[test]
fn wrong_keys() {
    let cases = [
        ("x = 1", "unknown key `x` in [[connect]]"),
        ("[connect.test]\nx = []", "unknown key `x` in [connect.test]"),
        ("port = []", "`port` lists nothing: the rule can never decide by it"),
        ("port = [0]", "`port` must lie between 1 and 65535"),
        ("port = ['443']", "`port` must be an integer, this is a string"),
        ("port = 53", "`port`: nothing can connect to port 53"),
        ("port = [1, 1]", "`port`: 1 is listed twice"),
        ("cidr = []", "`cidr` lists nothing: the rule can never decide by it"),
        ("exe = []", "`exe` lists nothing: the rule can never decide by it"),
        ("exe = 'git'", "`exe`: the path \"git\" is not absolute"),
        ("address = 'yes'", "`address` must be a boolean, this is a string"),
        ("verdict = 'ask'", "`verdict` must be \"approve\" or \"allow\" or \"deny\""),
        ("for = 'ever'", "`for` must be \"once\", \"session\" or a duration"),
        ("for = '0s'", "`for` must be a duration between \"1s\" and \"24h\""),
        ("for = 1", "`for` must be a string, this is an integer"),
        ("grace = '2d'", "`grace` must be a duration between \"1s\" and \"24h\""),
        ("verdict = 'deny'\nfor = '1h'", "`for` in a rule that asks nobody"),
        ("verdict = 'allow'\ngrace = '1h'", "`grace` in a rule that asks nobody"),
        ("verify = 'touch'", "`verify` must be \"presence\" or \"pin\""),
        ("[connect.test]\nallow = [1]", "`allow` must be a list of strings"),
        (
            "[connect.test]\nallow = ['a.example']",
            "this test is not a destination: a port is missing: write it as api.example.com:443, 192.0.2.7:22 or \
             [2001:db8::1]:443",
        ),
        (
            "[connect.test]\nallow = ['*.example:1']",
            "this test is not a destination: neither a name that DNS could hold nor an address stands before the port",
        ),
        ("[[connect]]\nname = 'a'\nhost = 'b.example'", "two rules are called \"a\""),
        ("[[connect]]\nname = 'b'", "a rule without `host` or `cidr`"),
        ("[[connect]]\nhost = 'b.example'", "a rule without `name`"),
        ("[[connect]]\nname = ''\nhost = 'b.example'", BAD_NAME),
        (
            "[[connect]]\nname = 'builtin:x'\nhost = 'b.example'",
            "`name`: only ana's own rules are called `builtin:…`",
        ),
        ("[[connect]]\nname = 'b'\ncidr = '192.0.2.1'\naddress = true", "`address` in a rule without `host`"),
    ];
    for (lines, message) in cases {
        assert_eq!(messages(&rule(lines)), [message], "{lines}");
    }
    assert_eq!(messages("version = 1\n[connect]\nname = 'a'"), ["`connect` is a list of rules"]);
    assert_eq!(messages("version = 1\nconnect = [1]"), ["`connect` must be a table, this is an integer"]);
}

#[test]
fn wrong_names() {
    let of = |host: &str| messages(&format!("version = 1\n[[connect]]\nname = 'a'\nhost = '{host}'"));
    let long = format!("{}.example", "a".repeat(64));
    let deep = vec!["abcdefgh"; 29].join(".");
    for never in ["", ".", "a..b", ".a", "a b", "a,b", &long, &deep, "a..", "a_b$.example"] {
        assert_eq!(of(never), ["`host`: no name can look like this: it can never match"], "{never}");
    }
    for address in ["192.0.2.1", "[2001:db8::1]", "2001:db8::1", "1.2", "**.7", "x.0x7f"] {
        assert_eq!(of(address), ["`host`: this is an address, not a name"], "{address}");
    }
    for star in ["api-*.example", "***.example", "a**", "**a.example"] {
        assert_eq!(of(star), ["`host`: a star stands for whole labels"], "{star}");
    }
    for url in ["https://a.example", "a.example:443", "a.example/x", "me@a.example"] {
        assert_eq!(of(url), ["`host`: a name only, without scheme, port or path"], "{url}");
    }
    for good in
        ["a", "A.Example.", "*", "**", "*.example", "a.**.b", "_srv.x-y.example", "xn--bcher-kva.example"]
    {
        assert_eq!(of(good), [""; 0], "{good}");
    }
    for again in ["'*.example', 'a.example'", "'**', '*.x'", "'a.example', 'A.example.'", "'**.a', '*.**.a'"]
    {
        let text = format!("version = 1\n[[connect]]\nname = 'a'\nhost = [{again}]");
        assert_eq!(messages(&text), ["`host`: this can never decide"], "{again}");
    }
}

#[test]
fn wrong_ranges() {
    let of = |cidr: &str| messages(&format!("version = 1\n[[connect]]\nname = 'a'\ncidr = {cidr}"));
    for none in ["''", "'a.example'", "'192.0.2'", "'192.0.2.01'", "'fe80::1%eth0'", "'[::1]'", "'/8'"] {
        assert!(of(none)[0].ends_with(" is not a range of addresses"), "{none}");
    }
    for prefix in ["'192.0.2.0/33'", "'2001:db8::/129'", "'192.0.2.0/'", "'192.0.2.0/+8'", "'192.0.2.0/-1'"] {
        assert!(of(prefix)[0].contains(" has a prefix that is no number from 0 to "), "{prefix}");
    }
    for host in ["'192.0.2.1/24'", "'2001:db8::1/32'", "'::ffff:192.0.2.1/120'", "'::ffff:0.0.0.1/0'"] {
        assert!(of(host)[0].ends_with(" has bits set behind its prefix"), "{host}");
    }
    for nothing in ["'0.0.0.0'", "'0.1.2.3'", "'0.0.0.0/8'", "'::'"] {
        assert!(of(nothing)[0].ends_with("it can never match"), "{nothing}");
    }
    for good in
        ["'0.0.0.0/0'", "'::/0'", "'192.0.2.0/24'", "['10.0.0.0/8', 'fd00::/8']", "'::ffff:192.0.2.0/120'"]
    {
        assert_eq!(of(good), [""; 0], "{good}");
    }
    for again in
        ["['192.0.2.0/24', '192.0.2.1']", "['192.0.2.1', '::ffff:192.0.2.1']", "['::/0', 'fd00::/8']"]
    {
        assert_eq!(of(again), ["`cidr`: this can never decide"], "{again}");
    }
}

#[test]
fn only_a_rule_that_leaves_nothing_shadows() {
    let pair = |first: &str, second: &str| {
        let rules = format!("[[connect]]\nname = 'x'\n{first}\n[[connect]]\nname = 'y'\n{second}");
        messages(&format!("version = 1\n[[exec]]\nname = 'e'\nfile = ['/bin/a', '/bin/b']\n{rules}"))
    };
    let never = ["this rule can never decide"];
    for (first, second) in [
        ("host = '**.b'", "host = ['a.b', '*.c.b']"),
        ("host = '**'\ncidr = '10.0.0.0/8'", "host = 'a'\ncidr = '10.1.0.0/16'\nport = 1"),
        ("cidr = ['0.0.0.0/0', '::/0']", "host = 'a.b'"),
        ("cidr = ['0.0.0.0/0', '::/0']\nverdict = 'allow'", "host = 'a.b'\naddress = true\ncidr = '::1'"),
        ("host = '*'\nport = [1, 2]", "host = 'a'\nport = 2"),
        ("host = '*'\nexe = '/bin/a'", "host = 'a'\nexe = '/bin/a'"),
        ("host = 'a'\nverdict = 'allow'", "host = 'a'\nverdict = 'allow'"),
        ("host = 'a'\naddress = true", "host = 'a'\naddress = true"),
    ] {
        assert_eq!(pair(first, second), never, "{first} / {second}");
    }
    for (first, second) in [
        ("host = '*.b'", "host = ['a.b', '*.c.b']"),
        ("cidr = '0.0.0.0/0'", "host = 'a.b'"),
        ("host = '*'\nport = [1, 2]", "host = 'a'"),
        ("host = '*'\nexe = '/bin/a'", "host = 'a'"),
        ("host = '*'\nexe = '/bin/a'", "host = 'a'\nexe = ['/bin/a', '/bin/b']"),
        ("host = 'a'\nverdict = 'allow'", "host = 'a'"),
        ("host = 'a'", "host = 'a'\naddress = true"),
        ("host = 'a'", "host = 'a'\ncidr = '::1'"),
    ] {
        assert_eq!(pair(first, second), [""; 0], "{first} / {second}");
    }
}
