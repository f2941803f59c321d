//! Error messages, letter by letter.

use super::{sources, try_parse};

/// The errors of one source, without the closing line.
pub(super) fn errors(text: &str) -> String {
    match try_parse(&[text]) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(errors) => {
            let text = errors.to_string();
            let (body, last) = text.trim_end().rsplit_once("\n\n").unwrap();
            assert!(last.starts_with("error: the policy is not loaded: "), "{last}");
            body.to_owned()
        }
    }
}

/// A rule for /bin/a with these further lines, from line 5 on.
fn rule(lines: &str) -> String {
    format!("version = 1\n[[exec]]\nname = 'a'\nfile = '/bin/a'\n{lines}")
}

/// The first lines of the errors, all of them.
pub(super) fn messages(text: &str) -> Vec<String> {
    let parsed = try_parse(&[text]);
    parsed
        .err()
        .map(|errors| errors.problems().iter().map(|p| p.message.clone()).collect())
        .unwrap_or_default()
}

#[test]
fn an_unknown_key_is_shown_with_a_caret_and_the_known_ones() {
    assert_eq!(
        errors("version = 1\n[sesion]\n"),
        "\
error: unknown key `sesion` in a policy
 --> policy.toml:2:2
  |
2 | [sesion]
  |  ^^^^^^
  |
  = help: the keys of a policy are version, allow_software_passkey, session, defaults, exec, network, connect"
    );
}

#[test]
fn unknown_keys_everywhere() {
    for (text, table) in [
        ("version = 1\nx = 1".to_owned(), "a policy"),
        ("version = 1\n[session]\nx = 1".to_owned(), "[session]"),
        ("version = 1\n[defaults]\nx = 1".to_owned(), "[defaults]"),
        (rule("x = 1"), "[[exec]]"),
        (rule("[exec.test]\nx = []"), "[exec.test]"),
    ] {
        assert_eq!(messages(&text), [format!("unknown key `x` in {table}")]);
    }
}

#[test]
fn a_shadowed_pattern_shows_both() {
    assert_eq!(
        errors(&rule("deny = [['push', '**']]\nallow = [['log'], ['push', 'x']]")),
        "\
error: this `allow` pattern can never match
 --> policy.toml:6:19
  |
5 | deny = [['push', '**']]
  |         -------------- this `deny` pattern comes first and matches all of it
6 | allow = [['log'], ['push', 'x']]
  |                   ^^^^^^^^^^^^^"
    );
}

#[test]
fn a_failing_self_test_shows_the_deciding_line() {
    assert_eq!(
        errors(&rule("[exec.test]\nallow = ['a x']")),
        "\
error: self-test failed: the verdict on `a x` is approve, not allow
 --> policy.toml:6:10
  |
6 | allow = ['a x']
  |          ^^^^^
  |
  = help: rule \"a\" decided, policy.toml:2:1: otherwise = \"approve\""
    );
}

#[test]
fn a_section_without_a_gate_is_no_protection() {
    assert_eq!(
        errors("version = 1\n[[syscall]]\nname = 'x'"),
        "\
error: this version of ana does not gate `syscall`: nothing would be protected
 --> policy.toml:2:3
  |
2 | [[syscall]]
  |   ^^^^^^^
  |
  = help: remove the section, or use a version that has this gate"
    );
    for later in ["open", "unix", "syscall"] {
        let found = messages(&format!("version = 1\n[[{later}]]\nname = 'x'"));
        assert_eq!(
            found,
            [format!("this version of ana does not gate `{later}`: nothing would be protected")]
        );
    }
    for later in ["for = '1h'", "exe = '/bin/x'"] {
        let word = later.split(' ').next().unwrap();
        assert_eq!(
            messages(&rule(later)),
            [format!("this version of ana does not know `{word}` in [[exec]]")]
        );
    }
}

#[test]
fn an_error_across_files_shows_both() {
    let errors = try_parse(&["version=1\n[defaults]\ntimeout='3s'", "version=1\n[defaults]\ntimeout='4s'"]);
    assert_eq!(
        errors.unwrap_err().to_string(),
        "\
error: `defaults.timeout` is set in another file already
 --> policy.d/1.toml:3:1
  |
3 | timeout='4s'
  | ^^^^^^^
  |
 ::: policy.toml:3:1
  |
3 | timeout='3s'
  | ------- set here

error: the policy is not loaded: 1 error
"
    );
}

