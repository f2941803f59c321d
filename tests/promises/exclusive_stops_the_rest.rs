//! `exclusive = true`: from the judgement to the program's exit nothing else of the session moves.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use ana_tests::{
    Ground, Session, answers::Question, fuse::Stalling, ground::cgroups_of, machine::path_str, processes,
    records, wait,
};
use nix::{
    sys::{
        signal::{Signal, kill},
        stat::Mode,
    },
    unistd::{Pid, mkfifo},
};

/// How long nothing may happen for it to count as standing still. The writer writes thousands of times in it.
const STILL: Duration = Duration::from_millis(500);

/// A shell that counts as fast as it can until `run` is gone, and meanwhile runs `script`.
fn counting(ground: &Ground, script: &str) -> Vec<String> {
    ground.write_home("run", 0o644, "");
    let count = "(i=0; while [ -e run ]; do i=$((i+1)); echo \"$i\" > counter; done) &";
    let wait = "until [ -s counter ]; do :; done";
    vec!["/bin/sh".into(), "-c".into(), format!("{count} {wait}; {script}; echo over $?; wait")]
}

fn counter(ground: &Ground) -> String {
    fs::read_to_string(ground.home().join("counter")).unwrap_or_default()
}

#[track_caller]
fn stands_still(ground: &Ground) {
    let before = counter(ground);
    wait::never_during(STILL, "the rest of the session moved", || {
        let now = counter(ground);
        (now != before).then(|| format!("{before:?} became {now:?}"))
    });
}

#[track_caller]
fn moves(ground: &Ground) {
    let before = counter(ground);
    wait::until("the rest of the session moves", || {
        let now = counter(ground);
        (!now.is_empty() && now != before).then_some(())
    });
}

/// Ends the counting, and with it the session.
#[track_caller]
fn end(ground: &Ground, session: Session) -> ana_tests::Finished {
    fs::remove_file(ground.home().join("run")).expect("run");
    let finished = session.finish();
    ground.verify();
    finished
}

fn exclusive(ground: &Ground, lines: &str) {
    ground.policy(&(ground.head() + &ground.rule(&format!("exclusive = true\n{lines}"))));
}

/// `deploy --read`, held under an exclusive rule, in a session that counts.
fn asked(ground: &Ground) -> (Session, Question) {
    let command = counting(ground, &format!("{} --read", path_str(&ground.deploy())));
    let mut session = ground.launch(&command).start_listening();
    let question = ground.question_of(&mut session);
    (session, question)
}

#[test]
fn without_the_option_the_rest_goes_on() {
    let ground = Ground::new("not-exclusive");
    let (mut session, question) = asked(&ground);
    moves(&ground);
    ground.approve(&question.id);
    session.until_stdout("marker: ran");
    moves(&ground);
    session.say("go");
    session.until_stdout("over 0");
    end(&ground, session).assert_code(0);
}

#[test]
fn nothing_moves_from_the_question_to_the_exit() {
    let ground = Ground::new("exclusive");
    exclusive(&ground, "");
    let (mut session, question) = asked(&ground);
    assert_eq!(question.operation["exec"]["exclusive"], true, "{:#}", question.operation);
    stands_still(&ground);
    ground.approve(&question.id);
    session.until_stdout("marker: ran");
    stands_still(&ground);
    session.say("go");
    session.until_stdout("over 0");
    moves(&ground);
    end(&ground, session).assert_code(0);
    ground.assert_every_run_was_decided();
}

/// A file that the session rewrites all the time is what was shown, as long as the program runs.
#[test]
fn an_argument_file_cannot_be_rewritten() {
    let ground = Ground::new("exclusive-file");
    exclusive(&ground, "");
    let command = counting(&ground, &format!("{} --read counter", path_str(&ground.deploy())));
    let mut session = ground.launch(&command).start_listening();
    let question = ground.question_of(&mut session);
    let shown = counter(&ground);
    assert!(question.operation["exec"]["argument_files"][0]["sha256"].is_string(), "{question:#?}");
    ground.approve(&question.id);
    // It would have been denied if the file had changed.
    session.until_stdout("marker: ran");
    stands_still(&ground);
    assert_eq!(counter(&ground), shown);
    session.say("go");
    session.until_stdout("over 0");
    moves(&ground);
    end(&ground, session).assert_code(0);
}

