//! Attacks by a key, and on the program that talks to it: a key is any USB device, and nothing that it says frees an
//! operation, ends a session, or hangs for good.

use std::{fs, os::unix::fs::PermissionsExt};

use ana_tests::{
    Ground, Session,
    keys::{self, NAME},
    machine::{USER, machine},
    processes, wait,
};
use ana_virtual_key::{Command, Fault};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// What a key can do wrong with an assertion, all of it after the touch.
const FAULTS: [Fault; 17] = [
    Fault::WrongRp,
    Fault::NotPresent,
    Fault::BadSignature,
    Fault::WrongCredentialId,
    Fault::ShortAuthenticatorData,
    Fault::TruncatedCbor,
    Fault::RandomCbor(1),
    Fault::RandomCbor(7),
    Fault::DeepNesting,
    Fault::NumberOfCredentials(1_000_000),
    Fault::NumberOfCredentials(-2_147_483_648),
    Fault::Garbage,
    Fault::HugeLength,
    Fault::ShortReport,
    Fault::WrongCommand,
    Fault::ErrorFrame(0x7f),
    Fault::Silence,
];

/// Each is an error, or goes on waiting and can be taken back; the question stays, and an honest touch answers it.
#[test]
fn no_wrong_answer_frees_an_operation() {
    let Some(_port) = keys::port("no_wrong_answer_frees_an_operation") else { return };
    let key = keys::plug();
    let ground = Ground::with_key("keys-faults", "timeout = \"30m\"", &key);
    let mut key = Some(key);
    let (session, question) = ground.held("it");
    for fault in FAULTS {
        let there = key.take().expect("plugged in");
        let mut approving = ground.approving(&question.id);
        there.until_blinking();
        there.misbehaves(fault.on(Command::GetAssertion));
        there.touch();
        let ended = wait::poll(wait::SOON, || approving.ended().then_some(()));
        if ended.is_some() {
            let finished = approving.finish();
            assert_ne!(finished.code(), 0, "{fault:?}: {}", finished.stdout());
            assert!(!finished.stderr().is_empty(), "{fault:?} is not explained");
        } else {
            drop(approving);
        }
        ground.assert_never_ran();
        assert_eq!(ground.pending(1).len(), 1, "{fault:?}: the question is gone");
        there.misbehaves(None);
        // What it still works on ends with its power.
        key = Some(there.unplug().plug().expect("it can be plugged in again"));
    }
    let key = key.expect("plugged in");
    ground.approve_by_touch(&question, &key);
    session.finish().assert_code(0);
    ground.assert_every_run_was_decided();
    ground.verify();
}

/// What makes it no key for anything, from the first question on.
const FAULTS_AT_ONCE: [Fault; 7] = [
    Fault::StatusByte(0xe0),
    Fault::StatusByte(0x2d),
    Fault::StatusByte(0x06),
    Fault::ErrorFrame(0x7f),
    Fault::RandomCbor(3),
    Fault::Silence,
    Fault::KeepaliveForever,
];

/// It is said, or waited for; when the key comes to its senses, the same request goes on.
#[test]
fn a_key_may_come_to_its_senses() {
    let Some(_port) = keys::port("a_key_may_come_to_its_senses") else { return };
    let mut key = keys::plug();
    let ground = Ground::with_key("keys-senses", "timeout = \"30m\"", &key);
    let script = format!("while read -r word; do {} $word; done", ground.deploy().display());
    let mut session = ground.launch(&["sh", "-c", &script]).start_listening();
    for fault in FAULTS_AT_ONCE {
        session.say("on");
        let question = ground.question_of(&mut session);
        key.misbehaves(fault.on(Command::GetAssertion));
        let asked = key.seen().len();
        let approving = ground.approving(&question.id);
        key.until_seen("is asked for an assertion", |seen| {
            seen.iter().skip(asked).any(|seen| seen.command == Command::GetAssertion)
        });
        let unplugged = key.unplug();
        approving.until_stderr("plug in");
        key = unplugged.plug().expect("it can be plugged in again");
        key.misbehaves(None);
        // It may have been asked before it was told to behave.
        key = key.unplug().plug().expect("it can be plugged in again");
        key.until_blinking();
        key.touch();
        approving.finish().assert_code(0);
    }
    session.hush();
    session.finish();
    assert_eq!(ground.markers().len(), FAULTS_AT_ONCE.len());
    ground.assert_every_run_was_decided();
    ground.verify();
}

/// A key that says nothing does not keep another one from answering.
#[test]
fn a_silent_key_holds_up_nobody() {
    let Some(_port) = keys::port("a_silent_key_holds_up_nobody") else { return };
    let key = keys::plug();
    let ground = Ground::with_key("keys-silent", "", &key);
    let silent = keys::plug_another("a silent one");
    silent.misbehaves(Fault::Silence);
    let (session, question) = ground.held("it");
    ground.approve_by_touch(&question, &key);
    session.finish().assert_code(0);
    drop(silent);
}

/// The helper below a client.
fn helper_of(client: &Session) -> i32 {
    wait::until("ana-key runs", || processes::below_named(client.pid(), "ana-key").first().copied())
}

