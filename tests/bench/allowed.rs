//! Protected programs whose arguments the policy allows: let through without a hold.

use std::path::{Path, PathBuf};

use ana_tests::{
    Ground,
    bench::{Compared, Worker},
};

use crate::{ROUNDS, SPAWNS};

/// The same program, bare and in a session, where it is protected; and `git status`. What runs bare is a copy that nobody
/// protects: the session's answers to what happens outside are measured by themselves.
pub(crate) fn measure(ground: &Ground, probe: &Path, allowed: &Path) -> (Compared, Compared) {
    repository(ground);
    let command = [probe.to_str().expect("text"), "probe", "serve"];
    let [bare_git, its_git] = ["bare", PROTECTED].map(|folder| git_copied(ground, folder));
    let programs = [(probe, bare_git), (allowed, its_git)];
    let mut workers = [Worker::bare(ground, &command), Worker::in_session(ground, &command)];
    let mut results = [(Vec::new(), Vec::new()), (Vec::new(), Vec::new())];
    for round in 0..=ROUNDS {
        let turns = workers.iter_mut().zip(&programs).zip(&mut results);
        for ((worker, (path, git)), (program, status)) in turns {
            let ran = worker.numbers(&format!("spawn {SPAWNS} {}", path.display()));
            let told = worker.numbers(&format!("run {} {} status", SPAWNS / 5, git.display()));
            // The first round warms up, and tells what the files' content is.
            if round > 0 {
                program.extend(ran);
                status.extend(told);
            }
        }
    }
    workers.into_iter().for_each(Worker::end);
    let [(bare, bare_status), (program, status)] = results;
    ((bare, program), (bare_status, status))
}

/// The folder whose git is protected.
pub(crate) const PROTECTED: &str = "protected";

pub(crate) fn git(ground: &Ground, folder: &str) -> PathBuf {
    ground.root().join("bin").join(folder).join("git")
}

/// A copy of git: a file that was just written runs some percent faster than one that was installed long ago.
fn git_copied(ground: &Ground, folder: &str) -> PathBuf {
    let path = git(ground, folder);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("below the ground");
    std::fs::copy("/usr/bin/git", &path).expect("git is installed");
    path
}

/// The home is a repository with some files in it.
fn repository(ground: &Ground) {
    let script = "git init -q . && for i in $(seq 200); do echo $i > file-$i; done && git add file-*";
    let done = ground.without_ana(&["sh", "-c", script]).status().expect("git runs");
    assert!(done.success());
}
