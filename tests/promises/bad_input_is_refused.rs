//! A mistake in what ana is given ends in a clear message, and never in an unwatched agent.

use std::{
    fs,
    io::Write,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::Path,
    process::{Command, Stdio},
};

use ana_tests::{
    Finished, Ground, Session,
    machine::{USER, machine, path_str},
};

/// Tries to start a session; it must not.
#[track_caller]
fn does_not_start(ground: &Ground, words: &[&str]) -> Finished {
    let finished = ground.run(&["sh", "-c", "echo the agent runs"]).assert_code(125);
    assert!(!finished.stdout().contains("the agent runs"));
    let said = finished.stderr();
    for word in words {
        assert!(said.contains(word), "no {word:?} in:\n{said}");
    }
    assert!(!said.contains("panicked"), "{said}");
    finished
}

#[test]
fn a_policy_with_an_error() {
    let ground = Ground::new("bad-policy");
    for (text, place, word) in [
        ("version = 1\n[[exec]]\nname = \"x\"\nfiles = [\"/x\"]\n", "policy.toml:4:1", "files"),
        ("version = 1\n[[exec]\n", "policy.toml:2:", ""),
        ("version = 2\n", "policy.toml:1:", "version"),
        (
            "version = 1\n[[exec]]\nname = \"x\"\nfile = [\"/x\"]\notherwise = \"maybe\"\n",
            "policy.toml:5:",
            "maybe",
        ),
        ("version = 1\n[defaults]\ntimeout = \"soon\"\n", "policy.toml:3:", "soon"),
    ] {
        ground.policy(text);
        does_not_start(&ground, &[place, word]);
        let check =
            ground.ana(&["policy", "check"]).arg(ground.state().join("policy.toml")).output().expect("ana");
        assert_ne!(check.status.code(), Some(0), "{text}");
        assert!(String::from_utf8_lossy(&check.stderr).contains(place), "{check:?}");
    }
}

/// A self-test of the policy that fails is an error of the policy.
#[test]
fn a_policy_that_fails_its_own_test() {
    let ground = Ground::new("self-test");
    let rule = ground.rule("allow = [[\"status\"]]\notherwise = \"approve\"");
    ground.policy(&(ground.head() + &rule + "[exec.test]\nallow = [\"deploy production\"]\n"));
    does_not_start(&ground, &["policy.toml:", "deploy production"]);
}

#[test]
fn no_policy_at_all() {
    let ground = Ground::bare("no-policy");
    does_not_start(&ground, &["policy.toml"]);
}

#[test]
fn a_protected_program_that_is_not_there() {
    let ground = Ground::new("not-there");
    let rule = "[[exec]]\nname = \"gone\"\nfile = [\"/no/such/program\"]\notherwise = \"approve\"\n";
    ground.policy(&(ground.asking() + rule));
    let finished = ground.run(&["true"]);
    assert!(
        finished.stderr().contains("/no/such/program"),
        "nothing is said about it:\n{}",
        finished.stderr()
    );
    assert!([0, 125].contains(&finished.code()), "{}", finished.status);
}

/// An explicit state folder of somebody else's is for development only, and every record says so.
#[test]
fn a_state_folder_of_somebody_else() {
    let ground = Ground::new("owned");
    ground.give(&ground.state());
    let finished = ground.run(&["true"]).assert_code(0);
    assert!(finished.stderr().contains(path_str(&ground.state())), "no warning:\n{}", finished.stderr());
    let start = ground.records_of("session-start").pop().expect("a session started");
    assert!(start.payload.to_string().contains("development"), "{}", start.payload);
}

#[test]
fn a_state_folder_that_is_no_folder() {
    let ground = Ground::bare("no-folder");
    fs::remove_dir(ground.state()).expect("an empty folder");
    fs::write(ground.state(), "a file").expect("root writes");
    does_not_start(&ground, &[path_str(&ground.state())]);
}

