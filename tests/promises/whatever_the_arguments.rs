//! Whatever calls a protected program, and whatever it is called with: it is shown exactly, and nothing breaks.

use std::{ffi::OsString, os::unix::ffi::OsStringExt};

use ana_tests::{Ground, answers::Answer};

/// Runs Python in a session, approving everything; gives the arguments of what was asked.
#[track_caller]
fn asked_by_python(name: &str, script: &str, questions: usize) -> Ground {
    let ground = Ground::new(name);
    let script = ground.write_home("call.py", 0o644, script);
    let command = ["/usr/bin/python3".into(), script.into_os_string(), ground.deploy().into_os_string()];
    let (finished, asked) = ground.run_answered(&command, Answer::Approve);
    finished.assert_code(0);
    assert_eq!(asked.len(), questions, "{asked:#?}");
    assert_eq!(ground.markers().len(), questions);
    ground.assert_every_run_was_decided();
    ground.verify();
    ground
}

#[test]
fn a_thread_that_is_not_the_first_executes() {
    asked_by_python(
        "thread-exec",
        "import os, sys, threading, time\n\
         for _ in range(8): threading.Thread(target=time.sleep, args=(100,), daemon=True).start()\n\
         threading.Thread(target=lambda: os.execv(sys.argv[1], ['deploy', 'from-thread'])).start()\n\
         time.sleep(100)\n",
        1,
    );
}

#[test]
fn many_threads_start_children() {
    asked_by_python(
        "thread-spawn",
        "import subprocess, sys, threading\n\
         def go(i): subprocess.run([sys.argv[1], 'thread-%d' % i], check=True)\n\
         all = [threading.Thread(target=go, args=(i,)) for i in range(6)]\n\
         [t.start() for t in all]; [t.join() for t in all]\n",
        6,
    );
}

#[test]
fn a_vfork_parent_goes_on() {
    asked_by_python(
        "posix-spawn",
        "import os, sys\n\
         pid = os.posix_spawn(sys.argv[1], ['deploy', 'spawned'], os.environ)\n\
         assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0\n",
        1,
    );
}

/// A whole process group of shells, subshells, pipes and background jobs.
#[test]
fn a_shell_pipeline() {
    let ground = Ground::new("pipeline");
    let script =
        format!("echo in | ({0} --read one | tr a-z A-Z) | cat; {0} two & wait", ground.deploy().display());
    let (finished, questions) = ground.run_answered(&["bash", "-c", &script], Answer::Approve);
    finished.assert_code(0).assert_stdout("MARKER: RAN --READ ONE");
    assert_eq!(questions.len(), 2, "{questions:#?}");
    ground.assert_every_run_was_decided();
}

#[test]
fn bytes_that_are_no_text() {
    let ground = Ground::new("bytes");
    let odd: Vec<u8> = (1..=255).collect();
    let command = [ground.deploy().into_os_string(), OsString::from_vec(odd.clone()), OsString::new()];
    let mut session = ground.start(&command);
    let question = ground.question_of(&mut session);
    assert_eq!(question.argv()[1], odd);
    assert_eq!(question.argv()[2], b"");
    for text in [&question.summary, &question.operation.to_string()] {
        assert!(text.chars().all(|c| (' '..='~').contains(&c)), "only printable ASCII is shown: {text:?}");
    }
    // What people read in a terminal is harmless too.
    let table = ground.ana(&["pending"]).output().expect("ana");
    assert!(table.status.success(), "{table:?}");
    assert!(
        table.stdout.iter().all(|byte| (b' '..=b'~').contains(byte) || *byte == b'\n'),
        "{:?}",
        String::from_utf8_lossy(&table.stdout)
    );
    ground.approve(&question.id);
    session.finish().assert_code(0);
    assert_eq!(ground.markers()[0].argv[1..], [odd, Vec::new()]);
    ground.assert_every_run_was_decided();
    ground.verify();
}

