//! The shipped example for coding agents' programs.

use std::path::{Path, PathBuf};

use super::{super::Action, parse, try_parse};
use crate::policy::{AGENTS_EXAMPLE, GIT_EXAMPLE, Policy, agents_names, agents_starter, starter};

/// The examples as they are installed: policy.toml and policy.d/agents.toml.
fn both() -> Policy {
    try_parse(&[GIT_EXAMPLE, AGENTS_EXAMPLE]).unwrap_or_else(|errors| panic!("{errors}"))
}

fn action(policy: &Policy, program: &str, arguments: &[&str]) -> Action {
    let listed: Vec<&Path> = policy.exec_files().filter(|file| file.ends_with(program)).take(1).collect();
    assert!(!listed.is_empty(), "{program} is not listed");
    let argv: Vec<Vec<u8>> = [program].iter().chain(arguments).map(|word| word.as_bytes().to_vec()).collect();
    policy.judge_exec(&listed, &argv).action
}

#[test]
fn the_examples_are_one_policy() {
    let policy = both();
    let names: Vec<&str> = policy.exec_rules().iter().map(|rule| rule.name()).skip(3).collect();
    let expected = ["gh", "npm", "cargo", "kubectl", "terraform", "aws", "gcloud", "docker", "sudo", "ssh"];
    assert_eq!(names, expected);
    assert_eq!(agents_names().into_iter().collect::<Vec<_>>(), {
        let mut sorted = expected;
        sorted.sort_unstable();
        sorted
    });
    assert!(policy.test_count() > 140, "{}", policy.test_count());
}

/// Every option that a program knows anywhere, in front of an allowed command and behind it: the one is asked, and
/// the other only where the rule leaves the arguments open.
#[test]
fn no_option_in_front_of_a_command_is_allowed() {
    let policy = both();
    for (program, command) in [
        ("gh", &["pr", "list"][..]),
        ("npm", &["install"]),
        ("cargo", &["build"]),
        ("kubectl", &["get", "pods"]),
        ("terraform", &["fmt"]),
        ("gcloud", &["config", "list"]),
        ("docker", &["ps"]),
    ] {
        assert_eq!(action(&policy, program, command), Action::Allow, "{program}");
        for option in
            ["-C", "-R", "-H", "-c", "--config", "--server", "--kubeconfig", "-chdir=x", "--x=y", "--"]
        {
            let words: Vec<&str> = [option].into_iter().chain(command.iter().copied()).collect();
            assert_eq!(action(&policy, program, &words), Action::Approve, "{program} {words:?}");
        }
    }
}

#[test]
fn where_an_option_could_redirect_nothing_may_follow() {
    let policy = both();
    for (program, command) in [
        ("kubectl", &["get", "pods"][..]),
        ("kubectl", &["version"]),
        ("kubectl", &["logs", "pod/x"]),
        ("aws", &["--version"]),
        ("gcloud", &["config", "list"]),
        ("gh", &["auth", "status"]),
        ("sudo", &["-k"]),
        ("ssh", &["-V"]),
    ] {
        assert_eq!(action(&policy, program, command), Action::Allow, "{program}");
        for option in ["--server=http://host/", "--raw", "--show-token", "--access-token-file=x", "id", "-o"]
        {
            let words: Vec<&str> = command.iter().copied().chain([option]).collect();
            assert_eq!(action(&policy, program, &words), Action::Approve, "{program} {words:?}");
        }
    }
}

/// Names that the checkout's .cargo/config.toml can give to `publish`.
#[test]
fn what_a_cargo_alias_can_be_is_asked() {
    let policy = both();
    for name in ["b", "c", "d", "r", "t", "rm", "clippy", "fmt", "info", "remove", "report", "x"] {
        assert_eq!(action(&policy, "cargo", &[name]), Action::Approve, "{name}");
    }
}

#[test]
fn the_starter_lists_what_is_there() {
    let files = ["/opt/node/bin/npm", "/opt/x/kubectl", "relative/gh", "/bin/ls"].map(PathBuf::from);
    let text = starter(&[PathBuf::from("/opt/bin/git")], false) + &agents_starter(&files);
    let policy = parse(&text);
    let listed: Vec<&Path> = policy.exec_files().collect();
    assert_eq!(listed, ["/opt/bin/git", "/opt/node/bin/npm", "/opt/x/kubectl"].map(Path::new));
    let names: Vec<&str> = policy.exec_rules().iter().map(|rule| rule.name()).collect();
    assert_eq!(names, ["git", "npm", "kubectl"]);
    assert!(text.contains("# Spelled out: `--server`"), "{text}");
}
