//! Policies of several rules against a model that only knows the manual: no code of the judge's, no clever matching.

use std::path::Path;

use proptest::prelude::*;

use super::try_parse;
use crate::policy::Action;

const FILES: [&str; 4] = ["/bin/a", "/bin/b", "/opt/a", "/opt/c"];

#[derive(Clone, Debug)]
struct Rule {
    files: Vec<usize>,
    argv0: Vec<&'static str>,
    deny: Vec<Vec<&'static str>>,
    allow: Vec<Vec<&'static str>>,
    otherwise: &'static str,
}

fn patterns() -> impl Strategy<Value = Vec<Vec<&'static str>>> {
    let word = prop::sample::select(vec!["**", "*", "x", "y", "x*", "*y", "x*y", "--f*=*", "é"]);
    prop::collection::vec(prop::collection::vec(word, 1..4), 0..3)
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let files = prop::sample::subsequence((0..FILES.len()).collect::<Vec<_>>(), 1..3);
    let argv0 = prop::sample::subsequence(vec!["b", "c", "d"], 0..2);
    let otherwise = prop::sample::select(vec!["allow", "deny", "approve"]);
    let rule = (files, argv0, patterns(), patterns(), otherwise);
    let rule =
        rule.prop_map(|(files, argv0, deny, allow, otherwise)| Rule { files, argv0, deny, allow, otherwise });
    prop::collection::vec(rule, 1..4)
}

/// Arguments near the patterns' words, and bytes that are no text.
fn argv() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let name = prop::sample::select(vec!["a", "/x/b", "c", "./d", "e", "a/", ""]).prop_map(|n| n.into());
    let argument = prop_oneof![
        prop::sample::select(vec!["x", "y", "xy", "x--y", "--f=1", "--force", "é", "", "*", "**"])
            .prop_map(|word| word.as_bytes().to_vec()),
        prop::collection::vec(prop::sample::select(vec![b'x', b'y', 0xff, 0xc3, 0xa9, b'\n']), 0..4),
    ];
    (name, prop::collection::vec(argument, 0..4))
        .prop_map(|(name, rest): (Vec<u8>, _)| std::iter::once(name).chain(rest).collect())
}

fn text(rules: &[Rule]) -> String {
    let mut text = "version = 1\n".to_owned();
    for (number, rule) in rules.iter().enumerate() {
        let files: Vec<&str> = rule.files.iter().map(|&at| FILES[at]).collect();
        let Rule { argv0, deny, allow, otherwise, .. } = rule;
        text += &format!(
            "[[exec]]\nname = 'r{number}'\nfile = {files:?}\nargv0 = {argv0:?}\ndeny = {deny:?}\nallow = {allow:?}\n\
             otherwise = '{otherwise}'\n"
        );
    }
    text
}

/// `**` is any number of arguments, every other word is one.
fn matches(pattern: &[&str], arguments: &[Vec<u8>]) -> bool {
    match (pattern, arguments) {
        ([], rest) => rest.is_empty(),
        (["**", after @ ..], rest) => (0..=rest.len()).any(|skip| matches(after, &rest[skip..])),
        ([_, ..], []) => false,
        ([word, after @ ..], [first, rest @ ..]) => fits(word.as_bytes(), first) && matches(after, rest),
    }
}

/// `*` is any bytes.
fn fits(word: &[u8], argument: &[u8]) -> bool {
    match (word, argument) {
        ([], rest) => rest.is_empty(),
        ([b'*', after @ ..], rest) => (0..=rest.len()).any(|skip| fits(after, &rest[skip..])),
        ([_, ..], []) => false,
        ([byte, after @ ..], [first, rest @ ..]) => byte == first && fits(after, rest),
    }
}

fn action(word: &str) -> Action {
    match word {
        "allow" => Action::Allow,
        "deny" => Action::Deny,
        _ => Action::Approve,
    }
}

/// The action, and the number of the rule.
fn model(rules: &[Rule], listed: &[usize], argv: &[Vec<u8>]) -> (Action, usize) {
    let listing =
        || rules.iter().enumerate().filter(|(_, r)| r.files.iter().any(|file| listed.contains(file)));
    let name = argv[0].split(|&byte| byte == b'/').next_back().unwrap();
    let called = |rule: &Rule| {
        let mut own = rule.files.iter().filter(|file| listed.contains(file)).map(|&at| &FILES[at][5..]);
        own.any(|own| own.as_bytes() == name) || rule.argv0.iter().any(|other| other.as_bytes() == name)
    };
    if let Some((number, rule)) = listing().find(|(_, rule)| called(rule)) {
        let any = |list: &[Vec<&str>]| list.iter().any(|pattern| matches(pattern, &argv[1..]));
        let action = match () {
            () if any(&rule.deny) => Action::Deny,
            () if any(&rule.allow) => Action::Allow,
            () => action(rule.otherwise),
        };
        return (action, number);
    }
    let denies = |rule: &Rule| rule.otherwise == "deny" || !rule.deny.is_empty();
    match listing().find(|(_, rule)| denies(rule)) {
        Some((number, _)) => (Action::Deny, number),
        None => (Action::Approve, listing().next().unwrap().0),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn as_the_manual_says(rules in rules(), argv in argv(), chosen in any::<prop::sample::Index>(), more in any::<u8>()) {
        let policy = match try_parse(&[&text(&rules)]) {
            Ok(policy) => policy,
            Err(errors) => {
                // Generated blindly: a pattern or a whole rule may be one that never decides.
                let never = |message: &str| message.ends_with("can never match") || message.ends_with("can never decide");
                prop_assert!(errors.problems().iter().all(|problem| never(&problem.message)), "{errors}");
                return Ok(());
            }
        };
        // One inode under one listed name, or under several.
        let all: Vec<usize> = rules.iter().flat_map(|rule| rule.files.clone()).collect();
        let first = all[chosen.index(all.len())];
        let listed: Vec<usize> =
            (0..FILES.len()).filter(|&at| at == first || (all.contains(&at) && more & 1 << at != 0)).collect();
        let paths: Vec<&Path> = listed.iter().map(|&at| Path::new(FILES[at])).collect();
        let verdict = policy.judge_exec(&paths, &argv);
        let (action, number) = model(&rules, &listed, &argv);
        prop_assert_eq!((verdict.action, verdict.rule), (action, format!("r{}", number)));
        if let Some(always) = policy.denies_always(&paths) {
            prop_assert_eq!((always.action, action), (Action::Deny, Action::Deny));
        }
        // A script that was opened by an interpreter gets nothing.
        prop_assert_ne!(policy.judge_script(&paths, None).action, Action::Allow);
        let script = policy.judge_script(&paths, Some(&argv[1..]));
        let (number, rule) =
            rules.iter().enumerate().find(|(_, r)| r.files.iter().any(|file| listed.contains(file))).unwrap();
        let any = |list: &[Vec<&str>]| list.iter().any(|pattern| matches(pattern, &argv[1..]));
        let expected = match () {
            () if any(&rule.deny) => Action::Deny,
            () if any(&rule.allow) => Action::Allow,
            () => self::action(rule.otherwise),
        };
        prop_assert_eq!((script.action, script.rule), (expected, format!("r{}", number)));
        if !verdict.needs_argv {
            prop_assert_eq!(policy.judge_exec(&paths, &[]).action, action);
        }
        prop_assert_eq!(verdict.needs_argv, script.needs_argv);
    }
}
