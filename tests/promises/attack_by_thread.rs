//! What an exec was allowed is the exec's own: another thread that is inside the kernel meanwhile gets nothing of it, and
//! neither does the program that comes after it.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use ana_tests::{
    Ground,
    machine::{machine, path_str},
    records::{Record, bytes_of},
    session::Finished,
};

/// How long each race is run.
fn seconds() -> u32 {
    std::env::var("ANA_TEST_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20)
}

fn attack(ground: &Ground, kind: &str, protected: &Path, target: &Path) -> Vec<OsString> {
    let folder = ground.home().join("chain");
    let arguments: [OsString; 5] =
        [kind.into(), protected.into(), target.into(), folder.into(), seconds().to_string().into()];
    ground.attack("threads", &arguments)
}

/// `status` is allowed, all else denied: a race needs no person.
fn judged(ground: &Ground, file: &Path) {
    let rule = "allow = [[\"status\"]]\notherwise = \"deny\"";
    let rule = format!("[[exec]]\nname = \"raced\"\nfile = [{:?}]\n{rule}\n", path_str(file));
    ground.policy(&(ground.head() + &rule));
}

fn race(ground: &Ground, command: &[OsString]) -> Finished {
    let limit = Duration::from_secs(u64::from(seconds()) + 60);
    let finished = ground.start(command).finish_within(limit).assert_code(0);
    let tail = finished.stdout().lines().last().map(str::to_owned).unwrap_or_default();
    if !tail.ends_with(" won 0") {
        let last = ground.decisions().pop().map(|record| record.payload);
        panic!("the race was won:\n{}\nthe last decision: {last:#?}", finished.stdout());
    }
    assert!(!tail.starts_with("rounds 0 "), "nothing was raced: {}", finished.stdout());
    finished
}

/// Whether the attempt was granted in any of the rounds.
fn ever_ok(finished: &Finished, name: &str) -> bool {
    finished.stdout().lines().any(|line| line == format!("attempt {name}: ok"))
}

#[test]
fn a_thread_that_opens_without_ana() {
    let ground = Ground::bare("thread-open");
    let finished = ground.run_without_ana(&attack(&ground, "open-alone", &ground.deploy(), &ground.deploy()));
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
fn a_thread_that_executes_another_interpreter_without_ana() {
    let ground = Ground::bare("thread-exec");
    let reader = machine().program("attack-reader");
    let finished = ground.run_without_ana(&attack(&ground, "exec-alone", &script(&ground), &reader));
    let finished = finished.assert_code(42);
    assert!(ever_ok(&finished, "read-as-another"), "{}", finished.stdout());
}

/// Another script, of the session user's own, that reads the protected one as its interpreter may.
fn other_script(ground: &Ground) -> PathBuf {
    let text = "#!/bin/sh\n[ -n \"$ANA_TEST_READ\" ] && read -r line < \"$ANA_TEST_READ\" || exit 5\n\
                echo \"attempt read-as-another: ok\"\nset -- attack\n. \"$ANA_TEST_READ\"\nexit 42\n";
    ground.write_home("other.sh", 0o755, text)
}

#[test]
fn a_thread_that_executes_another_script_without_ana() {
    let ground = Ground::bare("thread-script");
    let other = other_script(&ground);
    let finished = ground.run_without_ana(&attack(&ground, "file-alone", &script(&ground), &other));
    let finished = finished.assert_code(42);
    assert!(ever_ok(&finished, "read-as-another"), "{}", finished.stdout());
    assert_eq!(ran_with(&ground), ["attack"]);
}

/// What the script was called with, each time.
fn ran_with(ground: &Ground) -> Vec<String> {
    ground.all_markers().iter().map(|marker| marker.args()[1..].join(" ")).collect()
}

/// Another program in the place of the script's interpreter.
#[test]
fn a_thread_that_executes_another_interpreter() {
    let ground = Ground::new("thread-exec");
    executes(&ground, "exec", &machine().program("attack-reader"));
}

/// Another program in the place of the protected one: what is allowed is the one that was looked at.
#[test]
fn a_thread_that_executes_another_program() {
    let ground = Ground::new("thread-program");
    judged(&ground, &ground.deploy());
    let reader = machine().program("attack-reader");
    let finished = race(&ground, &attack(&ground, "file", &ground.deploy(), &reader));
    assert!(!ever_ok(&finished, "read-as-another"), "the program was read:\n{}", finished.stdout());
    let decisions = ground.decisions();
    assert!(!decisions.is_empty(), "the gate was never reached");
    for record in decisions.iter().filter(|record| record.approves()) {
        let program = bytes_of(&record.payload["operation"]["exec"]["program"]["path"]);
        assert_eq!(program, path_str(&ground.deploy()).as_bytes(), "{:#}", record.payload);
        assert_eq!(record.args(), ["status"], "{:#}", record.payload);
    }
    ground.assert_every_run_was_decided();
    ground.verify();
}

#[test]
fn a_thread_that_executes_another_program_without_ana() {
    let ground = Ground::bare("thread-program");
    let reader = machine().program("attack-reader");
    let attack = attack(&ground, "file-alone", &ground.deploy(), &reader);
    let finished = ground.run_without_ana(&attack).assert_code(42);
    assert!(ever_ok(&finished, "read-as-another"), "{}", finished.stdout());
}

/// Another script with the same interpreter and arguments.
#[test]
fn a_thread_that_executes_another_script() {
    let ground = Ground::new("thread-script");
    executes(&ground, "file", &other_script(&ground));
}

/// The script's decision is about the script, its interpreter and its arguments, whatever else the process executes.
#[track_caller]
fn executes(ground: &Ground, kind: &str, target: &Path) {
    let script = script(ground);
    judged(ground, &script);
    let finished = race(ground, &attack(ground, kind, &script, target));
    assert!(!ever_ok(&finished, "read-as-another"), "the script was read:\n{}", finished.stdout());
    let odd: Vec<String> = ran_with(ground).into_iter().filter(|arguments| arguments != "status").collect();
    assert!(odd.is_empty(), "the script ran with {odd:?}");
    let decisions = ground.decisions();
    assert!(!decisions.is_empty(), "the gate was never reached");
    let wrong: Vec<&Record> = decisions.iter().filter(|record| !is_about(record, &script)).collect();
    assert!(wrong.is_empty(), "{} of {} decisions: {:#}", wrong.len(), decisions.len(), wrong[0].payload);
    ground.verify();
}

/// Whether a decision names the script as the shell runs it, or as it is before anything is known of its execution.
fn is_about(record: &Record, script: &Path) -> bool {
    let exec = &record.payload["operation"]["exec"];
    if !exec["script"].is_object() {
        return !record.approves();
    }
    let shell = std::fs::canonicalize("/bin/sh").expect("there is a shell");
    let program = String::from_utf8(bytes_of(&exec["program"]["path"])).expect("UTF-8");
    if exec["script"]["opened"] == true {
        // An open that was refused or judged: the process is what it is, and nothing was allowed.
        return !record.approves();
    }
    let argv = [b"/bin/sh".to_vec(), path_str(script).as_bytes().to_vec(), b"status".to_vec()];
    Path::new(&program) == shell && record.argv() == argv
}