#[test]
fn all_errors_are_reported_in_order() {
    let errors = try_parse(&[
        "version = 2\nx = 1\n[[exec]]\nfile = 'bin/a'\nverify = 'maybe'",
        "version = 1\n[session]\nmax_holds = 'many'\n",
        "broken",
    ])
    .unwrap_err();
    let found: Vec<(String, String)> = errors
        .problems()
        .iter()
        .map(|problem| {
            let (name, line, column) = errors.position(problem).unwrap();
            (format!("{name}:{line}:{column}"), problem.message.clone())
        })
        .collect();
    let places: Vec<&str> = found.iter().map(|(place, _)| place.as_str()).collect();
    assert_eq!(
        places,
        [
            "policy.toml:1:11",
            "policy.toml:2:1",
            "policy.toml:3:1",
            "policy.toml:4:8",
            "policy.toml:5:10",
            "policy.d/1.toml:3:13",
            "policy.d/2.toml:1:7"
        ],
        "{found:?}"
    );
    assert!(errors.to_string().ends_with("error: the policy is not loaded: 7 errors\n"), "{errors}");
}

#[test]
fn columns_count_characters() {
    let errors = try_parse(&["version = 1\n[session] # é\ndevices = ['/é', 1]"]).unwrap_err();
    assert_eq!(errors.position(&errors.problems()[0]), Some(("policy.toml", 3, 18)));
}

#[test]
fn wrong_types_values_and_paths() {
    let cases = [
        ("allow_software_passkey = 'yes'", "`allow_software_passkey` must be a boolean, this is a string"),
        ("session = 1", "`session` must be a table, this is an integer"),
        ("[session]\nnamespaces = 1", "`namespaces` must be a boolean, this is an integer"),
        ("[session]\nmax_holds = 0", "`max_holds` must lie between 1 and 1024"),
        ("[session]\nmax_holds = 99999999999999999999", "`max_holds` must lie between 1 and 1024"),
        ("[session]\ndevices = ['dev/kvm']", "`devices`: the path \"dev/kvm\" is not absolute"),
        ("[session]\ndevices = [1]", "`devices` must be a list of strings"),
        ("[defaults]\ntimeout = 120", "`timeout` must be a string, this is an integer"),
        ("[defaults]\nverify = 'touch'", "`verify` must be \"presence\" or \"pin\""),
        ("[defaults]\nrequire = 'all'", "`require` must be \"seal\""),
        (
            "[defaults]\ninterpreters = ['/bin/sh']",
            "`interpreters`: \"/bin/sh\" is not the name of a program",
        ),
        ("[defaults]\ninterpreters = ['a', 'a']", "`interpreters`: \"a\" is listed twice"),
        ("[exec]\nname = 'a'", "`exec` is a list of rules"),
        ("exec = [1]", "`exec` must be a table, this is an integer"),
    ];
    for (text, message) in cases {
        assert_eq!(messages(&format!("version = 1\n{text}")), [message]);
    }
    for version in ["2", "'1'", "1.0", "-1", "[1]"] {
        assert_eq!(messages(&format!("version = {version}")), ["`version` must be 1"]);
    }
    assert_eq!(messages(""), ["`version` is missing"]);
}