#[test]
fn escape_sequences_in_a_denial() {
    let ground = Ground::new("denied-escapes");
    let evil = "\u{1b}]0;title\u{7}\u{1b}[2J\r\nana: approved: nothing";
    let mut session = ground.start(&[ground.deploy().as_os_str(), evil.as_ref()]);
    let question = ground.question_of(&mut session);
    ground.deny(&question.id, "no \u{1b}[31mescapes");
    let finished = session.finish().assert_code(137);
    assert!(!finished.stderr.contains(&0x1b), "{:?}", finished.stderr());
    assert!(
        !finished.stderr().lines().any(|line| line.starts_with("ana: approved")),
        "{}",
        finished.stderr()
    );
    ground.verify();
}

/// What no person can read is not asked: it is denied, with the reason, on record.
#[test]
fn a_megabyte_of_arguments() {
    let ground = Ground::new("megabyte");
    let mut command = vec![ground.deploy().into_os_string()];
    command.extend((0..12).map(|i| OsString::from("x".repeat(100_000) + &i.to_string())));
    let finished =
        ground.run(&command).assert_code(137).assert_stderr("ana: denied: ").assert_stderr("too large");
    assert!(finished.stderr.len() < 4096, "the denial is one line: {}", finished.stderr.len());
    ground.assert_never_ran();
    assert!(ground.decisions().iter().all(|decision| decision.denies()), "{:#?}", ground.decisions());
    ground.verify();
}

#[test]
fn a_megabyte_of_environment() {
    let ground = Ground::new("environment");
    let script = "import os, sys\n\
         for i in range(10): os.environ['BIG%d' % i] = 'y' * 100000\n\
         os.execv(sys.argv[1], ['deploy', 'big'])\n";
    let script = ground.write_home("big.py", 0o644, script);
    let command = ["/usr/bin/python3".into(), script.into_os_string(), ground.deploy().into_os_string()];
    let mut session = ground.start(&command);
    let question = ground.question_of(&mut session);
    let changed = question.operation["exec"]["environment"]["changed"].as_array().expect("changes").len();
    assert!(changed >= 10, "{changed}");
    ground.approve(&question.id);
    session.finish().assert_code(0);
    ground.assert_every_run_was_decided();
    ground.verify();
}

/// As many arguments as xargs gives at once are ordinary work.
#[test]
fn very_many_arguments() {
    let ground = Ground::new("many-args");
    ground.policy(&(ground.head() + &ground.rule("deny = [[\"**\", \"last\"]]\nallow = [[\"**\"]]")));
    let arguments = |last: &str| {
        let mut command = vec![ground.deploy().into_os_string()];
        command.extend((0..1200).map(|i| OsString::from(format!("{i:0100}"))));
        command.push(last.into());
        command
    };
    ground.run(&arguments("fine")).assert_code(0);
    assert_ne!(ground.run(&arguments("last")).code(), 0);
    assert_eq!(ground.markers().len(), 1);
    ground.assert_every_run_was_decided();
    ground.verify();
}

/// An exec that fails after it was held leaves nothing behind: the next one is asked anew.
#[test]
fn a_failed_exec_leaves_no_ticket() {
    let ground = Ground::new("failed-exec");
    let broken = ground.write("bin/broken", 0o755, "\u{7f}ELF but not really");
    let rule = format!("[[exec]]\nname = \"broken\"\nfile = [{broken:?}]\notherwise = \"approve\"\n");
    ground.policy(&(ground.asking() + &rule));
    let script = format!(
        "import os, sys\ntry: os.execv({:?}, ['broken'])\nexcept OSError as e: print('errno', e.errno, flush=True)\nos.execv(sys.argv[1], ['deploy', 'after'])\n",
        broken.display().to_string()
    );
    let script = ground.write_home("fail.py", 0o644, &script);
    let command = ["/usr/bin/python3".into(), script.into_os_string(), ground.deploy().into_os_string()];
    let (finished, questions) = ground.run_answered(&command, Answer::Approve);
    finished.assert_code(0).assert_stdout("errno 8");
    assert_eq!(questions.iter().filter(|q| q.rule == "deploy").count(), 1, "{questions:#?}");
    assert_eq!(ground.markers().len(), 1);
    ground.assert_every_run_was_decided();
    ground.verify();
}
