//! `[[connect]]` rules: reading one, and what only shows when all are known.

use std::{path::PathBuf, time::Duration};

use super::{ACTIONS, VERIFY, network::ports, rule_name, sited};
use crate::{
    operation::Verify,
    policy::{
        Action, Cidr, ConnectRule, Defaults, ExecRule, HostPattern, Scope, Source,
        cidr::BadCidr,
        connect::{ConnectTest, GRACE, Sited},
        error::{Place, Problem},
        host::BadHost,
        keys::{Keys, Value},
    },
};

const KEYS: [&str; 12] = [
    "name", "host", "cidr", "port", "exe", "address", "verdict", "for", "grace", "timeout", "verify", "test",
];

/// A rule as far as it could be read.
pub(super) struct Draft {
    place: Place,
    pub(super) name: Option<(String, Place)>,
    hosts: Vec<(HostPattern, Place)>,
    cidrs: Vec<(Cidr, Place)>,
    ports: Vec<u16>,
    exe: Vec<(PathBuf, Place)>,
    address: Option<Place>,
    action: Action,
    scope: Option<(Scope, Place)>,
    grace: Option<(Duration, Place)>,
    timeout: Option<Duration>,
    verify: Option<Verify>,
    tests: Vec<ConnectTest>,
}

/// Reads one `[[connect]]`.
pub(super) fn read(keys: &mut Keys<'_>, value: &Value<'_>) -> Option<Draft> {
    let table = keys.table(value, "connect")?;
    let mut draft = Draft {
        place: keys.place(value.span()),
        name: None,
        hosts: Vec::new(),
        cidrs: Vec::new(),
        ports: Vec::new(),
        exe: Vec::new(),
        address: None,
        action: Action::Approve,
        scope: None,
        grace: None,
        timeout: None,
        verify: None,
        tests: Vec::new(),
    };
    for (key, value) in table {
        let place = keys.place(key.span());
        match key.get_ref().as_ref() {
            "name" => draft.name = rule_name(keys, value),
            "host" => draft.hosts = hosts(keys, value),
            "cidr" => draft.cidrs = cidrs(keys, value),
            "port" => {
                not_empty(keys, value, "port");
                draft.ports = ports(keys, value, "port");
            }
            "exe" => draft.exe = exe(keys, value),
            "address" => draft.address = keys.boolean(value, "address").filter(|on| *on).map(|_| place),
            "verdict" => draft.action = keys.word(value, "verdict", &ACTIONS).unwrap_or(Action::Approve),
            "for" => draft.scope = scope(keys, value).map(|scope| (scope, place)),
            "grace" => draft.grace = keys.duration(value, "grace").map(|grace| (grace, place)),
            "timeout" => draft.timeout = keys.duration(value, "timeout"),
            "verify" => draft.verify = keys.word(value, "verify", &VERIFY),
            "test" => draft.tests = tests(keys, value),
            _ => keys.unknown(key, "[[connect]]", &KEYS),
        }
    }
    let has = |key: &str| table.contains_key(key);
    if !has("name") {
        keys.complain(Problem::new(draft.place.clone(), "a rule without `name`"));
    }
    if !has("host") && !has("cidr") {
        let problem = Problem::new(draft.place.clone(), "a rule without `host` or `cidr`");
        keys.complain(problem.help("every address is `cidr = [\"0.0.0.0/0\", \"::/0\"]`"));
    }
    useless(keys, &draft, has("host"));
    Some(draft)
}

/// Keys that change nothing in this rule.
fn useless(keys: &mut Keys<'_>, draft: &Draft, has_host: bool) {
    if let Some(place) = draft.address.as_ref().filter(|_| !has_host) {
        let problem = Problem::new(place.clone(), "`address` in a rule without `host`");
        keys.complain(problem.help("it makes the addresses of the rule's names count; this rule has none"));
    }
    let scope = draft.scope.as_ref().map(|(_, place)| ("for", place));
    let grace = draft.grace.as_ref().map(|(_, place)| ("grace", place));
    for (key, place) in [scope, grace].into_iter().flatten().filter(|_| draft.action != Action::Approve) {
        let problem = Problem::new(place.clone(), format!("`{key}` in a rule that asks nobody"));
        keys.complain(problem.help("it says how long an approval holds: `verdict = \"approve\"`"));
    }
}

/// One string or a list of them.
fn one_or_more<'v>(keys: &mut Keys<'_>, value: &'v Value<'_>, key: &str) -> Vec<(&'v str, Place)> {
    not_empty(keys, value, key);
    match value.get_ref().as_str() {
        Some(one) => vec![(one, keys.place(value.span()))],
        None => keys.strings(value, key),
    }
}