#[test]
fn wrong_rules() {
    let cases = [
        ("deny = [[]]", "`deny`: an empty pattern"),
        ("deny = [['a**']]", "`deny`: `**` inside a word"),
        ("deny = [['***']]", "`deny`: `**` inside a word"),
        ("deny = [[\"\\u0000\"]]", "`deny`: no argument can hold a NUL: this can never match"),
        ("deny = ['push']", "`deny` is a list of patterns, and a pattern is a list of words"),
        ("deny = [[1]]", "`deny` must be a list of strings"),
        // What is left of a broken pattern shadows nothing.
        ("deny = [['x', 1], ['x']]", "`deny` must be a list of strings"),
        ("deny = 'push'", "`deny` must be an array, this is a string"),
        ("deny = [['x'], ['x']]", "this `deny` pattern can never match"),
        ("allow = [['x', '**'], ['x', 'y']]", "this `allow` pattern can never match"),
        ("deny = [['**']]\nallow = [['x']]", "this `allow` pattern can never match"),
        ("otherwise = 'ask'", "`otherwise` must be \"approve\" or \"allow\" or \"deny\""),
        ("argv0 = ['bin/x']", "`argv0`: \"bin/x\" is not a name"),
        ("argv0 = ['']", "`argv0`: \"\" is not a name"),
        ("timeout = '0s'", "`timeout` must be a duration between \"1s\" and \"24h\""),
        ("[exec.test]\nallow = ['a \"']", "this test is not a command line"),
        ("[exec.test]\nallow = ['']", "this test is not a command line"),
        ("[[exec]]\nname = 'a'\nfile = '/bin/b'", "two rules are called \"a\""),
        ("[[exec]]\nname = 'b'\nfile = '/bin/a'", "this rule can never decide"),
        ("[[exec]]\nname = 'b'", "a rule without `file`"),
        ("[[exec]]\nfile = '/bin/b'", "a rule without `name`"),
        ("[[exec]]\nname = ''\nfile = '/bin/b'", BAD_NAME),
        ("[[exec]]\nname = \"a\\u001b\"\nfile = '/bin/b'", BAD_NAME),
        (
            "[[exec]]\nname = 'builtin:b'\nfile = '/bin/b'",
            "`name`: only ana's own rules are called `builtin:…`",
        ),
        ("[[exec]]\nname = ' b'\nfile = '/bin/b'", BAD_NAME),
        ("[[exec]]\nname = 'b'\nfile = []", "`file` lists nothing: the rule can never decide"),
        ("[[exec]]\nname = 'b'\nfile = ['/b', '/b']", "`file`: \"/b\" is listed twice"),
        ("[[exec]]\nname = 'b'\nfile = 1", "`file` must be an array, this is an integer"),
    ];
    for (lines, message) in cases {
        assert_eq!(messages(&rule(lines)), [message], "{lines}");
    }
    for path in ["b", "./b", "~b", "~", "/a/../b", "/a//b", "/a/./b", "/a/", "/", "~/", "", "~/../b"] {
        let found = messages(&format!("version = 1\n[[exec]]\nname = 'b'\nfile = '{path}'"));
        assert!(matches!(&found[..], [only] if only.starts_with("`file`: the path ")), "{path}: {found:?}");
    }
    let nul = messages("version = 1\n[[exec]]\nname = 'b'\nfile = \"/b\\u0000c\"");
    assert_eq!(nul, ["`file`: the path \"/b\\0c\" holds a NUL"]);
}

pub(super) const BAD_NAME: &str =
    "`name` must be 1 to 64 printable ASCII characters, without spaces around them";

#[test]
fn durations() {
    for good in ["1s", "120s", "5m", "24h", "86400s"] {
        assert_eq!(messages(&rule(&format!("timeout = '{good}'"))), [""; 0], "{good}");
    }
    for bad in
        ["", "s", "120", "1 s", "-1s", "+1s", "1.5s", "1d", "25h", "99999999999999999999s", "9e3s", "1é"]
    {
        assert_eq!(messages(&rule(&format!("timeout = '{bad}'"))).len(), 1, "{bad}");
    }
}

#[test]
fn a_rule_for_other_names_of_the_same_file_is_reachable() {
    let text = rule("[[exec]]\nname = 'b'\nfile = '/bin/a'\nargv0 = ['b']");
    assert_eq!(messages(&text), [""; 0]);
}

#[test]
fn syntax_errors_are_all_shown() {
    assert_eq!(
        errors("version = 1\nversion = 1\n é = 3"),
        "\
error: duplicate key
 --> policy.toml:2:1
  |
2 | version = 1
  | ^^^^^^^

error: invalid unquoted key, expected letters, numbers, `-`, `_`
 --> policy.toml:3:2
  |
3 |  é = 3
  |  ^"
    );
}

#[test]
fn no_source_and_no_home() {
    use crate::policy::Policy;
    let none = Policy::parse(&[], std::path::Path::new("/h")).unwrap_err().to_string();
    assert_eq!(none, "error: there is no policy file\n\nerror: the policy is not loaded: 1 error\n");
    let parse = |file: &str| {
        let text = format!("version = 1\n[[exec]]\nname = 'a'\nfile = '{file}'");
        Policy::parse(&sources(&[&text]), std::path::Path::new(""))
    };
    assert_eq!(
        parse("~/a").unwrap_err().problems()[0].message,
        "`file`: the session's user has no home for \"~/a\""
    );
    assert!(parse("/a").is_ok());
}

#[test]
fn colour_only_when_asked() {
    let errors = try_parse(&["version = 2"]).unwrap_err();
    assert!(errors.render(true).contains("\x1b["));
    assert!(!errors.render(false).contains('\x1b'));
}
