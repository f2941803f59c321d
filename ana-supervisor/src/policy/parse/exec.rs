//! `[[exec]]` rules: reading one, and what only shows when all are known.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use super::{super::Action, ACTIONS, VERIFY, rule_name, sited};
use crate::{
    operation::Verify,
    policy::{
        Defaults, Source,
        error::{Place, Problem},
        keys::{Keys, Value},
        pattern::{BadWord, Pattern},
        rule::{ExecRule, Placed, Test},
    },
};

const KEYS: [&str; 10] =
    ["name", "file", "argv0", "deny", "allow", "otherwise", "verify", "timeout", "exclusive", "test"];
/// Options of the policy language that this version does not have.
const LATER: [&str; 2] = ["for", "exe"];

/// A rule as far as it could be read.
pub(super) struct Draft {
    place: Place,
    pub(super) name: Option<(String, Place)>,
    files: Vec<(PathBuf, Place)>,
    argv0: Vec<String>,
    deny: Vec<(Pattern, Place)>,
    allow: Vec<(Pattern, Place)>,
    otherwise: Option<(Action, Place)>,
    verify: Option<Verify>,
    timeout: Option<Duration>,
    exclusive: bool,
    tests: Vec<Test>,
}

/// Reads one `[[exec]]`.
pub(super) fn read(keys: &mut Keys<'_>, value: &Value<'_>) -> Option<Draft> {
    let table = keys.table(value, "exec")?;
    let mut draft = Draft {
        place: keys.place(value.span()),
        name: None,
        files: Vec::new(),
        argv0: Vec::new(),
        deny: Vec::new(),
        allow: Vec::new(),
        otherwise: None,
        verify: None,
        timeout: None,
        exclusive: false,
        tests: Vec::new(),
    };
    for (key, value) in table {
        match key.get_ref().as_ref() {
            "name" => draft.name = rule_name(keys, value),
            "file" => draft.files = files(keys, value),
            "argv0" => draft.argv0 = argv0(keys, value),
            "deny" => draft.deny = patterns(keys, value, "deny"),
            "allow" => draft.allow = patterns(keys, value, "allow"),
            "otherwise" => {
                let place = keys.place(key.span());
                draft.otherwise = keys.word(value, "otherwise", &ACTIONS).map(|action| (action, place));
            }
            "verify" => draft.verify = keys.word(value, "verify", &VERIFY),
            "timeout" => draft.timeout = keys.duration(value, "timeout"),
            "exclusive" => draft.exclusive = keys.boolean(value, "exclusive").unwrap_or_default(),
            "test" => draft.tests = tests(keys, value),
            later if LATER.contains(&later) => {
                let message = format!("this version of ana does not know `{later}` in [[exec]]");
                let problem = Problem::new(keys.place(key.span()), message);
                keys.complain(problem.help("remove it: the rule would not do what it says"));
            }
            _ => keys.unknown(key, "[[exec]]", &KEYS),
        }
    }
    for required in ["name", "file"] {
        if !table.contains_key(required) {
            let problem = Problem::new(draft.place.clone(), format!("a rule without `{required}`"));
            keys.complain(problem);
        }
    }
    shadowed(keys, &draft);
    Some(draft)
}

fn files(keys: &mut Keys<'_>, value: &Value<'_>) -> Vec<(PathBuf, Place)> {
    let texts = match value.get_ref().as_str() {
        Some(one) => vec![(one, keys.place(value.span()))],
        None => keys.strings(value, "file"),
    };
    if texts.is_empty() && value.get_ref().as_array().is_some_and(|list| list.is_empty()) {
        let problem =
            Problem::new(keys.place(value.span()), "`file` lists nothing: the rule can never decide");
        keys.complain(problem);
    }
    let mut files: Vec<(PathBuf, Place)> = Vec::new();
    for (text, place) in texts {
        let Some(path) = keys.path(text, &place, "file") else { continue };
        match files.iter().find(|(other, _)| *other == path) {
            Some((_, before)) => {
                let problem = Problem::new(place, format!("`file`: {text:?} is listed twice"));
                keys.complain(problem.related(before.clone(), "first here"));
            }
            None => files.push((path, place)),
        }
    }
    files
}

fn argv0(keys: &mut Keys<'_>, value: &Value<'_>) -> Vec<String> {
    let mut names = Vec::new();
    for (name, place) in keys.strings(value, "argv0") {
        if name.is_empty() || name.contains(['/', '\0']) {
            let problem = Problem::new(place, format!("`argv0`: {name:?} is not a name"));
            keys.complain(problem.help("only the part of argv[0] after its last `/` is compared"));
        } else {
            names.push(name.to_owned());
        }
    }
    names
}