/// It has its pipe and the keys, no right, no secret of the environment, and is closed to others of its user.
#[test]
fn the_helper_has_nothing_but_its_pipe_and_the_keys() {
    let Some(_port) = keys::port("the_helper_has_nothing_but_its_pipe_and_the_keys") else { return };
    let key = keys::plug();
    let ground = Ground::with_key("keys-helper", "", &key);
    let (session, question) = ground.held("it");
    let approving = ground.approving(&question.id);
    key.until_blinking();
    let helper = helper_of(&approving);
    let mut open: Vec<String> = fs::read_dir(format!("/proc/{helper}/fd"))
        .expect("root may look")
        .flatten()
        .filter_map(|fd| Some(fs::read_link(fd.path()).ok()?.display().to_string()))
        .collect();
    open.retain(|target| target != "/dev/null" && !target.starts_with("/dev/hidraw"));
    assert!(open.len() == 1 && open[0].starts_with("socket:"), "{open:?}");
    // Each of its threads: the kernel keeps rights by thread.
    let tasks: Vec<_> =
        fs::read_dir(format!("/proc/{helper}/task")).expect("root may look").flatten().collect();
    assert!(tasks.len() > 1, "one listens, one asks the key: {tasks:?}");
    for task in tasks {
        let status = fs::read_to_string(task.path().join("status")).expect("it runs");
        for line in
            ["NoNewPrivs:\t1", "CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "Seccomp:\t2"]
        {
            assert!(status.contains(line), "{line:?} is not in {status}");
        }
    }
    let helper_id = Pid::from_raw(helper);
    assert_eq!(nix::unistd::getsid(Some(helper_id)), Ok(helper_id), "it has no terminal");
    assert_eq!(fs::read(format!("/proc/{helper}/environ")).expect("root may look"), b"");
    // Not dumpable: its files in /proc are root's.
    let peek = ground.without_ana(&["cat".to_owned(), format!("/proc/{helper}/maps")]).output().expect("cat");
    assert!(!peek.status.success() || peek.stdout.is_empty(), "{USER} can look into it");
    key.touch();
    approving.finish().assert_code(0);
    session.finish().assert_code(0);
}

/// Only ana-key is linked with what takes keys' words apart.
#[test]
fn no_other_program_has_the_library() {
    let linked = |name: &str| {
        let bytes = fs::read(machine().ana(name)).expect("it is installed");
        let has = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
        has(b"libudev.so") || has(b"ctap-hid-fido2")
    };
    assert!(linked("ana-key"));
    for name in ["ana", "ana-run", "ana-supervisor"] {
        assert!(!linked(name), "{name} has it");
    }
}

/// Its client is killed: the key goes dark.
#[test]
fn a_killed_client_leaves_no_blinking_key() {
    let Some(_port) = keys::port("a_killed_client_leaves_no_blinking_key") else { return };
    let key = keys::plug();
    let ground = Ground::with_key("keys-killed", "", &key);
    let (session, question) = ground.held("it");
    let approving = ground.approving(&question.id);
    key.until_blinking();
    approving.signal(Signal::SIGKILL);
    key.until_dark();
    approving.finish();
    assert_eq!(ground.pending(1).len(), 1, "the question stays");
    ground.approve_by_touch(&question, &key);
    session.finish().assert_code(0);
}

/// The helper is killed: that is said, and the question stays.
#[test]
fn a_killed_helper_is_an_error_message() {
    let Some(_port) = keys::port("a_killed_helper_is_an_error_message") else { return };
    let key = keys::plug();
    let ground = Ground::with_key("keys-helper-killed", "", &key);
    let (session, question) = ground.held("it");
    let approving = ground.approving(&question.id);
    key.until_blinking();
    kill(Pid::from_raw(helper_of(&approving)), Signal::SIGKILL).expect("root may");
    approving.finish().assert_code(1).assert_stderr("ana-key has ended");
    ground.assert_never_ran();
    // The key was not told: it is asked again when it has given up, or at once when it was pulled out.
    let key = key.unplug().plug().expect("it can be plugged in again");
    ground.approve_by_touch(&question, &key);
    session.finish().assert_code(0);
}

/// Stopped instead, it can neither answer nor end by itself: whoever gives up kills it.
#[test]
fn a_stopped_helper_is_killed() {
    let Some(_port) = keys::port("a_stopped_helper_is_killed") else { return };
    let key = keys::plug();
    let ground = Ground::with_key("keys-helper-stopped", "", &key);
    let (session, question) = ground.held("it");
    let approving = ground.approving(&question.id);
    key.until_blinking();
    let helper = helper_of(&approving);
    kill(Pid::from_raw(helper), Signal::SIGSTOP).expect("root may");
    ground.deny(&question.id, "somebody else was faster");
    approving.finish().assert_code(1);
    wait::until("the helper is gone", || (!processes::alive(helper)).then_some(()));
    session.finish().assert_code(137);
}

#[test]
fn a_person_without_the_right_to_the_key_is_told() {
    let Some(_port) = keys::port("a_person_without_the_right_to_the_key_is_told") else { return };
    let key = keys::plug();
    fs::set_permissions(key.hidraw(), fs::Permissions::from_mode(0o600)).expect("root may");
    let ground = Ground::bare("keys-right");
    let doctor = || {
        let ana = machine().ana("ana");
        let output = ground.without_ana(&[ana.as_os_str(), "doctor".as_ref(), "--json".as_ref()]).output();
        let output = output.expect("ana can be started");
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let checks = said["checks"].as_array().expect("checks").clone();
        checks.into_iter().find(|check| check["name"] == "security-keys").expect("the line")
    };
    let found = doctor();
    assert_eq!(found["status"], "degraded", "{found}");
    assert!(found["found"].as_str().is_some_and(|text| text.contains(NAME)), "{found}");
    assert!(found["way_out"].as_str().is_some_and(|text| text.contains("udev-rule")), "{found}");
    fs::set_permissions(key.hidraw(), fs::Permissions::from_mode(0o666)).expect("root may");
    let found = doctor();
    assert_eq!(found["status"], "ok", "{found}");
}