#[test]
fn a_denial_lets_the_session_go_on() {
    let ground = Ground::new("exclusive-denied");
    exclusive(&ground, "");
    let (session, question) = asked(&ground);
    stands_still(&ground);
    ground.deny(&question.id, "not now");
    session.until_stderr("not now");
    moves(&ground);
    end(&ground, session);
    ground.assert_never_ran();
}

#[test]
fn an_expired_question_lets_the_session_go_on() {
    let ground = Ground::new("exclusive-expired");
    exclusive(&ground, "timeout = \"2s\"");
    let (session, _question) = asked(&ground);
    session.until_stderr("timed out");
    moves(&ground);
    end(&ground, session);
    ground.assert_never_ran();
}

#[test]
fn a_program_that_is_killed_lets_the_session_go_on() {
    let ground = Ground::new("exclusive-killed");
    exclusive(&ground, "");
    let (session, question) = asked(&ground);
    stands_still(&ground);
    kill(Pid::from_raw(question.pid()), Signal::SIGKILL).expect("the held process is there");
    session.until_stdout("over 137");
    moves(&ground);
    end(&ground, session);
    let ground = Ground::new("exclusive-killed-later");
    exclusive(&ground, "");
    let (session, question) = asked(&ground);
    ground.approve(&question.id);
    session.until_stdout("marker: ran");
    kill(Pid::from_raw(question.pid()), Signal::SIGKILL).expect("the program runs");
    session.until_stdout("over 137");
    moves(&ground);
    end(&ground, session);
}

/// One at a time: the second one is not even asked about before the first has ended.
#[test]
fn a_second_exclusive_program_waits() {
    let ground = Ground::new("exclusive-two");
    exclusive(&ground, "");
    let gate = ground.home().join("gate");
    mkfifo(&gate, Mode::S_IRWXU).expect("a FIFO");
    ground.give(&gate);
    let deploy = ground.deploy();
    let both = format!("for n in 1 2; do {} --read $n < gate & done; wait", path_str(&deploy));
    let mut line = fs::OpenOptions::new().read(true).write(true).open(&gate).expect("the FIFO");
    let mut session = ground.start(&["/bin/sh", "-c", &both]);
    for run in 1..=2 {
        let question = ground.question_of(&mut session);
        ground.approve(&question.id);
        wait::until("the program runs", || (ground.markers().len() == run).then_some(()));
        wait::never_during(STILL, "another question", || {
            let pending = ground.pending(0);
            (!pending.is_empty()).then(|| format!("{pending:#?}"))
        });
        std::io::Write::write_all(&mut line, b"go\n").expect("a line");
    }
    session.finish().assert_code(0);
    assert_eq!(ground.markers().len(), 2);
    ground.assert_every_run_was_decided();
    ground.verify();
}

/// An exclusive script that starts the protected program.
fn script(ground: &Ground) -> PathBuf {
    let text = format!("#!/bin/sh\n{} --read\necho script-over\n", path_str(&ground.deploy()));
    ground.write("bin/all.sh", 0o755, &text)
}

fn protect_script(ground: &Ground, script: &Path, rule: &str) {
    let lines = format!("[[exec]]\nname = \"all\"\nfile = [{script:?}]\nexclusive = true\n{rule}\n");
    let text = ground.head() + &lines;
    ground.policy(&text);
}

/// What an exclusive program starts goes on with it, whether its own rule is exclusive or not.
#[test]
fn the_programs_own_children_go_on() {
    for own in ["", "exclusive = true"] {
        let ground = Ground::new("exclusive-child");
        let script = script(&ground);
        protect_script(&ground, &script, &format!("otherwise = \"allow\"\n{}", ground.rule(own)));
        let command = counting(&ground, path_str(&script));
        let mut session = ground.launch(&command).start_listening();
        let question = ground.question_of(&mut session);
        stands_still(&ground);
        ground.approve(&question.id);
        session.until_stdout("marker: ran");
        stands_still(&ground);
        let place = processes::cgroup(question.pid()).expect("the program runs");
        assert!(!place.ends_with("/work"), "{place}");
        session.say("go");
        session.until_stdout("over 0");
        assert!(session.stdout().contains("script-over"), "{}", session.stdout());
        moves(&ground);
        let id = records::session_ids(&ground.state()).pop().expect("a session");
        wait::until("every hold is removed", || {
            let left = fs::read_dir(&cgroups_of(&id)[0]).expect("the session").flatten();
            (left.filter(|e| e.path().is_dir()).count() == 1).then_some(())
        });
        end(&ground, session).assert_code(0);
    }
}

