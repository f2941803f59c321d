//! From the text of the sources to a [`Policy`], or to everything that is wrong with them.

use std::{collections::HashMap, path::Path};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use toml::de::DeTable;

use super::{
    Action, Defaults, Policy, PolicyErrors, Session, Source,
    error::{Place, Problem, position},
    keys::{Keys, Value},
};
use crate::operation::Verify;

mod connect;
mod exec;
mod network;

pub(super) const VERIFY: [(&str, Verify); 2] = [("presence", Verify::Presence), ("pin", Verify::Pin)];
pub(super) const ACTIONS: [(&str, Action); 3] =
    [("approve", Action::Approve), ("allow", Action::Allow), ("deny", Action::Deny)];
const TOP: [&str; 7] =
    ["version", "allow_software_passkey", "session", "defaults", "exec", "network", "connect"];
const SESSION: [&str; 6] = ["namespaces", "debuggers", "io_uring", "i386", "devices", "max_holds"];
const DEFAULTS: [&str; 5] = ["timeout", "verify", "require", "privilege", "interpreters"];
/// Sections of the policy language whose gates this version does not have.
const LATER: [&str; 3] = ["open", "unix", "syscall"];
/// More waiting questions than that is nobody's session.
const HOLDS_MAX: i64 = 1024;
const NAME_MAX: usize = 64;
/// What the names of ana's own rules start with.
const BUILT_IN: &str = "builtin:";

impl Policy {
    /// Reads the sources as one policy, rules in order, and runs its self-tests. `home` is the session user's, for
    /// `~/`; a relative one means that there is none. Listed files need not exist.
    ///
    /// # Errors
    /// Everything that is wrong with any of the sources; the policy must then not be used.
    pub fn parse(sources: &[Source], home: &Path) -> Result<Self, PolicyErrors> {
        let mut reader =
            Reader { sources, set: HashMap::new(), problems: Vec::new(), draft: Draft::default() };
        if sources.is_empty() {
            reader.problems.push(Problem::nowhere("there is no policy file"));
        }
        for source in 0..sources.len() {
            reader.read(source, home);
        }
        let Reader { draft, mut problems, .. } = reader;
        let names =
            draft.exec.iter().map(|rule| &rule.name).chain(draft.connect.iter().map(|rule| &rule.name));
        problems.extend(same_names(names.flatten().collect()));
        let exec = exec::finish(draft.exec, &draft.defaults, sources, &mut problems);
        let connect = connect::finish(draft.connect, &exec, &draft.defaults, sources, &mut problems);
        let network = draft.network.or((!connect.is_empty()).then(network::Draft::default));
        let mut policy = Self {
            sha256: sha256(sources),
            allow_software_passkey: draft.allow_software_passkey,
            session: draft.session,
            defaults: draft.defaults,
            exec,
            network: network.map(|network| network.finish(&connect)),
            connect,
            tests: 0,
        };
        if problems.is_empty() {
            // Self-tests of half a policy would only repeat its errors.
            problems = policy.self_test();
            let of_exec: usize = policy.exec.iter().map(|rule| rule.tests.len()).sum();
            policy.tests = of_exec + policy.connect.iter().map(|rule| rule.tests.len()).sum::<usize>();
        }
        if problems.is_empty() {
            return Ok(policy);
        }
        problems.sort_by_key(|problem| problem.place.as_ref().map(|place| (place.source, place.span.start)));
        Err(PolicyErrors::new(sources, problems))
    }
}