fn not_empty(keys: &mut Keys<'_>, value: &Value<'_>, key: &str) {
    if value.get_ref().as_array().is_some_and(|list| list.is_empty()) {
        let message = format!("`{key}` lists nothing: the rule can never decide by it");
        keys.complain(Problem::new(keys.place(value.span()), message));
    }
}

fn hosts(keys: &mut Keys<'_>, value: &Value<'_>) -> Vec<(HostPattern, Place)> {
    let mut hosts: Vec<(HostPattern, Place)> = Vec::new();
    for (text, place) in one_or_more(keys, value, "host") {
        match HostPattern::new(text) {
            Ok(pattern) => {
                covered(keys, &hosts, &pattern, &place, "host", HostPattern::covers);
                hosts.push((pattern, place));
            }
            Err(reason) => {
                let (message, help) = bad_host(reason);
                keys.complain(Problem::new(place, format!("`host`: {message}")).help(help));
            }
        }
    }
    hosts
}

fn bad_host(reason: BadHost) -> (&'static str, &'static str) {
    match reason {
        BadHost::NotAscii => (
            "DNS carries names in ASCII only",
            "write the name as it is looked up: \"xn--bcher-kva.example\"",
        ),
        BadHost::Address => ("this is an address, not a name", "addresses are listed in `cidr`"),
        BadHost::InnerStar => (
            "a star stands for whole labels",
            "`*` stands for one label, `**` for one or more: \"*.example.com\", \"**.example.com\"",
        ),
        BadHost::NotAName => (
            "a name only, without scheme, port or path",
            "ports are listed in `port`: `host = \"api.example.com\"`",
        ),
        BadHost::Never => (
            "no name can look like this: it can never match",
            "labels of 1 to 63 letters, digits, `-` or `_`, with a dot between them; 253 characters at most",
        ),
    }
}

fn cidrs(keys: &mut Keys<'_>, value: &Value<'_>) -> Vec<(Cidr, Place)> {
    let mut cidrs: Vec<(Cidr, Place)> = Vec::new();
    for (text, place) in one_or_more(keys, value, "cidr") {
        let (message, help) = match Cidr::new(text) {
            Ok(range) => {
                covered(keys, &cidrs, &range, &place, "cidr", |mine, other| mine.covers(other));
                cidrs.push((range, place));
                continue;
            }
            Err(BadCidr::NotAnAddress) => (
                format!("{text:?} is not a range of addresses"),
                "\"192.0.2.0/24\", \"2001:db8::/32\", or an address alone; names are listed in `host`"
                    .to_owned(),
            ),
            Err(BadCidr::Prefix(longest)) => (
                format!("{text:?} has a prefix that is no number from 0 to {longest}"),
                "it says how many bits of the address count".to_owned(),
            ),
            Err(BadCidr::HostBits(range)) => {
                (format!("{text:?} has bits set behind its prefix"), format!("the range is \"{range}\""))
            }
            Err(BadCidr::Unspecified) => (
                format!("nothing can connect to {text:?}: it can never match"),
                "the kernel takes it for loopback: \"127.0.0.0/8\" and \"::1\"".to_owned(),
            ),
        };
        keys.complain(Problem::new(place, format!("`cidr`: {message}")).help(help));
    }
    cidrs
}

/// Complains about a value that an earlier one of the same list makes needless.
fn covered<T>(
    keys: &mut Keys<'_>,
    before: &[(T, Place)],
    value: &T,
    place: &Place,
    key: &str,
    covers: impl Fn(&T, &T) -> bool,
) {
    if let Some((_, first)) = before.iter().find(|(earlier, _)| covers(earlier, value)) {
        let problem = Problem::new(place.clone(), format!("`{key}`: this can never decide"));
        keys.complain(problem.related(first.clone(), "this comes first and matches all of it"));
    }
}

fn exe(keys: &mut Keys<'_>, value: &Value<'_>) -> Vec<(PathBuf, Place)> {
    let mut files: Vec<(PathBuf, Place)> = Vec::new();
    for (text, place) in one_or_more(keys, value, "exe") {
        let Some(path) = keys.path(text, &place, "exe") else { continue };
        match files.iter().find(|(other, _)| *other == path) {
            Some((_, before)) => {
                let problem = Problem::new(place, format!("`exe`: {text:?} is listed twice"));
                keys.complain(problem.related(before.clone(), "first here"));
            }
            None => files.push((path, place)),
        }
    }
    files
}

fn scope(keys: &mut Keys<'_>, value: &Value<'_>) -> Option<Scope> {
    match value.get_ref().as_str() {
        Some("once") => Some(Scope::Once),
        Some("session") => Some(Scope::Session),
        Some(text) if !text.ends_with(['s', 'm', 'h']) => {
            let problem =
                Problem::new(keys.place(value.span()), "`for` must be \"once\", \"session\" or a duration");
            keys.complain(problem.help("a number and its unit: \"90s\", \"10m\" or \"2h\""));
            None
        }
        Some(_) | None => keys.duration(value, "for").map(Scope::For),
    }
}

