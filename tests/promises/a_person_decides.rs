//! A protected program waits for a person; what the person says is what happens, and the agent is told.

use std::{
    path::PathBuf,
    process::{Command, Output},
    time::{Duration, Instant},
};

use ana_tests::{Ground, machine::path_str, processes, wait};

#[test]
fn approved_it_runs() {
    let ground = Ground::new("approve");
    let mut session = ground.start(&[ground.deploy().as_os_str(), "to".as_ref(), "production".as_ref()]);
    let question = ground.question_of(&mut session);
    assert_eq!(question.kind, "exec");
    assert_eq!(question.rule, "deploy");
    assert_eq!(question.args(), ["to", "production"]);
    assert!(question.summary.contains("to production"), "{}", question.summary);
    assert_eq!(question.operation["id"], question.id.as_str());
    ground.assert_never_ran();

    ground.approve(&question.id);
    session.finish().assert_code(0).assert_stdout("marker: ran to production");

    let decisions = ground.decisions();
    assert_eq!(decisions.len(), 1, "{decisions:#?}");
    let decision = &decisions[0];
    assert!(decision.approves());
    assert_eq!(decision.id(), question.id);
    assert_eq!(decision.decided_by(), "person");
    assert_eq!(decision.payload["operation"], question.operation, "what was asked is what is recorded");
    assert_eq!(decision.payload["assertion"]["approver"], "root", "enrolled by root");
    ground.assert_every_run_was_decided();
    ground.assert_nothing_pending();
    ground.verify();
}

/// It is held before its first instruction: as a process with the new image, frozen in a cgroup of its own.
#[test]
fn held_it_has_not_begun() {
    let ground = Ground::new("held");
    let mut session = ground.start(&[ground.deploy()]);
    let question = ground.question_of(&mut session);
    let pid = question.pid();
    let exe = std::fs::read_link(format!("/proc/{pid}/exe")).expect("the held process is there");
    assert_eq!(exe, ground.deploy());
    let cgroup = processes::cgroup(pid).expect("it is in a cgroup");
    assert!(cgroup.contains(&question.session) && cgroup.contains("/hold-"), "{cgroup}");
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
    let times: Vec<&str> = stat.rsplit_once(')').expect("stat").1.split_ascii_whitespace().collect();
    assert_eq!(times[11], "0", "it used no user time: {stat}");
    ground.approve(&question.id);
    session.finish().assert_code(0);
}

#[test]
fn denied_it_dies_and_the_agent_reads_why() {
    let ground = Ground::new("deny");
    let script = format!("{} now; echo status=$?", ground.deploy().display());
    let mut session = ground.start(&["sh", "-c", &script]);
    let question = ground.question_of(&mut session);
    ground.deny(&question.id, "not on a friday");
    let finished = session.finish().assert_code(0).assert_stdout("status=137");
    let line = denial(&finished.stderr());
    assert!(line.contains("deploy now"), "{line}");
    assert!(line.contains(&format!("(rule \"deploy\", operation {})", question.id)), "{line}");
    assert!(line.contains("not on a friday"), "{line}");
    ground.assert_never_ran();
    let decisions = ground.decisions();
    assert!(decisions.len() == 1 && decisions[0].denies(), "{decisions:#?}");
    ground.verify();
}

#[test]
fn unanswered_it_is_denied_in_time() {
    let ground = Ground::new("timeout");
    ground.policy(
        &(ground.head() + "[defaults]\ntimeout = \"2s\"\n" + &ground.rule("otherwise = \"approve\"")),
    );
    let begin = Instant::now();
    let finished = ground.run(&[ground.deploy()]).assert_code(137);
    let took = begin.elapsed();
    assert!(took >= Duration::from_secs(2) && took < 2 * wait::SOON, "{took:?}");
    let line = denial(&finished.stderr());
    assert!(line.contains("timed out after 2s"), "{line}");
    ground.assert_never_ran();
    let decisions = ground.decisions();
    assert!(decisions.len() == 1 && decisions[0].denies(), "{decisions:#?}");
    assert_eq!(decisions[0].decided_by(), "timeout");
    ground.verify();
}

/// A rule that always denies asks nobody: the exec fails with EPERM, or dies, and says why.
#[test]
fn a_rule_denies_at_once() {
    let ground = Ground::new("rule-deny");
    ground.policy(&(ground.head() + &ground.rule("otherwise = \"deny\"")));
    let script = format!("{} now; echo status=$?", ground.deploy().display());
    let finished = ground.run_shell(&script).assert_code(0);
    assert!(!finished.stdout().contains("status=0"), "{}", finished.stdout());
    assert!(denial(&finished.stderr()).contains("deploy"), "{}", finished.stderr());
    ground.assert_never_ran();
    ground.verify();
}