/// The text of every source behind its length: no two lists of texts hash alike. What the files are called
/// changes nothing that they say.
fn sha256(sources: &[Source]) -> String {
    let mut hash = Sha256::new();
    for source in sources {
        hash.update(u64::try_from(source.text.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(&source.text);
    }
    BASE64_URL_SAFE_NO_PAD.encode(hash.finalize())
}

#[derive(Default)]
struct Draft {
    allow_software_passkey: bool,
    session: Session,
    defaults: Defaults,
    exec: Vec<exec::Draft>,
    /// Absent without a `[network]`.
    network: Option<network::Draft>,
    connect: Vec<connect::Draft>,
}

struct Reader<'a> {
    sources: &'a [Source],
    /// Where every key outside the rules was set: a second time, in whichever source, is an error.
    set: HashMap<String, Place>,
    problems: Vec<Problem>,
    draft: Draft,
}

impl Reader<'_> {
    fn read(&mut self, source: usize, home: &Path) {
        let mut keys = Keys { source, home, problems: Vec::new() };
        let (table, errors) = DeTable::parse_recoverable(&self.sources[source].text);
        if errors.is_empty() {
            self.top(&mut keys, table.get_ref());
        }
        for error in errors {
            let place = keys.place(error.span().unwrap_or(0..0));
            keys.complain(Problem::new(place, error.message().trim_end().replace('\n', "; ")));
        }
        self.problems.append(&mut keys.problems);
    }

    fn top(&mut self, keys: &mut Keys<'_>, table: &DeTable<'_>) {
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "version" => {
                    let understood =
                        value.get_ref().as_integer().is_some_and(|number| number.as_str() == "1");
                    if !understood {
                        let problem = Problem::new(keys.place(value.span()), "`version` must be 1");
                        keys.complain(
                            problem.help("this version of ana reads version 1 of the policy language"),
                        );
                    }
                }
                "allow_software_passkey" => {
                    if let Some(flag) = keys.boolean(value, "allow_software_passkey")
                        && self.once(keys, key.span(), "allow_software_passkey")
                    {
                        self.draft.allow_software_passkey = flag;
                    }
                }
                "session" => self.session(keys, value),
                "defaults" => self.defaults(keys, value),
                "network" => self.network(keys, value),
                kind @ ("exec" | "connect") if value.get_ref().is_table() => {
                    let problem =
                        Problem::new(keys.place(value.span()), format!("`{kind}` is a list of rules"));
                    let help = format!("every rule starts with [[{kind}]], in two pairs of brackets");
                    keys.complain(problem.help(help));
                }
                "exec" => {
                    for rule in keys.array(value, "exec").unwrap_or_default() {
                        let draft = exec::read(keys, rule);
                        self.draft.exec.extend(draft);
                    }
                }
                "connect" => {
                    for rule in keys.array(value, "connect").unwrap_or_default() {
                        let draft = connect::read(keys, rule);
                        self.draft.connect.extend(draft);
                    }
                }
                later if LATER.contains(&later) => {
                    let message =
                        format!("this version of ana does not gate `{later}`: nothing would be protected");
                    let problem = Problem::new(keys.place(key.span()), message);
                    keys.complain(problem.help("remove the section, or use a version that has this gate"));
                }
                _ => keys.unknown(key, "a policy", &TOP),
            }
        }
        if !table.contains_key("version") {
            let problem = Problem::new(keys.place(0..0), "`version` is missing");
            keys.complain(problem.help("every policy file starts with `version = 1`"));
        }
    }

    /// Notes that a key is set here; false (and a complaint) if it was set before.
    fn once(&mut self, keys: &mut Keys<'_>, span: std::ops::Range<usize>, key: &str) -> bool {
        let place = keys.place(span);
        match self.set.get(key) {
            Some(before) => {
                let problem = Problem::new(place, format!("`{key}` is set in another file already"));
                keys.complain(problem.related(before.clone(), "set here"));
                false
            }
            None => self.set.insert(key.to_owned(), place).is_none(),
        }
    }

    fn session(&mut self, keys: &mut Keys<'_>, value: &Value<'_>) {
        for (key, value) in keys.table(value, "session").into_iter().flatten() {
            let name = key.get_ref().as_ref();
            if !SESSION.contains(&name) {
                keys.unknown(key, "[session]", &SESSION);
                continue;
            }
            if !self.once(keys, key.span(), &format!("session.{name}")) {
                continue;
            }
            let session = &mut self.draft.session;
            let flag = match name {
                "namespaces" => &mut session.namespaces,
                "debuggers" => &mut session.debuggers,
                "io_uring" => &mut session.io_uring,
                "i386" => &mut session.i386,
                "devices" => {
                    for (text, place) in keys.strings(value, "devices") {
                        session.devices.extend(keys.path(text, &place, "devices"));
                    }
                    continue;
                }
                _ => {
                    let holds = keys.integer(value, "max_holds", 1, HOLDS_MAX);
                    session.max_holds =
                        holds.and_then(|holds| usize::try_from(holds).ok()).unwrap_or(session.max_holds);
                    continue;
                }
            };
            *flag = keys.boolean(value, name).unwrap_or_default();
        }
    }

    fn defaults(&mut self, keys: &mut Keys<'_>, value: &Value<'_>) {
        for (key, value) in keys.table(value, "defaults").into_iter().flatten() {
            let name = key.get_ref().as_ref();
            if !DEFAULTS.contains(&name) {
                keys.unknown(key, "[defaults]", &DEFAULTS);
                continue;
            }
            if !self.once(keys, key.span(), &format!("defaults.{name}")) {
                continue;
            }
            let defaults = &mut self.draft.defaults;
            match name {
                "timeout" => {
                    defaults.timeout = keys.duration(value, "timeout").unwrap_or(defaults.timeout);
                }
                "verify" => {
                    defaults.verify = keys.word(value, "verify", &VERIFY).unwrap_or(defaults.verify);
                }
                "require" => {
                    defaults.require_seal = keys.word(value, "require", &[("seal", ())]).is_some();
                }
                "privilege" => {
                    let action = keys.word(value, "privilege", &ACTIONS);
                    defaults.privilege = action.unwrap_or(defaults.privilege);
                }
                _ => defaults.interpreters = interpreters(keys, value),
            }
        }
    }
}

