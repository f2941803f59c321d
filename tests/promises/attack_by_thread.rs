//! What an exec was allowed is the exec's own: another thread that is inside the kernel meanwhile gets nothing of it, and
//! neither does the program that comes after it.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use ana_tests::{
    Ground,
    attempt::attempts,
    machine::{machine, path_str},
    records::{Record, bytes_of},
    session::Finished,
};

/// How long each race is run.
const SECONDS: u32 = 20;

fn attack(ground: &Ground, kind: &str, protected: &Path, target: &Path) -> Vec<OsString> {
    let folder = ground.home().join("chain");
    let arguments: [OsString; 5] =
        [kind.into(), protected.into(), target.into(), folder.into(), SECONDS.to_string().into()];
    ground.attack("threads", &arguments)
}

/// `status` is allowed, all else denied: a race needs no person.
fn judged(ground: &Ground, file: &Path) {
    let rule = "allow = [[\"status\"]]\notherwise = \"deny\"";
    let rule = format!("[[exec]]\nname = \"raced\"\nfile = [{:?}]\n{rule}\n", path_str(file));
    ground.policy(&(ground.head() + &rule));
}

fn race(ground: &Ground, command: &[OsString]) -> Finished {
    let limit = Duration::from_secs(u64::from(SECONDS) + 60);
    let finished = ground.start(command).finish_within(limit).assert_code(0);
    println!("{}", finished.stdout());
    assert!(finished.stdout().contains(" won 0"), "{}", finished.stdout());
    assert!(!finished.stdout().contains("rounds 0 "), "nothing was raced: {}", finished.stdout());
    finished
}

/// Whether the attempt was granted in any of the rounds.
fn ever_ok(finished: &Finished, name: &str) -> bool {
    finished.stdout().lines().any(|line| line == format!("attempt {name}: ok"))
}

#[test]
fn a_thread_that_opens_without_ana() {
    let ground = Ground::bare("thread-open");
    let finished =
        ground.run_without_ana(&attack(&ground, "open-alone", &ground.deploy(), &ground.deploy()));
    assert!(ever_ok(&finished, "descriptor") && ever_ok(&finished, "run-copy"), "{}", finished.stdout());
    assert_eq!(ground.markers().len(), 1);
}

/// The exec of one thread is owed an open of the program; the open of another thread is not that one.
#[test]
fn a_thread_that_opens() {
    let ground = Ground::new("thread-open");
    judged(&ground, &ground.deploy());
    let finished = race(&ground, &attack(&ground, "open", &ground.deploy(), &ground.deploy()));
    assert!(!ever_ok(&finished, "descriptor"), "the protected file was opened:\n{}", finished.stdout());
    assert!(!ground.home().join("chain/copy").exists(), "a copy was made");
    let odd: Vec<_> = ground
        .markers()
        .into_iter()
        .filter(|marker| marker.args() != ["status"] || marker.exe != ground.deploy())
        .collect();
    assert!(odd.is_empty(), "{odd:#?}");
    assert!(!ground.decisions().is_empty(), "the gate was never reached");
    ground.assert_every_run_was_decided();
    ground.verify();
}

/// A script of root's that leaves a mark through `benign`.
fn script(ground: &Ground) -> PathBuf {
    ground.write(
        "bin/deploy.sh",
        0o755,
        &format!("#!/bin/sh\n{} script-ran \"$@\"\n", ground.benign().display()),
    )
}

#[test]
fn a_thread_that_executes_without_ana() {
    let ground = Ground::bare("thread-exec");
    let reader = machine().program("attack-reader");
    let finished = ground.run_without_ana(&attack(&ground, "exec-alone", &script(&ground), &reader));
    let finished = finished.assert_code(42);
    assert!(ever_ok(&finished, "read-as-another"), "{}", finished.stdout());
}

/// The script's decision is about the script, its interpreter and its arguments, whatever else the process executes.
#[test]
fn a_thread_that_executes() {
    let ground = Ground::new("thread-exec");
    let script = script(&ground);
    judged(&ground, &script);
    let reader = machine().program("attack-reader");
    let finished = race(&ground, &attack(&ground, "exec", &script, &reader));
    assert!(!ever_ok(&finished, "read-as-another"), "the script was read:\n{}", finished.stdout());
    let shell = std::fs::canonicalize("/bin/sh").expect("there is a shell");
    let about_it = |record: &&Record| record.payload["operation"]["exec"]["script"].is_object();
    let decisions = ground.decisions();
    for record in decisions.iter().filter(about_it).filter(|record| record.approves()) {
        let exec = &record.payload["operation"]["exec"];
        let program = String::from_utf8(bytes_of(&exec["program"]["path"])).expect("UTF-8");
        assert_eq!(Path::new(&program), shell, "{exec:#}");
        let argv = [b"/bin/sh".to_vec(), path_str(&script).as_bytes().to_vec(), b"status".to_vec()];
        assert_eq!(record.argv(), argv, "{exec:#}");
    }
    let reader = path_str(&reader);
    let odd: Vec<_> = decisions.iter().filter(|record| record.payload.to_string().contains(reader)).collect();
    assert!(odd.iter().all(|record| !record.approves()), "{odd:#?}");
    for record in odd {
        assert!(!record.payload["operation"]["exec"]["script"].is_object(), "{:#}", record.payload);
    }
    assert!(!decisions.is_empty(), "the gate was never reached");
    assert!(!attempts(&finished.stdout()).is_empty(), "{}", finished.stdout());
    ground.verify();
}
