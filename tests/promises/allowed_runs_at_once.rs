//! What the policy allows runs without being held, and is written down all the same. (What was held has an outcome of
//! its own in the evidence; what was not has none.)

use std::collections::BTreeMap;

use ana_tests::{Ground, machine::path_str};

fn ground(name: &str) -> Ground {
    let ground = Ground::new(name);
    ground.policy(
        &(ground.head()
            + "[defaults]\ntimeout = \"1s\"\n"
            + &ground.rule("deny = [[\"drop\"]]\nallow = [[\"status\", \"**\"]]\notherwise = \"approve\"")),
    );
    ground
}

/// The first run tells what the file's content is; from then on it is known.
fn shell(ground: &Ground, script: &str) -> String {
    format!("d={}\n$d status first\n{script}", path_str(&ground.deploy()))
}

/// How many runs with these first arguments were held.
fn held(ground: &Ground) -> usize {
    ground.records_of("outcome").len()
}

#[test]
fn every_run_is_recorded_with_what_it_ran() {
    let ground = ground("quick");
    let script = "cd /; i=0; while [ $i -lt 50 ]; do $d status $i 'a b' \"\" || exit 1; i=$((i+1)); done";
    ground.run_shell(&shell(&ground, script)).assert_code(0);
    assert_eq!(ground.markers().len(), 51);
    let decisions = ground.decisions();
    assert_eq!(decisions.len(), 51);
    assert!(decisions.iter().all(|decision| decision.approves() && decision.decided_by() == "rule"));
    assert!(held(&ground) <= 1, "{} of 51 were held", held(&ground));
    ground.assert_every_run_was_decided();
    let last = &decisions.last().unwrap().payload["operation"];
    let exec = &last["exec"];
    assert_eq!(decisions.last().unwrap().args(), ["status", "49", "a b", ""]);
    assert_eq!(ana_tests::records::bytes_of(&exec["cwd"]), b"/");
    assert_eq!(exec["program"]["sha256"], decisions[0].payload["operation"]["exec"]["program"]["sha256"]);
    assert_eq!(exec["program"]["inode"], decisions[0].payload["operation"]["exec"]["program"]["inode"]);
    // The shell that started it; it goes on for a while after the first ones.
    let ancestry = &decisions[3].payload["operation"]["requester"]["ancestry"];
    assert_eq!(ancestry.as_array().map(Vec::len), Some(1), "{ancestry}");
    assert_eq!(
        last["requester"]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()),
        ground.markers().last().map(|m| m.pid)
    );
    ground.verify();
}

#[test]
fn whatever_is_special_is_held() {
    let ground = ground("quick-special");
    let long = "x".repeat(20_000);
    let cases: BTreeMap<&str, (String, &str)> = BTreeMap::from([
        ("several threads", (
            "python3 -c 'import os, sys, threading, time; threading.Thread(target=time.sleep, args=(9,), daemon=True).start(); os.execv(sys.argv[1], [\"deploy\", \"status\", \"threads\"])' $d".to_owned(),
            "allow",
        )),
        ("more than is compared", (format!("$d status {long}"), "allow")),
        ("another name", (format!("bash -c 'exec -a other {} status'", path_str(&ground.deploy())), "deny")),
        ("other arguments", ("$d push".to_owned(), "deny")),
        ("denied arguments", ("$d drop".to_owned(), "deny")),
        ("a hook", ("LD_PRELOAD=/nowhere.so $d status hook".to_owned(), "deny")),
        ("a hook that was there, changed", ("LD_LIBRARY_PATH=/nowhere $d status hook".to_owned(), "deny")),
    ]);
    for (what, (command, verdict)) in cases {
        let before = (held(&ground), ground.decisions().len());
        ground.run_shell(&shell(&ground, &format!("sh -c '' ; {command}")));
        let decisions = ground.decisions();
        let last = decisions.last().unwrap();
        assert_eq!(decisions.len(), before.1 + 2, "{what}");
        assert_eq!(last.payload["verdict"], verdict, "{what}: {:?}", last.payload["detail"]);
        let outcomes = if verdict == "allow" { 1 } else { 0 };
        assert!(held(&ground) >= before.0 + outcomes, "{what} was not held");
    }
    ground.assert_every_run_was_decided();
    ground.verify();
}

/// A call that fails after it was let through leaves nothing behind.
#[test]
fn a_failed_exec_leaves_no_permission() {
    let ground = ground("quick-failed");
    // ENOEXEC: the file is there, marked, and no program.
    let script = "python3 - $d <<'END'
import os, sys, resource
d = sys.argv[1]
for i in range(200):
    try: os.execve(d, ['deploy', 'status', 'x' * 100], {'A': 'y' * 12000, 'B': 'z' * 150000})
    except OSError: pass
os.execve(d, ['deploy', 'push'], {})
END";
    ground.run_shell(&shell(&ground, script));
    let runs: Vec<Vec<String>> = ground.markers().iter().map(|marker| marker.args()).collect();
    assert_eq!(runs, [["status", "first"]], "{runs:?}");
    ground.assert_every_run_was_decided();
    ground.verify();
}

/// Many at once, from many processes, mixed with others that are denied.
#[test]
fn many_at_once() {
    let ground = ground("quick-many");
    let script = "for p in 1 2 3 4 5 6 7 8; do
        (i=0; while [ $i -lt 25 ]; do $d status $p $i || echo failed $p $i; i=$((i+1)); done; $d drop; true) &
    done; wait";
    let finished = ground.run_shell(&shell(&ground, script)).assert_code(0);
    assert!(!finished.stdout().contains("failed"), "{}", finished.stdout());
    assert_eq!(ground.markers().len(), 201);
    assert_eq!(ground.decisions().iter().filter(|decision| decision.denies()).count(), 8);
    ground.assert_every_run_was_decided();
    ground.verify();
}
