//! Protected programs whose arguments the policy allows: let through without a hold.

use std::path::Path;

use ana_tests::Ground;

use crate::{Compared, ROUNDS, SPAWNS, Worker};

/// The same program unprotected and bare, protected and in a session; and `git status`.
pub(crate) fn measure(ground: &Ground, probe: &Path, allowed: &Path) -> (Compared, Compared) {
    repository(ground);
    let command = [probe.to_str().expect("text"), "probe", "serve"];
    let mut workers = [Worker::bare(ground, &command), Worker::in_session(ground, &command)];
    let mut results = [(Vec::new(), Vec::new()), (Vec::new(), Vec::new())];
    for round in 0..=ROUNDS {
        for (worker, (program, status)) in workers.iter_mut().zip(&mut results) {
            let ran = worker.numbers(&format!("spawn {SPAWNS} {}", allowed.display()));
            let told = worker.numbers(&format!("run {} /usr/bin/git status", SPAWNS / 5));
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

/// The home is a repository with some files in it.
fn repository(ground: &Ground) {
    let script = "git init -q . && for i in $(seq 200); do echo $i > file-$i; done && git add file-*";
    let done = ground.without_ana(&["sh", "-c", script]).status().expect("git runs");
    assert!(done.success());
}
