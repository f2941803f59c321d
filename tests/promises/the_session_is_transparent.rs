//! A command under `ana-run` behaves as without: its status, its streams, its surroundings.

use std::os::unix::process::ExitStatusExt;

use ana_tests::{
    Ground,
    machine::{USER, machine},
    processes, wait,
};
use nix::sys::signal::Signal;

#[test]
fn exit_statuses_pass_through() {
    let ground = Ground::new("status");
    for code in [0, 1, 3, 124, 255] {
        ground.run_shell(&format!("exit {code}")).assert_code(code);
    }
}

#[test]
fn a_signal_becomes_128_and_its_number() {
    let ground = Ground::new("signal");
    for (name, number) in [("TERM", 15), ("KILL", 9), ("SEGV", 11)] {
        let finished = ground.run_shell(&format!("kill -{name} $$")).assert_code(128 + number);
        // As a status: ana-run itself was not killed, so that it could put things in order.
        assert_eq!(finished.status.signal(), None);
    }
}

/// The exit status and the signals of an approved program are its own.
#[test]
fn an_approved_programs_status_is_its_own() {
    let ground = Ground::new("own-status");
    ground.policy(&(ground.head() + &ground.rule("allow = [[\"**\"]]")));
    let deploy = ground.deploy();
    ground.run(&[deploy.as_os_str(), "--exit=42".as_ref()]).assert_code(42);
    ground.run(&[deploy.as_os_str(), "--signal=15".as_ref()]).assert_code(143);
    ground.assert_every_run_was_decided();
}

#[test]
fn a_missing_program_is_named() {
    let ground = Ground::new("missing");
    let mut run = std::process::Command::new(machine().ana("ana-run"));
    run.args(["--user", USER, "--state"]).arg(ground.state()).args(["--", "/no/such/program"]);
    let finished = ana_tests::Session::of(run.stdin(std::process::Stdio::null())).finish();
    assert!([125, 127].contains(&finished.code()), "{}", finished.status);
    assert!(finished.stderr().contains("/no/such/program"), "{}", finished.stderr());
}

#[test]
fn streams_stay_apart_and_whole() {
    let ground = Ground::new("streams");
    let finished = ground.run_shell("head -c 3000000 /dev/zero; echo aside >&2").assert_code(0);
    assert_eq!(finished.stdout.len(), 3_000_000);
    assert!(finished.stdout.iter().all(|byte| *byte == 0));
    assert!(finished.stderr().lines().any(|line| line == "aside"), "{}", finished.stderr());
    assert!(!finished.stdout().contains("aside"));
}

#[test]
fn stdin_reaches_the_command() {
    let ground = Ground::new("stdin");
    let mut session = ground.launch(&["wc", "-c"]).start_listening();
    for _ in 0..1000 {
        session.say(&"x".repeat(999));
    }
    session.finish().assert_code(0).assert_stdout("1000000");
}

#[test]
fn a_closed_reader_ends_the_writer() {
    let ground = Ground::new("closed");
    let script = format!(
        "'{}' --user {USER} --state '{}' -- sh -c 'trap \"\" TERM; yes' | head -n 2",
        machine().ana("ana-run").display(),
        ground.state().display()
    );
    let shell = ana_tests::Session::of(
        std::process::Command::new("bash").args(["-c", &script]).env("ANA_TEST_GROUND", ground.root()),
    );
    let finished = shell.finish().assert_code(0);
    assert_eq!(finished.stdout(), "y\ny\n");
}

#[test]
fn the_surroundings_are_the_persons() {
    let ground = Ground::new("surroundings");
    let mut launch =
        ground.launch(&["sh", "-c", "pwd; umask; id -u; id -un; echo var=$FROM_OUTSIDE; ulimit -n"]);
    launch.command().env("FROM_OUTSIDE", "kept");
    let finished = launch.start().finish().assert_code(0);
    let said = finished.stdout();
    assert!(said.contains(ground.home().to_str().expect("UTF-8")), "{said}");
    assert!(said.contains(&machine().uid.to_string()) && said.contains(USER), "{said}");
    assert!(said.contains("0022") && said.contains("var=kept"), "{said}");
}

#[test]
fn the_agent_is_unprivileged() {
    let ground = Ground::new("unprivileged");
    let script =
        "id -G; grep -E 'CapEff|CapBnd|NoNewPrivs|Seccomp:' /proc/self/status; ls -l /proc/self/fd | wc -l";
    let finished = ground.run_shell(script).assert_code(0);
    let said = finished.stdout();
    assert_eq!(said.lines().next(), Some(machine().gid.to_string().as_str()), "{said}");
    assert!(said.contains("CapEff:\t0000000000000000"), "{said}");
    assert!(said.contains("NoNewPrivs:\t0"), "sudo must work: {said}");
    assert!(said.contains("Seccomp:\t2"), "{said}");
    let bounding =
        said.split("CapBnd:\t").nth(1).and_then(|rest| u64::from_str_radix(rest.lines().next()?, 16).ok());
    // SYS_MODULE 16, SYS_RAWIO 17, SYS_PTRACE 19, SYS_ADMIN 21, SYS_BOOT 22, MKNOD 27, SYSLOG 34, PERFMON 38, BPF 39.
    for capability in [16, 17, 19, 21, 22, 27, 34, 38, 39] {
        assert_eq!(
            bounding.expect("CapBnd") >> capability & 1,
            0,
            "capability {capability} is bounded: {said}"
        );
    }
}

/// Scripts write to /dev/stderr and read /dev/stdin by name.
#[test]
fn the_streams_can_be_opened_by_name() {
    let ground = Ground::new("by-name");
    let script = "cat /dev/stdin; echo out > /dev/stdout; echo err > /dev/stderr; echo fd >> /proc/self/fd/1";
    let mut session = ground.launch(&["sh", "-c", script]).start_listening();
    session.say("in");
    let finished = session.finish().assert_code(0);
    assert_eq!(finished.stdout(), "in\nout\nfd\n");
    assert!(finished.stderr().lines().any(|line| line == "err"), "{}", finished.stderr());
}

/// SIGINT and SIGTERM to `ana-run` are the command's, when no terminal brings them.
#[test]
fn signals_are_forwarded() {
    let ground = Ground::new("forward");
    for (signal, word) in [(Signal::SIGINT, "INT"), (Signal::SIGTERM, "TERM")] {
        let script =
            format!("trap 'echo got {word}; exit 9' {word}; echo ready; while :; do sleep 0.05; done");
        let session = ground.start(&["sh", "-c", &script]);
        session.until_stdout("ready");
        session.signal(signal);
        session.finish().assert_code(9).assert_stdout(&format!("got {word}"));
    }
}

/// When the command ends, so does everything that it left behind.
#[test]
fn nothing_outlives_the_session() {
    let ground = Ground::new("outlive");
    let script = "setsid sh -c 'echo pid=$$ > pid; exec sleep 500' >/dev/null 2>&1 &
        while [ ! -s pid ]; do sleep 0.01; done; cat pid";
    let finished = ground.run_shell(script).assert_code(0);
    let said = finished.stdout();
    let pid = said.lines().find_map(|line| line.strip_prefix("pid=")?.parse().ok()).expect("a pid");
    wait::until_within(wait::SOON, "the left process is dead", || (!processes::alive(pid)).then_some(()));
    let session =
        ground.records_of("session-start")[0].payload["session"].as_str().expect("an id").to_owned();
    wait::until("the cgroups are gone", || ana_tests::ground::cgroups_of(&session).is_empty().then_some(()));
}
