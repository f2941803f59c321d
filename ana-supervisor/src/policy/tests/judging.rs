use std::{path::Path, time::Duration};

use proptest::prelude::*;

use super::{super::Action, parse, try_parse};
use crate::{
    operation::Verify,
    policy::{
        Policy,
        pattern::tests::{arguments, naive, words},
    },
};

/// The rule of the design page.
const GIT: &str = r#"
version = 1
[[exec]]
name  = "git"
file  = ["/usr/bin/git", "/usr/lib/git-core/git"]
deny  = [["push", "**", "--force", "**"]]
allow = [["status", "**"], ["commit", "**"]]
otherwise = "approve"
[exec.test]
allow   = ["git status -s", "/usr/bin/git status"]
approve = ["git push origin main", "git -C . push", "git"]
deny    = ["git push --force", "git-push status"]
"#;

fn judge(policy: &Policy, listed: &[&str], argv: &[&str]) -> (Action, String) {
    let listed: Vec<&Path> = listed.iter().map(Path::new).collect();
    let argv: Vec<Vec<u8>> = argv.iter().map(|word| word.as_bytes().to_vec()).collect();
    let verdict = policy.judge_exec(&listed, &argv);
    (verdict.action, verdict.rule)
}

fn non_empty(patterns: Vec<Vec<String>>) -> Vec<Vec<String>> {
    patterns.into_iter().filter(|words| !words.is_empty()).collect()
}

fn action(policy: &Policy, listed: &[&str], argv: &[&str]) -> Action {
    judge(policy, listed, argv).0
}

#[test]
fn deny_then_allow_then_otherwise() {
    let policy = parse(GIT);
    let git = ["/usr/bin/git"];
    assert_eq!(judge(&policy, &git, &["git", "status"]), (Action::Allow, "git".into()));
    assert_eq!(action(&policy, &git, &["/anywhere/git", "commit", "-m", "x"]), Action::Allow);
    assert_eq!(action(&policy, &git, &["git", "push", "origin"]), Action::Approve);
    assert_eq!(action(&policy, &git, &["git", "push", "a", "--force"]), Action::Deny);
    assert_eq!(action(&policy, &git, &["git"]), Action::Approve);
    assert_eq!(policy.test_count(), 7);
}