/// A rule that allows some arguments asks nobody about them, and leaves a record.
#[test]
fn a_rule_allows_at_once() {
    let ground = Ground::new("rule-allow");
    ground.policy(&(ground.head() + &ground.rule("allow = [[\"status\", \"**\"]]\notherwise = \"deny\"")));
    ground.run(&[ground.deploy().as_os_str(), "status".as_ref(), "-s".as_ref()]).assert_code(0);
    assert_eq!(ground.decisions()[0].decided_by(), "rule");
    ground.assert_every_run_was_decided();
    ground.verify();
}

/// Questions are answered in any order: none waits behind another.
#[test]
fn many_questions_any_order() {
    let ground = Ground::new("many");
    let deploy = ground.deploy();
    let script = format!("for i in 1 2 3 4; do {} $i & done; wait", deploy.display());
    let session = ground.start(&["sh", "-c", &script]);
    let all = wait::until("four questions are pending", || {
        let all = ground.pending(1);
        (all.len() == 4).then_some(all)
    });
    for (answered, question) in all.iter().rev().enumerate() {
        ground.approve(&question.id);
        wait::until("it runs at once", || (ground.markers().len() == answered + 1).then_some(()));
        assert_eq!(ground.markers()[answered].args(), question.args());
    }
    session.finish().assert_code(0);
    ground.assert_every_run_was_decided();
    ground.verify();
}

#[test]
fn pending_waits_and_says_nothing() {
    let ground = Ground::new("pending");
    let begin = Instant::now();
    assert!(ground.pending(0).is_empty());
    let session = ground.start(&["sleep", "30"]);
    wait::until("the session is up", || (!ground.records_of("session-start").is_empty()).then_some(()));
    let waited = Instant::now();
    assert!(ground.pending(1).is_empty());
    let (waited, all) = (waited.elapsed(), begin.elapsed());
    assert!(waited >= Duration::from_secs(1) && waited < wait::SOON, "{waited:?} of {all:?}");
    drop(session);
}

#[test]
fn pending_tells_times() {
    let ground = Ground::new("times");
    ground.policy(
        &(ground.head() + "[defaults]\ntimeout = \"77s\"\n" + &ground.rule("otherwise = \"approve\"")),
    );
    let mut session = ground.start(&[ground.deploy()]);
    let question = ground.question_of(&mut session);
    let seconds = |time: &str| {
        let output = Command::new("date").args(["-d", time, "+%s%N"]).output().expect("date");
        assert!(output.status.success(), "not a time: {time}");
        String::from_utf8_lossy(&output.stdout).trim().parse::<i128>().expect("a number") / 1_000_000_000
    };
    let span = seconds(&question.expires_at) - seconds(&question.created_at);
    assert!((76..=78).contains(&span), "{span}");
    assert!(
        question.created_at.contains('T') && question.created_at.ends_with('Z'),
        "{}",
        question.created_at
    );
    ground.deny(&question.id, "enough");
    session.finish().assert_code(137);
}

/// The lines of denial on an agent's stderr, which must be exactly one.
#[track_caller]
fn denial(stderr: &str) -> String {
    let lines: Vec<&str> = stderr.lines().filter(|line| line.starts_with("ana: denied: ")).collect();
    assert_eq!(lines.len(), 1, "one line of denial was expected:\n{stderr}");
    lines[0].to_owned()
}

#[track_caller]
fn is_refused(answer: &Output, words: &[&str]) {
    let said = String::from_utf8_lossy(&answer.stderr);
    assert_eq!(answer.status.code(), Some(1), "{said}");
    for word in words {
        assert!(said.contains(word), "no {word:?} in: {said}");
    }
}

#[test]
fn an_unknown_question_cannot_be_answered() {
    let ground = Ground::new("unknown");
    let mut session = ground.start(&[ground.deploy()]);
    let question = ground.question_of(&mut session);
    let unknown = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
    is_refused(&ground.try_approve(unknown), &[unknown]);
    is_refused(&ground.try_deny(unknown, "whatever"), &[unknown]);
    is_refused(&ground.try_approve("no id at all"), &[]);
    assert_eq!(ground.pending(0).len(), 1);
    ground.approve(&question.id);
    session.finish().assert_code(0);
}

#[test]
fn a_decided_question_cannot_be_answered_again() {
    let ground = Ground::new("again");
    let script = format!("{0} one; {0} two", ground.deploy().display());
    let mut session = ground.start(&["sh", "-c", &script]);
    let first = ground.question_of(&mut session);
    ground.approve(&first.id);
    let second =
        wait::until("the second question", || ground.pending(1).into_iter().find(|q| q.id != first.id));
    is_refused(&ground.try_approve(&first.id), &[&first.id]);
    is_refused(&ground.try_deny(&first.id, "too late"), &[&first.id]);
    ground.deny(&second.id, "no");
    session.finish().assert_code(137);
    is_refused(&ground.try_approve(&second.id), &[]);
    assert_eq!(ground.markers().len(), 1);
    ground.assert_every_run_was_decided();
    ground.verify();
}

