//! The shipped example policy for git: a push asks exactly once, a commit never.

use std::{fs, path::Path};

use ana_tests::{Ground, answers::Answer, machine::which};

/// A ground with the shipped example, for the git that the session's PATH finds.
fn ground() -> Ground {
    let ground = Ground::new("git-policy");
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ana-supervisor/policies/git.toml");
    let text = fs::read_to_string(&example).unwrap_or_else(|e| panic!("{}: {e}", example.display()));
    let text = for_this_machine(&text);
    // The example decides about software passkeys itself; a test needs them.
    let text = match text.lines().find(|line| line.trim_start().starts_with("allow_software_passkey")) {
        Some(line) => text.replacen(line, "allow_software_passkey = true", 1),
        None => text.replacen("version = 1", "version = 1\nallow_software_passkey = true", 1),
    };
    ground.policy(&text);
    let prepared = ground.run_without_ana(&[
        "bash",
        "-euc",
        "git config --global user.email a@b; git config --global user.name a
         git config --global init.defaultBranch main; git init -q --bare remote.git; git init -q work
         cd work; git remote add origin ../remote.git; echo one > file; git add file; git commit -qm one",
    ]);
    prepared.assert_code(0);
    ground
}

/// The example names Debian's git; a machine may have another one in front of it.
fn for_this_machine(text: &str) -> String {
    let git = which("git").expect("git is installed");
    let core = std::process::Command::new(&git).arg("--exec-path").output().expect("git runs").stdout;
    let core = String::from_utf8(core).expect("UTF-8").trim().to_owned();
    text.replace("/usr/bin/git", &git.display().to_string()).replace("/usr/lib/git-core", &core)
}

#[test]
fn a_push_asks_once() {
    let ground = ground();
    let (finished, questions) = ground.run_answered(&["git", "-C", "work", "status"], Answer::Deny);
    println!("{}", finished.stderr());
    drop(questions);
    let command = ["bash", "-c", "cd work && git push origin main"];
    let (finished, questions) = ground.run_answered(&command, Answer::Approve);
    finished.assert_code(0);
    assert_eq!(questions.len(), 1, "{questions:#?}");
    assert_eq!(questions[0].args(), ["push", "origin", "main"]);
    let there =
        ground.run_without_ana(&["git", "-C", "remote.git", "log", "--oneline", "main"]).assert_code(0);
    assert!(there.stdout().contains("one"));
    ground.verify();
}

#[test]
fn a_denied_push_pushes_nothing() {
    let ground = ground();
    let command = ["bash", "-c", "cd work && git push origin main"];
    let (finished, questions) = ground.run_answered(&command, Answer::Deny);
    assert_eq!(questions.len(), 1, "{questions:#?}");
    assert_eq!(finished.code(), 137);
    assert!(
        finished.stderr().contains("ana: denied: git push origin main (rule \""),
        "{}",
        finished.stderr()
    );
    let there = ground.run_without_ana(&["git", "-C", "remote.git", "log", "--oneline", "main"]);
    assert_ne!(there.code(), 0, "{}", there.stdout());
    ground.verify();
}

#[test]
fn everyday_git_asks_nothing() {
    let ground = ground();
    let script = "cd work; git status -s; git diff; git log --oneline; echo two >> file; git add file
         git commit -qm two; git commit -q --allow-empty -m three; git diff HEAD~1; git log -p -1";
    let (finished, questions) = ground.run_answered(&["bash", "-euc", script], Answer::Deny);
    finished.assert_code(0);
    assert!(questions.is_empty(), "{questions:#?}");
    ground.verify();
}