#[test]
fn because_names_the_line() {
    let policy = parse(GIT);
    let because = |argv: &[&[u8]]| {
        let argv: Vec<Vec<u8>> = argv.iter().map(|word| word.to_vec()).collect();
        policy.judge_exec(&[Path::new("/usr/bin/git")], &argv).because
    };
    assert_eq!(because(&[b"git", b"status"]), r#"policy.toml:7:10: allow ["status", "**"]"#);
    assert_eq!(because(&[b"git", b"gc"]), r#"policy.toml:8:1: otherwise = "approve""#);
    assert_eq!(
        because(&[b"a\x1b", b"status"]),
        r#"policy.toml:6:10: deny ["push", "**", "--force", "**"]: argv[0] "a\x1b" is not its own name"#
    );
}

#[test]
fn a_foreign_name_is_never_allowed_and_never_evades_a_deny() {
    let policy = parse(GIT);
    for name in ["git-push", "ls", "", "git/", "/usr/bin/git/", "gitx", "GIT"] {
        assert_eq!(action(&policy, &["/usr/bin/git"], &[name, "status"]), Action::Deny, "{name:?}");
    }
    assert_eq!(action(&policy, &["/usr/bin/git"], &[]), Action::Deny);

    let without_deny = parse("version = 1\n[[exec]]\nname = 'a'\nfile = '/bin/a'\notherwise = 'allow'");
    assert_eq!(action(&without_deny, &["/bin/a"], &["a", "x"]), Action::Allow);
    assert_eq!(action(&without_deny, &["/bin/a"], &["b", "x"]), Action::Approve);
    assert_eq!(action(&without_deny, &["/bin/a"], &[]), Action::Approve);
}

#[test]
fn argv0_adds_names() {
    let policy = parse(
        "version = 1\n[[exec]]\nname = 'a'\nfile = '/bin/a'\nargv0 = ['b']\nallow = [['x']]\ndeny = [['y']]",
    );
    assert_eq!(action(&policy, &["/bin/a"], &["/x/b", "x"]), Action::Allow);
    assert_eq!(action(&policy, &["/bin/a"], &["b", "z"]), Action::Approve);
    assert_eq!(action(&policy, &["/bin/a"], &["c", "z"]), Action::Deny);
}

/// One inode under several names (git's hard links): the name picks the rule, and no name is borrowed.
#[test]
fn several_rules_for_one_inode() {
    let policy = parse(
        "version = 1
[[exec]]
name = 'serve'
file = '/x/git-receive-pack'
allow = [['*']]
[[exec]]
name = 'git'
file = '/x/git'
deny = [['push', '--force']]
allow = [['status']]",
    );
    let both = ["/x/git", "/x/git-receive-pack"];
    assert_eq!(judge(&policy, &both, &["git-receive-pack", "dir"]), (Action::Allow, "serve".into()));
    assert_eq!(judge(&policy, &both, &["git", "status"]), (Action::Allow, "git".into()));
    assert_eq!(judge(&policy, &both, &["git", "dir"]), (Action::Approve, "git".into()));
    assert_eq!(judge(&policy, &both, &["git-push", "status"]), (Action::Deny, "git".into()));
    assert_eq!(judge(&policy, &both[..1], &["git-receive-pack", "status"]), (Action::Deny, "git".into()));
    assert_eq!(judge(&policy, &both[1..], &["git", "status"]), (Action::Approve, "serve".into()));
}

#[test]
fn the_first_rule_wins() {
    let policy = parse(
        "version = 1
[[exec]]
name = 'one'
file = '/bin/a'
otherwise = 'deny'
[[exec]]
name = 'two'
file = ['/bin/a', '/bin/b']
otherwise = 'allow'",
    );
    assert_eq!(judge(&policy, &["/bin/a"], &["a"]), (Action::Deny, "one".into()));
    assert_eq!(judge(&policy, &["/bin/b"], &["b"]), (Action::Allow, "two".into()));
    assert_eq!(policy.exec_files().count(), 2);
}

#[test]
fn what_no_rule_lists_is_denied_here() {
    let policy = parse(GIT);
    assert_eq!(judge(&policy, &["/bin/ls"], &["ls"]), (Action::Deny, String::new()));
    assert_eq!(judge(&policy, &[], &["git", "status"]), (Action::Deny, String::new()));
    assert_eq!(policy.denies_always(&[Path::new("/bin/ls")]).unwrap().action, Action::Deny);
}

#[test]
fn denials_that_need_no_argv() {
    let policy = parse(
        "version = 1
[[exec]]
name = 'never'
file = '/bin/a'
otherwise = 'deny'
[[exec]]
name = 'mostly'
file = '/bin/b'
allow = [['x']]
otherwise = 'deny'
[[exec]]
name = 'ask'
file = '/bin/c'",
    );
    let verdict = policy.denies_always(&[Path::new("/bin/a")]).unwrap();
    assert_eq!((verdict.action, verdict.rule.as_str(), verdict.needs_argv), (Action::Deny, "never", false));
    assert_eq!(verdict.because, r#"policy.toml:5:1: otherwise = "deny""#);
    assert!(policy.denies_always(&[Path::new("/bin/b")]).is_none());
    assert!(policy.denies_always(&[Path::new("/bin/c")]).is_none());
    assert!(policy.denies_always(&[Path::new("/bin/a"), Path::new("/bin/b")]).is_none());
    let needs = |file: &str| policy.judge_exec(&[Path::new(file)], &[]).needs_argv;
    assert_eq!([needs("/bin/a"), needs("/bin/b"), needs("/bin/c")], [false, true, false]);
}

#[test]
fn only_a_rule_that_allows_something_may_allow() {
    let policy = parse(
        "version = 1
[[exec]]
name = 'some'
file = '/bin/some'
allow = [['x']]
otherwise = 'deny'
[[exec]]
name = 'rest'
file = '/bin/rest'
deny = [['x']]
otherwise = 'allow'
[[exec]]
name = 'ask'
file = '/bin/ask'
[[exec]]
name = 'never'
file = '/bin/never'
otherwise = 'deny'",
    );
    let may = |files: &[&str]| policy.may_allow(&files.iter().map(Path::new).collect::<Vec<_>>());
    let each = ["/bin/some", "/bin/rest", "/bin/ask", "/bin/never", "/bin/unlisted"].map(|file| may(&[file]));
    assert_eq!(each, [true, true, false, false, false]);
    assert!(may(&["/bin/never", "/bin/some"]) && !may(&["/bin/never", "/bin/ask"]));
}

#[test]
fn a_name_has_an_end() {
    let named = |len: usize| {
        try_parse(&[&format!("version = 1\n[[exec]]\nname = '{}'\nfile = '/a'", "n".repeat(len))])
    };
    assert!(named(64).is_ok());
    assert!(named(65).unwrap_err().to_string().contains("1 to 64 printable"));
}

#[test]
fn scripts_are_judged_by_what_follows_them() {
    let policy = parse(
        "version = 1
[[exec]]
name = 'deploy'
file = '~/deploy.sh'
allow = [['--dry-run', '**']]
deny = [['prod']]
[[exec]]
name = 'other'
file = '/srv/other.sh'
allow = [['**']]",
    );
    let script = [Path::new("/home/alice/deploy.sh")];
    let judge = |words: &[&str]| {
        let words: Vec<Vec<u8>> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        policy.judge_script(&script, Some(&words)).action
    };
    assert_eq!(judge(&["--dry-run", "x"]), Action::Allow);
    assert_eq!(judge(&["prod"]), Action::Deny);
    assert_eq!(judge(&[]), Action::Approve);
    assert_eq!(policy.judge_script(&script, None).action, Action::Deny);
    let opened = policy.judge_script(&[Path::new("/srv/other.sh")], None);
    assert_eq!((opened.action, opened.rule.as_str()), (Action::Approve, "other"));
    assert_eq!(policy.judge_script(&[], None).action, Action::Deny);
}

#[test]
fn every_setting_arrives() {
    let policy = parse(
        "version = 1
allow_software_passkey = true
[session]
namespaces = true
debuggers = true
io_uring = true
i386 = true
devices = ['/dev/kvm', '/dev/fuse']
max_holds = 3
[defaults]
timeout = '2m'
verify = 'pin'
require = 'seal'
privilege = 'deny'
interpreters = ['lua']
[[exec]]
name = 'a'
file = ['~/bin/a', '/bin/a']
[[exec]]
name = 'b'
file = '/bin/b'
timeout = '5s'
verify = 'presence'",
    );
    assert!(policy.allow_software_passkey());
    let session = policy.session();
    assert!(session.namespaces && session.debuggers && session.io_uring && session.i386);
    assert_eq!(session.devices, [Path::new("/dev/kvm"), Path::new("/dev/fuse")]);
    assert_eq!(session.max_holds, 3);
    assert!(policy.defaults().require_seal);
    assert_eq!(policy.judge_privilege().action, Action::Deny);
    assert_eq!(policy.interpreters(), ["lua"]);
    let files: Vec<&Path> = policy.exec_files().collect();
    assert_eq!(files, [Path::new("/home/alice/bin/a"), Path::new("/bin/a"), Path::new("/bin/b")]);
    let a = policy.judge_exec(&[Path::new("/bin/a")], &[]);
    assert_eq!((a.timeout, a.verify), (Duration::from_secs(120), Verify::Pin));
    let b = policy.judge_exec(&[Path::new("/bin/b")], &[]);
    assert_eq!((b.timeout, b.verify), (Duration::from_secs(5), Verify::Presence));
}

#[test]
fn defaults() {
    let policy = parse("version = 1");
    assert!(!policy.allow_software_passkey());
    assert_eq!(policy.session(), &crate::policy::Session::default());
    assert_eq!(policy.session().max_holds, 64);
    assert_eq!(policy.defaults().timeout, Duration::from_secs(120));
    assert_eq!(policy.interpreters().len(), 10);
    assert_eq!(policy.exec_files().count(), 0);
}

#[test]
fn several_sources_are_one_policy() {
    let drop_in = "version = 1\n[[exec]]\nname = 'a'\nfile = '/bin/a'";
    let policy = try_parse(&["version = 1\n[defaults]\ntimeout = '7s'", drop_in]).unwrap();
    let verdict = policy.judge_exec(&[Path::new("/bin/a")], &[b"a".to_vec()]);
    assert_eq!(verdict.timeout, Duration::from_secs(7));
    assert_eq!(verdict.because, "policy.d/1.toml:2:1: otherwise = \"approve\"");
}

#[test]
fn the_hash_covers_texts_and_order() {
    let hash = |texts: &[&str]| try_parse(texts).unwrap().sha256().to_owned();
    let (a, b) = ("version = 1 # a\n", "version = 1 # b\n");
    let all = [
        hash(&[a]),
        hash(&[b]),
        hash(&[a, b]),
        hash(&[b, a]),
        hash(&[a, b, a]),
        hash(&["version = 1 # aversion = 1 # b\n"]),
    ];
    assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), all.len());
    assert_eq!(all[0].len(), 43);
    assert_eq!(hash(&[a]), hash(&[a]));
}

proptest! {
    /// Whatever stands in argv[0], a program never gets more under a foreign name than under its own.
    #[test]
    fn a_foreign_name_never_helps(name in "[a-z/]{0,6}", words in prop::collection::vec("(push|--force|status|x)", 0..4)) {
        let policy = parse(GIT);
        prop_assume!(name.rsplit('/').next() != Some("git"));
        let argv: Vec<&str> = std::iter::once(name.as_str()).chain(words.iter().map(String::as_str)).collect();
        prop_assert_eq!(action(&policy, &["/usr/bin/git"], &argv), Action::Deny);
    }

    /// The whole rule against its definition: deny, then allow, then otherwise, each pattern by the naive model.
    #[test]
    fn as_the_definition_says(
        deny in prop::collection::vec(words(), 0..3), allow in prop::collection::vec(words(), 0..3),
        otherwise in "(allow|deny|approve)", own in any::<bool>(), rest in arguments(),
    ) {
        let (deny, allow) = (non_empty(deny), non_empty(allow));
        let text = format!(
            "version = 1\n[[exec]]\nname = 'r'\nfile = '/bin/r'\ndeny = {deny:?}\nallow = {allow:?}\notherwise = '{otherwise}'"
        );
        let policy = match try_parse(&[&text]) {
            Ok(policy) => policy,
            Err(errors) => {
                // The only thing that can be wrong with it, and then it must be so.
                prop_assert!(errors.problems().iter().all(|p| p.message.ends_with("pattern can never match")));
                return Ok(());
            }
        };
        let bytes: Vec<&[u8]> = rest.iter().map(String::as_bytes).collect();
        let matched = |list: &[Vec<String>]| {
            list.iter().any(|words| naive(&words.iter().map(String::as_str).collect::<Vec<_>>(), &bytes))
        };
        let expected = match (own, otherwise.as_str()) {
            (true, _) if matched(&deny) => Action::Deny,
            (true, _) if matched(&allow) => Action::Allow,
            (true, "allow") => Action::Allow,
            (_, "deny") => Action::Deny,
            (false, _) if !deny.is_empty() => Action::Deny,
            _ => Action::Approve,
        };
        let name = if own { "/x/r" } else { "s" };
        let argv: Vec<&str> = std::iter::once(name).chain(rest.iter().map(String::as_str)).collect();
        prop_assert_eq!(action(&policy, &["/bin/r"], &argv), expected);
    }

    /// No text makes the parser panic.
    #[test]
    fn any_text_parses_or_complains(text in "(version = 1\n)?(\\[\\[exec\\]\\]|\\[session\\]|name|file|=|'a'|\"/b\"|\\[|\\]|\n|\r\n|\t|#|,|é|\u{1b}|\u{4e2d}|\\PC| ){0,40}") {
        if let Err(errors) = try_parse(&[&text]) {
            prop_assert!(!errors.problems().is_empty());
            prop_assert!(errors.to_string().contains("error"));
        }
    }
}

#[test]
fn an_exclusive_rule_is_so_in_every_verdict() {
    let policy = parse(
        "version = 1\n[[exec]]\nname = 'alone'\nfile = '/srv/alone'\nexclusive = true\nallow = [['status']]\n\
         [[exec]]\nname = 'other'\nfile = '/srv/other'\n",
    );
    let words = |name: &str| vec![name.as_bytes().to_vec(), b"status".to_vec()];
    let (alone, other) = ([Path::new("/srv/alone")], [Path::new("/srv/other")]);
    assert!(policy.judge_exec(&alone, &words("alone")).exclusive);
    assert!(policy.judge_exec(&alone, &words("another")).exclusive);
    assert!(policy.judge_script(&alone, Some(&[])).exclusive);
    assert!(!policy.judge_exec(&other, &words("other")).exclusive);
    // An interpreter that opens it may be anything, the agent included.
    let opened = policy.judge_script(&alone, None);
    assert_eq!(opened.action, Action::Deny);
    assert!(opened.because.starts_with("exclusive = true: "), "{}", opened.because);
    assert_eq!(policy.judge_script(&other, None).action, Action::Approve);
}
