//! What `ana doctor` checks beside the kernel: the installation, the policy, the passkeys, the remains of dead sessions.

mod machine;

use std::path::{Path, PathBuf};

use crate::{
    approval::passkeys::{Kind, Passkeys},
    kernel::features::{Check, Status},
    launch::cgroup::Hierarchy,
    pipeline::chain,
    policy::{Network, Policy, Source},
    state::State,
    supervisor,
};

/// All of them, in the order in which people fix them.
pub fn extra(state: Option<&Path>) -> Vec<Check> {
    let paths = State::paths(state);
    let (policy, parsed) = policy(&paths.policy);
    let mut checks = vec![
        machine::programs(),
        machine::tier(parsed.as_ref()),
        machine::installed(),
        machine::sudo(),
        machine::journal(),
        machine::state(state),
        policy,
        passkeys(&paths.passkeys, parsed.as_ref()),
        machine::security_keys(),
    ];
    if let Some(policy) = &parsed {
        checks.extend([listed_files(policy), path(policy)]);
        checks.extend(policy.network().map(names));
    }
    checks.push(leftovers());
    checks
}

fn check(name: &'static str, status: Status, found: String, way_out: &str) -> Check {
    Check { name: name.to_owned(), status, found, way_out: (!way_out.is_empty()).then(|| way_out.to_owned()) }
}

fn policy(path: &Path) -> (Check, Option<Policy>) {
    const NAME: &str = "policy";
    let sources = match sources(path) {
        Ok(sources) => sources,
        Err((path, error)) => {
            let found = format!("{}: {error}", path.display());
            return (
                check(
                    NAME,
                    Status::Missing,
                    found,
                    "write one: ana policy init prints what fits this machine",
                ),
                None,
            );
        }
    };
    match Policy::parse(&sources, &super::policy::home().unwrap_or_default()) {
        Ok(policy) => {
            let found = format!(
                "{}: {} rules, {} tests",
                path.display(),
                policy.exec_rules().len(),
                policy.test_count()
            );
            (check(NAME, Status::Ok, found, ""), Some(policy))
        }
        Err(errors) => {
            let found = format!("{}: {} errors", path.display(), errors.problems().len());
            let way_out = format!("ana policy check {}", path.display());
            (check(NAME, Status::Missing, found, &way_out), None)
        }
    }
}

/// Whether the names that a session looks up are seen.
fn names(network: &Network) -> Check {
    const NAME: &str = "names";
    let switch = std::fs::read_to_string("/etc/nsswitch.conf").unwrap_or_default();
    let hosts = switch.lines().find_map(|line| line.trim().strip_prefix("hosts:")).unwrap_or_default();
    if hosts.split_whitespace().any(|source| source == "resolve") {
        let found =
            "/etc/nsswitch.conf looks hosts up with nss-resolve, over a socket that is not seen".to_owned();
        return check(
            NAME,
            Status::Degraded,
            found,
            "remove `resolve` from its `hosts:` line: DNS does the same",
        );
    }
    match network.encrypted_dns {
        true => {
            let found =
                "[network] encrypted_dns = \"allow\": what is looked up that way is not seen".to_owned();
            check(
                NAME,
                Status::Degraded,
                found,
                "without it, connections to DNS over TLS and HTTPS are refused",
            )
        }
        false => {
            check(NAME, Status::Ok, "the session's DNS is seen; encrypted DNS is refused".to_owned(), "")
        }
    }
}

/// As the supervisor reads them, without its checks of who owns what (it makes them at every start).
fn sources(path: &Path) -> Result<Vec<Source>, (PathBuf, std::io::Error)> {
    let read = |path: &Path| match std::fs::read_to_string(path) {
        Ok(text) => Ok(Source { name: path.display().to_string(), text }),
        Err(error) => Err((path.to_owned(), error)),
    };
    let mut all = vec![read(path)?];
    let folder = path.with_file_name("policy.d");
    let mut more: Vec<_> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .collect();
    more.sort();
    for path in more {
        all.push(read(&path)?);
    }
    Ok(all)
}

/// Listed files that are not there. A shipped policy lists more than any machine has; a rule without any file is
/// worth a word.
fn listed_files(policy: &Policy) -> Check {
    const NAME: &str = "listed-files";
    let listed = policy.exec_files().count();
    let there = policy.exec_files().filter(|file| file.exists()).count();
    let empty: Vec<&str> = policy
        .exec_rules()
        .iter()
        .filter(|rule| !rule.files().any(Path::exists))
        .map(|rule| rule.name())
        .collect();
    let found = format!("{there} of {listed} are there");
    if there == 0 {
        return check(NAME, Status::Degraded, format!("{found}: nothing is protected"), "ana policy init");
    }
    match empty.as_slice() {
        [] => check(NAME, Status::Ok, found, ""),
        rules => {
            let found = format!("{found}; no file of: {}", rules.join(", "));
            check(NAME, Status::Degraded, found, "correct the paths, or remove the rules: ana policy init")
        }
    }
}

/// Names of listed files that PATH finds elsewhere.
fn path(policy: &Policy) -> Check {
    const NAME: &str = "path";
    let elsewhere = super::policy::path_warnings(policy, &std::env::var_os("PATH").unwrap_or_default());
    let found: Vec<String> = elsewhere.iter().map(ToString::to_string).collect();
    match found.as_slice() {
        [] => check(NAME, Status::Ok, "every listed name that PATH finds is a listed file".to_owned(), ""),
        found => {
            let way_out = "list them, too: an agent that starts them by name runs them unasked";
            check(NAME, Status::Degraded, found.join("; "), way_out)
        }
    }
}

fn passkeys(path: &Path, policy: Option<&Policy>) -> Check {
    const NAME: &str = "passkeys";
    const ENROLL: &str = "plug in a security key, and: sudo ana passkey enroll --name NAME";
    let passkeys = match Passkeys::load_from(path) {
        Ok(list) => list.map(|list| list.passkeys).unwrap_or_default(),
        Err(error) => return check(NAME, Status::Missing, chain(&error), "repair or remove the file"),
    };
    let software = passkeys.iter().filter(|passkey| passkey.kind == Kind::Software).count();
    let found = match (passkeys.len(), software) {
        (0, _) => return check(NAME, Status::Missing, "none: nothing can be approved".to_owned(), ENROLL),
        (n, 0) => format!("{n} enrolled"),
        (n, s) => format!("{n} enrolled, {s} of them software"),
    };
    let usable = policy.is_none_or(|policy| policy.allow_software_passkey() || software < passkeys.len());
    match (usable, software) {
        (false, _) => check(
            NAME,
            Status::Missing,
            found,
            "set allow_software_passkey = true in the policy, or enroll a security key",
        ),
        (true, 0) => check(NAME, Status::Ok, found, ""),
        (true, _) => check(
            NAME,
            Status::Degraded,
            found,
            "a software passkey is for trying ana out: enroll a security key",
        ),
    }
}

fn leftovers() -> Check {
    const NAME: &str = "dead-sessions";
    if !nix::unistd::geteuid().is_root() {
        return check(NAME, Status::Ok, "not looked for (that takes root)".to_owned(), "");
    }
    let remains = Hierarchy::find().map(|hierarchy| supervisor::remains(&hierarchy)).unwrap_or_default();
    match remains.len() {
        0 => check(NAME, Status::Ok, "none".to_owned(), ""),
        n => check(
            NAME,
            Status::Degraded,
            format!("{n} left something behind"),
            "the next ana-run kills and removes it",
        ),
    }
}
