//! The shipped example, against what git really executes.

use std::path::{Path, PathBuf};

use super::{super::Action, parse};
use crate::policy::{GIT_EXAMPLE, Policy, STARTER_NAMES, starter};

const TRACES: &str = include_str!("git_traces.txt");

/// The folders of the other git's programs; all its links of git are one inode.
const LOCAL: [&str; 2] = ["/usr/local/bin", "/usr/local/libexec/git-core"];

fn local() -> Policy {
    let files: Vec<PathBuf> =
        LOCAL.iter().flat_map(|folder| STARTER_NAMES.map(|name| Path::new(folder).join(name))).collect();
    parse(&starter(&files, false))
}

/// What stands for the inode behind a path: links of git are git, those of the http helper are that.
fn inode(path: &Path) -> String {
    let folder = path.parent().unwrap().to_str().unwrap();
    let program = match path.file_name().unwrap().to_str().unwrap() {
        "git" | "git-receive-pack" | "git-upload-pack" => "git",
        name if name.starts_with("git-remote-") => "git-remote-http",
        name => name,
    };
    let folder = if folder.starts_with("/usr/local") { "/usr/local" } else { folder };
    // Debian's /usr/bin/git-receive-pack is a link to /usr/bin/git, git-core/git another file.
    format!("{folder}/{program}")
}

fn action(policy: &Policy, program: &str, argv: &[String]) -> Action {
    let program = inode(Path::new(program));
    let listed: Vec<&Path> = policy.exec_files().filter(|file| inode(file) == program).collect();
    assert!(!listed.is_empty(), "{program} is not listed");
    let argv: Vec<Vec<u8>> = argv.iter().map(|word| word.clone().into_bytes()).collect();
    policy.judge_exec(&listed, &argv).action
}

#[test]
fn a_push_asks_once_and_everything_else_never() {
    let policies = [("local ", local()), ("debian ", parse(GIT_EXAMPLE))];
    let mut header = String::new();
    let mut asked: Vec<(String, Vec<String>)> = Vec::new();
    let mut executions = 0;
    for line in TRACES.lines().filter(|line| !line.starts_with('#')) {
        let Some(execution) = line.strip_prefix("  ") else {
            header = line.to_owned();
            asked.push((header.clone(), Vec::new()));
            continue;
        };
        let words: Vec<String> = serde_json::from_str(execution).unwrap();
        let policy = &policies.iter().find(|(tag, _)| header.starts_with(tag)).unwrap().1;
        executions += 1;
        match action(policy, &words[0], &words[1..]) {
            Action::Allow => {}
            Action::Approve => asked.last_mut().unwrap().1.push(execution.to_owned()),
            Action::Deny => panic!("{header}: denied {execution}"),
        }
    }
    assert!(executions > 400, "{executions}");
    for (header, questions) in asked {
        let push = header.contains(": git push");
        let expected = match (header.contains(" http-"), push) {
            (true, true) => 2,
            (true, false) | (false, true) => 1,
            (false, false) => 0,
        };
        assert_eq!(questions.len(), expected, "{header}: {questions:#?}");
        assert!(!push || questions[0].contains(r#""push""#), "{questions:?}");
    }
}

#[test]
fn the_example_is_a_policy_and_says_what_it_lists() {
    let policy = parse(GIT_EXAMPLE);
    let names: Vec<&str> = policy.exec_rules().iter().map(|rule| rule.name()).collect();
    assert_eq!(names, ["git", "git-serve", "git-network"]);
    assert!(policy.test_count() > 15);
    assert!(!policy.allow_software_passkey());
}

#[test]
fn the_starter_lists_what_is_there() {
    let files = ["/opt/g it/git", "/opt/\"x/git", "/opt/bin/git-remote-https", "/bin/ls", "relative/git"]
        .map(PathBuf::from);
    let text = starter(&files, true);
    let policy = parse(&text);
    assert!(policy.allow_software_passkey());
    let listed: Vec<&Path> = policy.exec_files().collect();
    assert_eq!(listed, files[..3].iter().map(PathBuf::as_path).collect::<Vec<_>>());
    assert!(text.contains("# git-remote-http is the transport"), "{text}");
    assert!(!text.contains("Debian's paths"), "{text}");
}

#[test]
fn the_starter_with_the_examples_files_is_the_examples_policy() {
    let example = parse(GIT_EXAMPLE);
    let files: Vec<PathBuf> = example.exec_files().map(Path::to_path_buf).collect();
    let text = starter(&files, false);
    assert_eq!(text.lines().count(), GIT_EXAMPLE.lines().count());
    assert_eq!(parse(&text).exec_files().collect::<Vec<_>>(), example.exec_files().collect::<Vec<_>>());
}

#[test]
fn without_git_nothing_is_listed() {
    assert_eq!(parse(&starter(&[], false)).exec_files().count(), 0);
}

#[test]
fn argv0_games_with_one_inode_are_asked() {
    let policy = local();
    for argv in [
        &["git-push", "status"][..],
        &["git-receive-pack", "a", "b"],
        &["git-send-pack", "."],
        &["/x/git-push", "add"],
        &["", "status"],
        &["git", "push"],
        &["git-upload-pack"],
        &["git-remote-https", "origin", "https://host/"],
    ] {
        let argv: Vec<String> = argv.iter().map(|word| (*word).to_owned()).collect();
        assert_eq!(action(&policy, "/usr/local/bin/git", &argv), Action::Approve, "{argv:?}");
    }
}