/// At the default places everything must be root's; there is no warning, there is no session.
#[test]
fn default_places_of_somebody_else() {
    let ground = Ground::new("defaults");
    let policy = ground.asking();
    let made: Vec<&Path> = ["/etc/ana", "/var/lib/ana", "/run/ana"]
        .map(Path::new)
        .into_iter()
        .filter(|path| !path.exists())
        .collect();
    for path in &made {
        fs::create_dir(path).expect("root may");
    }
    // In a mount namespace of its own: the machine's own ana, if there is one, is not touched.
    let script = format!(
        "for d in /etc/ana /var/lib/ana /run/ana; do mount -t tmpfs -o mode=755 tmpfs $d; done
         cat > /etc/ana/policy.toml; chown {USER} /etc/ana/policy.toml
         {} --user {USER} -- sh -c 'echo the agent runs'",
        machine().ana("ana-run").display()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
    command.stdin(Stdio::piped()).env("ANA_TEST_GROUND", ground.root());
    let mut session = Session::of(&mut command);
    session.say(&policy);
    let finished = session.finish();
    for path in &made {
        fs::remove_dir(path).expect("still empty");
    }
    let finished = finished.assert_code(125);
    assert!(finished.stderr().contains("/etc/ana/policy.toml"), "{}", finished.stderr());
    assert!(!finished.stdout().contains("the agent runs"));
}

/// Root does not run an agent as root by accident.
#[test]
fn root_without_a_user() {
    let ground = Ground::new("no-user");
    let mut command = Command::new(machine().ana("ana-run"));
    command.arg("--state").arg(ground.state()).args(["--", "sh", "-c", "echo the agent runs"]);
    command.env_remove("SUDO_UID").env_remove("SUDO_USER").env_remove("SUDO_GID").stdin(Stdio::null());
    let finished = Session::of(&mut command).finish().assert_code(125).assert_stderr("--user");
    assert!(!finished.stdout().contains("the agent runs"));
}

#[test]
fn a_user_that_is_not_there() {
    let ground = Ground::new("nobody-there");
    let mut command = Command::new(machine().ana("ana-run"));
    command.args(["--user", "ana-no-such-user", "--state"]).arg(ground.state()).args(["--", "true"]);
    let finished = Session::of(command.stdin(Stdio::null())).finish().assert_code(125);
    assert!(finished.stderr().contains("ana-no-such-user"), "{}", finished.stderr());
}

/// An agent may not be root by its user's number either.
#[test]
fn a_user_that_is_root() {
    let ground = Ground::new("as-root");
    for user in ["root", "0"] {
        let mut command = Command::new(machine().ana("ana-run"));
        command.args(["--user", user, "--state"]).arg(ground.state()).args([
            "--",
            "sh",
            "-c",
            "echo the agent runs",
        ]);
        let finished = Session::of(command.stdin(Stdio::null())).finish().assert_code(125);
        assert!(!finished.stdout().contains("the agent runs"));
    }
}

/// The socket takes garbage, floods and silence without losing the question.
#[test]
fn garbage_on_the_socket() {
    let ground = Ground::new("garbage");
    let mut session = ground.start(&[ground.deploy()]);
    let question = ground.question_of(&mut session);
    let socket = fs::read_dir(ground.state().join("run"))
        .expect("the run folder")
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|end| end == "sock"))
        .expect("the session's socket");
    let mut silent = Vec::new();
    for message in
        [&b"\0\0\0\0"[..], b"{}\n", b"\xff\xff\xff\xff", b"not json\n", &[b'['; 100_000], b"{\"v\":1,"]
    {
        let mut stream = UnixStream::connect(&socket).expect("root connects");
        // The server may hang up in the middle of it.
        let sent = stream.write_all(message);
        silent.push((stream, sent.is_ok()));
    }
    let mut flood = UnixStream::connect(&socket).expect("root connects");
    let chunk = vec![b'x'; 1 << 20];
    let limit = nix::sys::time::TimeVal::new(2, 0);
    nix::sys::socket::setsockopt(&flood, nix::sys::socket::sockopt::SendTimeout, &limit).expect("a timeout");
    let flooded = (0..64).take_while(|_| flood.write_all(&chunk).is_ok()).count();
    assert!(flooded < 64, "the socket swallowed 64 MiB");
    assert_eq!(ground.pending(0).len(), 1);
    ground.assert_never_ran();
    ground.approve(&question.id);
    session.finish().assert_code(0);
    ground.assert_every_run_was_decided();
    ground.verify();
}

/// The passkey file is root's alone; a spoiled one is an error with its name, not a crash.
#[test]
fn a_spoiled_passkey_file() {
    let ground = Ground::new("spoiled-key");
    let passkeys = ground.state().join("passkeys.json");
    fs::write(&passkeys, "{\"version\":1,").expect("root writes");
    let finished = ground.run(&[ground.deploy()]);
    assert_eq!(finished.code(), 125, "{}", finished.stderr());
    assert!(finished.stderr().contains("passkeys.json"), "{}", finished.stderr());
    ground.assert_never_ran();
}

#[test]
fn a_software_key_that_others_can_read() {
    let ground = Ground::new("loose-key");
    fs::set_permissions(ground.key(), fs::Permissions::from_mode(0o644)).expect("mode");
    let mut session = ground.start(&[ground.deploy()]);
    let question = ground.question_of(&mut session);
    let answer = ground.try_approve(&question.id);
    assert_eq!(answer.status.code(), Some(1), "{answer:?}");
    assert!(String::from_utf8_lossy(&answer.stderr).contains(path_str(&ground.key())), "{answer:?}");
    ground.assert_never_ran();
}