fn patterns(keys: &mut Keys<'_>, value: &Value<'_>, key: &str) -> Vec<(Pattern, Place)> {
    let mut patterns = Vec::new();
    for item in keys.array(value, key).unwrap_or_default() {
        let place = keys.place(item.span());
        if item.get_ref().is_str() {
            let message = format!("`{key}` is a list of patterns, and a pattern is a list of words");
            keys.complain(Problem::new(place, message).help("one word an argument: [\"push\", \"**\"]"));
            continue;
        }
        if item.get_ref().as_array().is_some_and(|words| words.is_empty()) {
            let message = format!("`{key}`: an empty pattern");
            keys.complain(Problem::new(place, message).help("[\"**\"] stands for any arguments, or none"));
            continue;
        }
        let before = keys.problems.len();
        let words = keys.strings(item, key);
        if keys.problems.len() > before {
            continue;
        }
        let texts: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        match Pattern::new(&texts) {
            Ok(pattern) => patterns.push((pattern, place)),
            Err((at, reason)) => {
                let place = words.get(at).map_or(place, |(_, place)| place.clone());
                let problem = match reason {
                    BadWord::InnerStars => Problem::new(place, format!("`{key}`: `**` inside a word")).help(
                        "`**` stands for whole arguments and is a word of its own; within one argument write `*`",
                    ),
                    BadWord::Nul => {
                        Problem::new(place, format!("`{key}`: no argument can hold a NUL: this can never match"))
                    }
                };
                keys.complain(problem);
            }
        }
    }
    patterns
}

/// Patterns of a rule that can never decide, because what they match is decided by one that is looked at before.
fn shadowed(keys: &mut Keys<'_>, draft: &Draft) {
    let label = |list: &[(Pattern, Place)], key: &'static str| {
        list.iter().map(|(pattern, place)| (pattern.clone(), place.clone(), key)).collect::<Vec<_>>()
    };
    let order = [label(&draft.deny, "deny"), label(&draft.allow, "allow")].concat();
    for (at, (pattern, place, key)) in order.iter().enumerate() {
        let Some((_, first, by)) = order[..at].iter().find(|(earlier, ..)| earlier.covers(pattern)) else {
            continue;
        };
        let message = format!("this `{key}` pattern can never match");
        let label = format!("this `{by}` pattern comes first and matches all of it");
        keys.complain(Problem::new(place.clone(), message).related(first.clone(), label));
    }
}

fn tests(keys: &mut Keys<'_>, value: &Value<'_>) -> Vec<Test> {
    let mut tests = Vec::new();
    for (key, value) in keys.table(value, "test").into_iter().flatten() {
        let name = key.get_ref().as_ref();
        let Some((_, wanted)) = ACTIONS.iter().find(|(word, _)| *word == name) else {
            keys.unknown(key, "[exec.test]", &["allow", "approve", "deny"]);
            continue;
        };
        for (line, place) in keys.strings(value, name) {
            match shlex::split(line).filter(|words| !words.is_empty()) {
                Some(words) => tests.push(Test {
                    wanted: *wanted,
                    line: line.to_owned(),
                    argv: words.into_iter().map(String::into_bytes).collect(),
                    place,
                }),
                None => {
                    let problem = Problem::new(place, "this test is not a command line");
                    keys.complain(problem.help("write it as you would type it; quotes must be closed"));
                }
            }
        }
    }
    tests
}

/// Turns the drafts into rules, and complains about what only shows between them.
pub(super) fn finish(
    drafts: Vec<Draft>,
    defaults: &Defaults,
    sources: &[Source],
    problems: &mut Vec<Problem>,
) -> Vec<ExecRule> {
    for (at, draft) in drafts.iter().enumerate() {
        let earlier = &drafts[..at];
        problems.extend(unreachable(draft, earlier));
    }
    let at = |place: &Place| sited(sources, place);
    let placed = |(pattern, place): (Pattern, Place)| Placed { at: at(&place), pattern };
    drafts
        .into_iter()
        .map(|draft| {
            let (otherwise, otherwise_place) = draft.otherwise.unwrap_or((Action::Approve, draft.place));
            ExecRule {
                name: draft.name.map(|(name, _)| name).unwrap_or_default(),
                files: draft.files.into_iter().map(|(path, _)| path).collect(),
                argv0: draft.argv0,
                deny: draft.deny.into_iter().map(placed).collect(),
                allow: draft.allow.into_iter().map(placed).collect(),
                otherwise,
                otherwise_at: at(&otherwise_place),
                timeout: draft.timeout.unwrap_or(defaults.timeout),
                verify: draft.verify.unwrap_or(defaults.verify),
                exclusive: draft.exclusive,
                tests: draft.tests,
            }
        })
        .collect()
}

/// A rule is never reached if one earlier rule lists all its files and goes by all its further names.
fn unreachable(draft: &Draft, earlier: &[Draft]) -> Option<Problem> {
    let files = |rule: &Draft| rule.files.iter().map(|(path, _)| path.clone()).collect::<BTreeSet<_>>();
    let names = |rule: &Draft| rule.argv0.iter().cloned().collect::<BTreeSet<_>>();
    let mine = files(draft);
    let first = earlier.iter().find(|other| {
        !mine.is_empty() && mine.is_subset(&files(other)) && names(draft).is_subset(&names(other))
    })?;
    let problem = Problem::new(draft.place.clone(), "this rule can never decide");
    Some(problem.related(first.place.clone(), "this rule comes first and lists all its files"))
}