fn tests(keys: &mut Keys<'_>, value: &Value<'_>) -> Vec<ConnectTest> {
    let mut tests = Vec::new();
    for (key, value) in keys.table(value, "test").into_iter().flatten() {
        let name = key.get_ref().as_ref();
        let Some((_, wanted)) = ACTIONS.iter().find(|(word, _)| *word == name) else {
            keys.unknown(key, "[connect.test]", &["allow", "approve", "deny"]);
            continue;
        };
        for (line, place) in keys.strings(value, name) {
            match line.parse() {
                Ok(target) => {
                    tests.push(ConnectTest { wanted: *wanted, line: line.to_owned(), target, place });
                }
                Err(error) => {
                    let problem = Problem::new(place, format!("this test is not a destination: {error}"));
                    keys.complain(problem);
                }
            }
        }
    }
    tests
}

/// Turns the drafts into rules, and complains about what only shows between them.
pub(super) fn finish(
    drafts: Vec<Draft>,
    exec: &[ExecRule],
    defaults: &Defaults,
    sources: &[Source],
    problems: &mut Vec<Problem>,
) -> Vec<ConnectRule> {
    for (at, draft) in drafts.iter().enumerate() {
        problems.extend(unlisted(draft, exec));
        problems.extend(unreachable(draft, &drafts[..at]));
    }
    fn all_sited<T>(values: Vec<(T, Place)>, sources: &[Source]) -> Vec<Sited<T>> {
        values.into_iter().map(|(value, place)| Sited { value, at: sited(sources, &place) }).collect()
    }
    let rule = |draft: Draft| ConnectRule {
        name: draft.name.map(|(name, _)| name).unwrap_or_default(),
        hosts: all_sited(draft.hosts, sources),
        cidrs: all_sited(draft.cidrs, sources),
        ports: draft.ports,
        exe: draft.exe.into_iter().map(|(path, _)| path).collect(),
        address: draft.address.is_some(),
        action: draft.action,
        scope: draft.scope.map_or(Scope::Once, |(scope, _)| scope),
        grace: draft.grace.map_or(GRACE, |(grace, _)| grace),
        timeout: draft.timeout.unwrap_or(defaults.timeout),
        verify: draft.verify.unwrap_or(defaults.verify),
        tests: draft.tests,
    };
    drafts.into_iter().map(rule).collect()
}

/// Which program connects is only known of those that were judged when they started.
fn unlisted(draft: &Draft, exec: &[ExecRule]) -> Vec<Problem> {
    let listed = |path: &PathBuf| exec.iter().any(|rule| rule.files().any(|file| file == path));
    let unlisted = draft.exe.iter().filter(|(path, _)| !listed(path));
    unlisted
        .map(|(path, place)| {
            let message = format!("`exe`: no [[exec]] rule lists {}", path.display());
            let help = "only a program that a rule judges is known by more than its name; list it with \
                        `otherwise = \"allow\"` if it may run";
            Problem::new(place.clone(), message).help(help)
        })
        .collect()
}

/// A rule is never reached if one earlier rule matches whatever it matches.
fn unreachable(draft: &Draft, earlier: &[Draft]) -> Option<Problem> {
    let first = earlier.iter().find(|other| other.covers(draft))?;
    let problem = Problem::new(draft.place.clone(), "this rule can never decide");
    Some(problem.related(first.place.clone(), "this rule comes first and matches all of its connections"))
}

impl Draft {
    fn covers(&self, other: &Self) -> bool {
        let ports = self.ports.is_empty()
            || (!other.ports.is_empty() && other.ports.iter().all(|port| self.ports.contains(port)));
        let exe = |path: &PathBuf| self.exe.iter().any(|(mine, _)| mine == path);
        let exes =
            self.exe.is_empty() || (!other.exe.is_empty() && other.exe.iter().all(|(path, _)| exe(path)));
        let everywhere = Cidr::everywhere(self.cidrs.iter().map(|(range, _)| *range));
        // One that allows wants more proof of a name: what it skips reaches a rule that is stricter, and one whose
        // names count by address sees connections that show another name.
        let as_wide = (self.action != Action::Allow || other.action == Action::Allow)
            && (self.address.is_some() || other.address.is_none());
        let host =
            |(pattern, _): &(HostPattern, Place)| self.hosts.iter().any(|(mine, _)| mine.covers(pattern));
        let range = |(range, _): &(Cidr, Place)| self.cidrs.iter().any(|(mine, _)| mine.covers(range));
        let hosts = other.hosts.is_empty() || (as_wide && other.hosts.iter().all(host));
        let something = !other.hosts.is_empty() || !other.cidrs.is_empty();
        something && ports && exes && (everywhere || (hosts && other.cidrs.iter().all(range)))
    }
}