/// What waits for a file system does not stop, whatever its name is (any bytes): nothing runs alone beside it.
#[test]
fn what_does_not_stop_is_seen_by_any_name() {
    for name in ["reader", r"\xff\xfe", r"a) Z 1\xff", r"a) Z 1"] {
        let ground = Ground::new("exclusive-stall");
        exclusive(&ground, "allow = [[\"**\"]]");
        let stalling = Stalling::mount(&ground);
        let mut session = ground.launch(&["bash"]).start_listening();
        let file = stalling.folder.join("file");
        let script = format!(
            "import ctypes; ctypes.CDLL(None).prctl(15, b'{name}', 0, 0, 0); open({file:?}, 'rb').read()"
        );
        let script = ground.write_home("waits.py", 0o644, &script);
        session.say(&format!("python3 {} &", path_str(&script)));
        wait::until("somebody waits for the file system", || (stalling.waiting() > 0).then_some(()));
        session.say(&format!("{} status; echo ended $?", path_str(&ground.deploy())));
        session.until_stderr("its rule is exclusive, and process");
        session.until_stdout("ended ");
        ground.assert_never_ran();
        stalling.release();
        session.hush();
        session.finish();
        ground.verify();
    }
}

/// What the program leaves behind is of the session again.
#[test]
fn what_it_leaves_behind_is_of_the_session() {
    let ground = Ground::new("exclusive-left");
    let text = "#!/bin/sh\n(while [ -e run ]; do echo x; done > left) &\necho $! > pid\n";
    let script = ground.write("bin/leave.sh", 0o755, text);
    protect_script(&ground, &script, "otherwise = \"allow\"");
    let session = ground.start(&counting(&ground, path_str(&script)));
    session.until_stdout("over 0");
    moves(&ground);
    let pid: i32 =
        fs::read_to_string(ground.home().join("pid")).expect("a pid").trim().parse().expect("a pid");
    wait::until("it is in work", || processes::cgroup(pid)?.ends_with("/work").then_some(()));
    end(&ground, session).assert_code(0);
}

/// The interpreter's process may be anything, the agent included: it does not get the session for itself.
#[test]
fn an_exclusive_script_is_not_opened() {
    let ground = Ground::new("exclusive-opened");
    let script = script(&ground);
    protect_script(&ground, &script, "otherwise = \"allow\"");
    let finished = ground.run(&["/bin/sh", path_str(&script)]);
    assert_ne!(finished.code(), 0);
    finished.assert_stderr("run it by its own path");
    ground.assert_never_ran();
}

/// A session that stands still can be ended, and so can what is frozen.
#[test]
fn a_session_that_stands_still_can_be_killed() {
    let ground = Ground::new("exclusive-end");
    exclusive(&ground, "");
    let (session, _question) = asked(&ground);
    let frozen = *processes::below(session.supervisor())
        .iter()
        .find(|&&pid| processes::command_line(pid).contains("counter"))
        .expect("the shell that counts");
    kill(Pid::from_raw(frozen), Signal::SIGKILL).expect("it is there");
    wait::until("it dies", || (!processes::alive(frozen)).then_some(()));
    let id = records::session_ids(&ground.state()).pop().expect("a session");
    session.signal(Signal::SIGTERM);
    session.finish();
    assert!(cgroups_of(&id).is_empty());
    ground.assert_never_ran();
    ground.verify();
}

#[test]
fn a_dead_supervisor_takes_everything_with_it() {
    let ground = Ground::new("exclusive-orphan");
    exclusive(&ground, "");
    let (session, question) = asked(&ground);
    ground.approve(&question.id);
    session.until_stdout("marker: ran");
    let id = records::session_ids(&ground.state()).pop().expect("a session");
    processes::end(session.supervisor());
    wait::until("the session is gone", || cgroups_of(&id).is_empty().then_some(()));
    assert!(!processes::alive(question.pid()));
    session.finish();
}