/// The name of a rule of any kind.
fn rule_name(keys: &mut Keys<'_>, value: &Value<'_>) -> Option<(String, Place)> {
    let text = keys.string(value, "name")?;
    let place = keys.place(value.span());
    let printable = text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && text.trim() == text;
    if text.is_empty() || text.len() > NAME_MAX || !printable {
        let message = "`name` must be 1 to 64 printable ASCII characters, without spaces around them";
        keys.complain(Problem::new(place.clone(), message));
    } else if text.starts_with(BUILT_IN) {
        let message = format!("`name`: only ana's own rules are called `{BUILT_IN}…`");
        keys.complain(Problem::new(place.clone(), message));
    }
    Some((text.to_owned(), place))
}

/// Rules of all kinds share one set of names.
fn same_names(mut names: Vec<&(String, Place)>) -> Vec<Problem> {
    names.sort_by_key(|(_, place)| (place.source, place.span.start));
    let second = |(at, (name, place)): (usize, &&(String, Place))| {
        let (_, first) = names[..at].iter().find(|(other, _)| other == name)?;
        let problem = Problem::new(place.clone(), format!("two rules are called {name:?}"));
        Some(problem.related(first.clone(), "the first"))
    };
    names.iter().enumerate().filter_map(second).collect()
}

/// "policy.toml:12:9".
fn sited(sources: &[Source], place: &Place) -> String {
    let Some(source) = sources.get(place.source) else { return String::new() };
    let (line, column) = position(source, place.span.start);
    format!("{}:{line}:{column}", source.name)
}

fn interpreters(keys: &mut Keys<'_>, value: &Value<'_>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (name, place) in keys.strings(value, "interpreters") {
        if name.is_empty() || name.contains(['/', '\0']) {
            let message = format!("`interpreters`: {name:?} is not the name of a program");
            keys.complain(Problem::new(place, message).help("a name without a folder: \"python3\""));
        } else if names.iter().any(|other| other == name) {
            keys.complain(Problem::new(place, format!("`interpreters`: {name:?} is listed twice")));
        } else {
            names.push(name.to_owned());
        }
    }
    names
}