#[test]
fn an_expired_question_cannot_be_answered() {
    let ground = Ground::new("expired");
    ground.policy(
        &(ground.head() + "[defaults]\ntimeout = \"1s\"\n" + &ground.rule("otherwise = \"approve\"")),
    );
    let script = format!("{}; sleep 30", ground.deploy().display());
    let mut session = ground.start(&["sh", "-c", &script]);
    let question = ground.question_of(&mut session);
    session.until_stderr("ana: denied: ");
    is_refused(&ground.try_approve(&question.id), &[&question.id]);
    ground.assert_never_ran();
    ground.verify();
}

/// More questions than the policy wants open at once are denied, not queued.
#[test]
fn too_many_questions_are_denied() {
    let ground = Ground::new("max-holds");
    ground.policy(&(ground.head() + "[session]\nmax_holds = 2\n" + &ground.rule("otherwise = \"approve\"")));
    let script = format!("for i in 1 2 3 4; do {} $i & done; wait", ground.deploy().display());
    let session = ground.start(&["sh", "-c", &script]);
    wait::until("two are denied", || (session.stderr().matches("ana: denied: ").count() == 2).then_some(()));
    let open = ground.pending(0);
    assert_eq!(open.len(), 2, "{open:#?}");
    for question in open {
        ground.approve(&question.id);
    }
    session.finish().assert_code(0);
    assert_eq!(ground.markers().len(), 2);
    ground.assert_every_run_was_decided();
    ground.verify();
}

/// Only enrolled passkeys of this host count.
#[test]
fn a_passkey_that_is_not_enrolled_is_refused() {
    let ground = Ground::new("stranger");
    let stranger = foreign_key(&ground, &[]);
    let other_host =
        foreign_key(&ground, &["unshare", "--uts", "sh", "-c", "hostname elsewhere; exec \"$@\"", "sh"]);
    let mut session = ground.start(&[ground.deploy()]);
    let question = ground.question_of(&mut session);
    for key in [stranger, other_host, ground.root().join("keys/none.key")] {
        let answer = ground.ana(&["approve", &question.id, "--software"]).arg(&key).output().expect("ana");
        is_refused(&answer, &[]);
        assert!(!String::from_utf8_lossy(&answer.stderr).contains("panicked"), "{answer:?}");
    }
    ground.assert_never_ran();
    assert_eq!(ground.pending(0).len(), 1, "the question is still open");
    ground.approve(&question.id);
    session.finish().assert_code(0);
    ground.verify();
}

/// A software passkey that was enrolled elsewhere; `prefix` runs the enrolment (under another host name, say).
fn foreign_key(ground: &Ground, prefix: &[&str]) -> PathBuf {
    let (state, key) = (
        ground.root().join(format!("elsewhere-{}", prefix.len())),
        ground.root().join(format!("keys/foreign-{}.key", prefix.len())),
    );
    std::fs::create_dir(&state).expect("folder");
    std::fs::write(state.join("policy.toml"), ground.head()).expect("policy");
    let ana = ana_tests::machine::machine().ana("ana");
    let mut command: Vec<&str> = prefix.to_vec();
    command.extend([path_str(&ana), "--state", path_str(&state), "passkey", "enroll", "--name", "mallory"]);
    command.extend(["--software", path_str(&key)]);
    ana_tests::machine::admin(command[0], &command[1..]);
    key
}

/// A key that is allowed by no policy does not count, however well it is enrolled.
#[test]
fn a_software_passkey_needs_the_policys_leave() {
    let ground = Ground::new("leave");
    ground.policy(&("version = 1\n".to_owned() + &ground.rule("otherwise = \"approve\"")));
    let mut session = ground.start(&[ground.deploy()]);
    let question = ground.question_of(&mut session);
    is_refused(&ground.try_approve(&question.id), &["allow_software_passkey"]);
    ground.assert_never_ran();
    ground.deny(&question.id, "no key");
    session.finish().assert_code(137);
}

/// Enrolling a second passkey needs the first one: where it is remembered, or where `--with` says.
#[test]
fn a_second_passkey_needs_the_first() {
    let ground = Ground::new("second");
    let (first, second) = (ground.root().join("keys/moved.key"), ground.root().join("keys/alice.key"));
    std::fs::rename(ground.key(), &first).expect("root may");
    let enroll = |with: &[&str]| {
        let mut command =
            ground.ana(&["passkey", "enroll", "--name", "alice", "--software", path_str(&second)]);
        command.args(with).output().expect("ana")
    };
    let alone = enroll(&[]);
    assert!(!alone.status.success(), "a second passkey was enrolled without the first: {alone:?}");
    let stranger = foreign_key(&ground, &[]);
    let with_stranger = enroll(&["--with", path_str(&stranger)]);
    assert!(!with_stranger.status.success(), "a stranger's key enrolled another: {with_stranger:?}");
    assert_eq!(ground.records_of("enrolment").len(), 1);
    let with = enroll(&["--with", path_str(&first)]);
    assert!(with.status.success(), "{}", String::from_utf8_lossy(&with.stderr));
    assert_eq!(ground.records_of("enrolment").len(), 2);
    ground.verify();
}
