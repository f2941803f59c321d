//! `ana policy explain connect HOST:PORT`: the verdict on a connection without making it, or looking up anything.

use std::{os::unix::ffi::OsStrExt, path::Path};

use schemars::JsonSchema;
use serde::Serialize;

use super::{Output, PolicyCommandError, explain::asks, files, json};
use crate::{
    operation::{Bytes, Verify},
    policy::{Action, By, ConnectVerdict, Policy, Scope, Showing, Target},
};

/// What `--json` prints.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ExplainedConnection")]
pub(in crate::cli) struct Explained {
    action: Action,
    /// Absent when the policy gates no connections.
    rule: Option<String>,
    because: String,
    /// The name or address, and the port.
    destination: String,
    by: By,
    /// The program that connects.
    program: Option<String>,
    /// The listed files that it is.
    listed: Vec<String>,
    timeout_seconds: u64,
    verify: Verify,
    /// "once", "session", or seconds: how far one approval reaches.
    scope: String,
    /// How long a decision is kept when the client hangs up before it.
    grace_seconds: u64,
    /// Where the verdict would be another one.
    otherwise: Vec<Otherwise>,
    notes: Vec<String>,
}

/// The verdict on a connection that shows something else.
#[derive(Serialize, JsonSchema)]
struct Otherwise {
    when: String,
    action: Action,
    rule: String,
    because: String,
}

/// What a name's connection may look like besides the way it should.
const OTHERWISE: [(Showing, &str); 2] = [
    (Showing::Unconfirmed, "if ana's own look-up does not give the address for the name"),
    (Showing::Nothing, "if it shows no name, or one behind which another may be hidden (ECH)"),
];

pub(super) fn explain(
    policy: &Policy,
    target: &Target,
    exe: Option<&Path>,
    as_json: bool,
) -> Result<Output, PolicyCommandError> {
    let listed = match exe {
        Some(path) => {
            let failed = |source| PolicyCommandError::Program { path: path.to_owned(), source };
            files::listed(policy, files::identity(path).map_err(failed)?)
        }
        None => Vec::new(),
    };
    let verdict = policy.judge_target(target, Showing::Own, &listed);
    let mut notes = notes(policy, target);
    if exe.is_some() && listed.is_empty() {
        notes.push("no [[exec]] rule lists the program: rules with `exe` do not speak of it".to_owned());
    }
    let explained = Explained {
        action: verdict.verdict.action,
        rule: policy.network().is_some().then(|| verdict.verdict.rule.clone()),
        because: verdict.verdict.because.clone(),
        destination: target.to_string(),
        by: verdict.by,
        program: exe.map(|path| Bytes::from(path.as_os_str().as_bytes()).escaped()),
        listed: listed.iter().map(|file| file.display().to_string()).collect(),
        timeout_seconds: verdict.verdict.timeout.as_secs(),
        verify: verdict.verdict.verify,
        scope: match verdict.scope {
            Scope::Once => "once".to_owned(),
            Scope::For(time) => time.as_secs().to_string(),
            Scope::Session => "session".to_owned(),
        },
        grace_seconds: verdict.grace.as_secs(),
        otherwise: otherwise(policy, target, &listed, &verdict),
        notes,
    };
    Ok(if as_json { json(&explained) } else { plain(&explained) })
}

/// The other ways that lead to another action or rule.
fn otherwise(policy: &Policy, target: &Target, exe: &[&Path], verdict: &ConnectVerdict) -> Vec<Otherwise> {
    let named = matches!(target, Target::Name(..));
    let ways = OTHERWISE.into_iter().filter(|_| named);
    ways.filter_map(|(showing, when)| {
        let other = policy.judge_target(target, showing, exe).verdict;
        let same = (other.action, &other.rule) == (verdict.verdict.action, &verdict.verdict.rule);
        (!same).then(|| Otherwise {
            when: when.to_owned(),
            action: other.action,
            rule: other.rule,
            because: other.because,
        })
    })
    .collect()
}

/// What the verdict does not take into account.
fn notes(policy: &Policy, target: &Target) -> Vec<String> {
    let mut notes = Vec::new();
    let Some(network) = policy.network() else {
        return notes;
    };
    match target {
        Target::Name(_, port) => {
            if policy.connect_rules().iter().any(|rule| rule.cidrs().next().is_some()) {
                notes.push("rules with `cidr` go by the address: explain that, too".to_owned());
            }
            if network.default == Action::Allow && !network.inspect.contains(port) {
                let ports: Vec<String> = network.inspect.iter().map(u16::to_string).collect();
                let ports = if ports.is_empty() { "none".to_owned() } else { ports.join(", ") };
                notes.push(format!(
                    "names are not looked at on port {port} ([network] inspect: {ports}); addresses of names that \
                     can be looked up are protected all the same"
                ));
            }
        }
        Target::Address(address, _) => {
            if address.is_loopback() {
                notes.push("a listener of the session itself is always reached".to_owned());
            }
            if policy.connect_rules().iter().any(|rule| rule.hosts().next().is_some()) {
                notes.push(
                    "rules with `host` go by the name shown, or the address's: explain that, too".to_owned(),
                );
            }
        }
    }
    notes
}

fn plain(explained: &Explained) -> Output {
    let mut text = format!("verdict  {}\n", explained.action.word());
    if let Some(rule) = &explained.rule {
        text.push_str(&format!("rule     {rule}\n"));
    }
    text.push_str(&format!("because  {}\nconnect  {}\n", explained.because, explained.destination));
    if let Some(program) = &explained.program {
        text.push_str(&format!("program  {program}\n"));
    }
    for listed in &explained.listed {
        text.push_str(&format!("         is {listed}\n"));
    }
    if explained.action == Action::Approve {
        text.push_str(&asks(explained.verify, explained.timeout_seconds));
        let reach = match explained.scope.as_str() {
            "once" => "this connection alone".to_owned(),
            "session" => "every one like it as long as the session lives".to_owned(),
            seconds => format!("every one like it for {seconds} s"),
        };
        text.push_str(&format!("grants   {reach}\n"));
    }
    for other in &explained.otherwise {
        let Otherwise { when, action, rule, because } = other;
        text.push_str(&format!("but      {when}:\n         {}, rule {rule}, {because}\n", action.word()));
    }
    let stderr = explained.notes.iter().map(|note| format!("note: {note}\n")).collect();
    Output { stdout: text, stderr }
}
