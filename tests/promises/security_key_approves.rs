//! A person approves with a security key: the operation that was shown is what it signs, one touch frees one operation,
//! and whatever else the key does frees none.

use std::{io::Write, time::Duration};

use ana_tests::{Ground, keys, keys::NAME, processes, terminal::Terminal, wait};
use ana_virtual_key::{Command, Person, VirtualKey};
use nix::sys::signal::Signal;

#[test]
fn one_touch_and_it_runs() {
    let Some(_port) = keys::port("one_touch_and_it_runs") else { return };
    let key = keys::plug();
    let ground = Ground::with_key("keys-touch", "", &key);
    let (session, question) = ground.held("now");
    let approving = ground.approving(&question.id);
    approving.until_stderr(&format!("touch {NAME}"));
    key.until_blinking();
    ground.assert_never_ran();
    key.touch();
    approving.finish().assert_code(0).assert_stdout("approved: ");
    session.finish().assert_code(0).assert_stdout("marker: ran now");
    key.until_dark();

    let decisions = ground.decisions();
    let [decision] = decisions.as_slice() else { panic!("{decisions:#?}") };
    assert!(decision.approves() && decision.decided_by() == "person", "{decision:#?}");
    assert_eq!(decision.payload["detail"]["passkey_kind"], "security-key");
    assert_eq!(decision.payload["detail"]["user_verified"], false);
    assert!(decision.is_signed(false), "another library takes the assertion");
    assert!(!decision.is_signed(true), "nobody was verified");
    let asked: Vec<_> = key.seen().into_iter().filter(|seen| seen.command == Command::GetAssertion).collect();
    assert_eq!(asked.iter().filter(|seen| seen.up).count(), 2, "the enrolment's and this one: {asked:#?}");
    let passkey = ground.passkeys().remove(0);
    assert_eq!(passkey["sign_count"], key.counter());
    assert!(passkey["last_used"].is_string(), "{passkey}");
    ground.assert_every_run_was_decided();
    ground.verify();
}

/// One touch for each of them.
#[test]
fn one_touch_frees_one_operation() {
    let Some(_port) = keys::port("one_touch_frees_one_operation") else { return };
    let key = keys::plug();
    let ground = Ground::with_key("keys-each", "", &key);
    let script = format!("{0} one; {0} two", ground.deploy().display());
    let mut session = ground.start(&["sh", "-c", &script]);
    for word in ["one", "two"] {
        let question = ground.question_of(&mut session);
        assert_eq!(question.args(), [word]);
        let approving = ground.approving(&question.id);
        key.until_blinking();
        assert_eq!(ground.markers().len(), usize::from(word == "two"));
        key.touch();
        approving.finish().assert_code(0);
        session.until_stdout(&format!("marker: ran {word}"));
    }
    session.finish().assert_code(0);
    assert!(ground.decisions().iter().all(|decision| decision.is_signed(false)));
    ground.verify();
}

#[test]
fn denied_at_the_key_it_dies() {
    let Some(_port) = keys::port("denied_at_the_key_it_dies") else { return };
    let key = keys::plug();
    let ground = Ground::with_key("keys-deny", "", &key);
    let (session, question) = ground.held("no");
    let approving = ground.approving(&question.id);
    key.until_blinking();
    key.deny();
    approving.finish();
    session.finish().assert_code(137);
    ground.assert_never_ran();
    let decision = ground.decisions().pop().expect("a decision");
    assert!(decision.denies() && decision.decided_by() == "person", "{decision:#?}");
    assert!(decision.payload["detail"].to_string().contains("denied at the key"), "{decision:#?}");
    ground.verify();
}

/// The key goes dark with the question.
#[test]
fn never_touched_it_is_denied_in_time() {
    let Some(_port) = keys::port("never_touched_it_is_denied_in_time") else { return };
    let key = keys::plug();
    let ground = Ground::with_key("keys-never", "timeout = \"10s\"", &key);
    let (session, question) = ground.held("never");
    let approving = ground.approving(&question.id);
    key.until_blinking();
    session.finish().assert_code(137);
    approving.finish().assert_code(1);
    key.until_dark();
    ground.assert_never_ran();
    let decision = ground.decisions().pop().expect("a decision");
    assert!(decision.denies() && decision.decided_by() == "timeout", "{decision:#?}");
    assert!(key.seen().last().is_some_and(|seen| seen.cancelled || seen.command == Command::Cancel));
    ground.verify();
}

/// Nor does it wait for whoever asked: one that is stopped takes nothing back.
#[test]
fn it_goes_dark_in_time_whoever_asked() {
    let Some(_port) = keys::port("it_goes_dark_in_time_whoever_asked") else { return };
    let key = keys::plug();
    let ground = Ground::with_key("keys-stopped", "timeout = \"10s\"", &key);
    let (session, question) = ground.held("stopped");
    let approving = ground.approving(&question.id);
    key.until_blinking();
    approving.signal(Signal::SIGSTOP);
    key.until_dark();
    key.touch();
    session.finish().assert_code(137);
    ground.assert_never_ran();
    approving.signal(Signal::SIGCONT);
    approving.finish().assert_code(1);
}

/// Ctrl-Z takes the question from the screen, and what a touch would be for with it.
#[test]
fn it_does_not_blink_behind_a_shell() {
    let Some(_port) = keys::port("it_does_not_blink_behind_a_shell") else { return };
    let key = keys::plug();
    let ground = Ground::with_key("keys-suspended", "", &key);
    let terminal = Terminal::of_root(&ground);
    terminal.line(&terminal.ana_run(&ground, &format!("sh -c '{} behind; :'", ground.deploy().display())));
    terminal.until_question();
    terminal.answer_yes();
    key.until_blinking();
    terminal.press("C-z");
    key.until_dark();
    terminal.until_shows("Stopped");
    ground.assert_never_ran();
    terminal.line("clear");
    terminal.line("fg");
    terminal.until_question();
    assert!(!key.is_blinking(), "it was not asked again");
    terminal.answer_yes();
    key.until_blinking();
    key.touch();
    terminal.until_shows("marker: ran behind");
    ground.verify();
}

/// The process that asked is gone: nothing is left to touch the key for.
#[test]
fn it_goes_dark_when_the_operation_ends() {
    let Some(_port) = keys::port("it_goes_dark_when_the_operation_ends") else { return };
    let key = keys::plug();
    let ground = Ground::with_key("keys-ends", "", &key);
    let (session, question) = ground.held("gone");
    let approving = ground.approving(&question.id);
    key.until_blinking();
    processes::end(question.pid());
    session.finish();
    key.until_dark();
    assert_ne!(approving.finish().code(), 0);
    ground.assert_never_ran();
}

#[test]
fn pulled_out_and_plugged_in_again() {
    let Some(_port) = keys::port("pulled_out_and_plugged_in_again") else { return };
    let key = keys::plug();
    let ground = Ground::with_key("keys-unplug", "", &key);
    let key = key.unplug();
    let (session, question) = ground.held("again");
    let approving = ground.approving(&question.id);
    approving.until_stderr("plug in your security key (bob)");
    let mut key = key.plug().expect("it can be plugged in");
    for _ in 0..2 {
        key.until_blinking();
        key = key.unplug().plug().expect("it can be plugged in again");
    }
    key.until_blinking();
    key.touch();
    approving.finish().assert_code(0);
    session.finish().assert_code(0).assert_stdout("marker: ran again");
    ground.verify();
}

/// The stranger's key is told, never blinks, and signs nothing.
#[test]
fn only_an_enrolled_key_will_do() {
    let Some(_port) = keys::port("only_an_enrolled_key_will_do") else { return };
    let key = keys::plug();
    let ground = Ground::with_key("keys-stranger", "", &key);
    let key = key.unplug();
    let stranger = keys::plug_another("a stranger's");
    let count = stranger.counter();
    let (session, question) = ground.held("mine");
    let approving = ground.approving(&question.id);
    approving.until_stderr("a stranger's does not hold bob");
    let key = key.plug().expect("it can be plugged in");
    key.until_blinking();
    assert!(!stranger.is_blinking(), "{:#?}", stranger.seen());
    key.touch();
    approving.finish().assert_code(0);
    session.finish().assert_code(0);
    assert!(stranger.seen().iter().all(|seen| !seen.up), "{:#?}", stranger.seen());
    assert_eq!(stranger.counter(), count);
    ground.verify();
}

/// Two enrolled ones are plugged in: whichever is touched signs, and the other goes dark.
#[test]
fn any_of_two_enrolled_keys_will_do() {
    let Some(_port) = keys::port("any_of_two_enrolled_keys_will_do") else { return };
    let first = keys::plug();
    let ground = Ground::with_key("keys-two", "", &first);
    let second = keys::plug_another("the second");
    let enrolling = ground.enrolling("carol", &[]);
    for key in [&second, &second, &second, &first] {
        key.until_blinking();
        key.touch();
        key.until_dark();
    }
    enrolling.finish().assert_code(0);
    for (touched, other, name) in [(&second, &first, "carol"), (&first, &second, "bob")] {
        let (session, question) = ground.held(name);
        let approving = ground.approving(&question.id);
        first.until_blinking();
        second.until_blinking();
        touched.touch();
        other.until_dark();
        approving.finish().assert_code(0);
        session.finish().assert_code(0);
        let decision = ground.decisions().pop().expect("a decision");
        assert_eq!(decision.payload["detail"]["passkey"], name, "{decision:#?}");
        assert!(decision.is_signed(false));
    }
    ground.verify();
}

/// There may be two of this key: that operation is denied, and it is on record as tampering.
#[test]
fn a_counter_that_goes_back_denies() {
    let Some(_port) = keys::port("a_counter_that_goes_back_denies") else { return };
    let key = VirtualKey::builder(NAME).counter_from(500).plug().expect("a key");
    let ground = Ground::with_key("keys-copy", "", &key);
    key.person(Person::Touches);
    let seen = key.counter();
    key.set_counter(3);
    let (session, question) = ground.held("copied");
    ground.approving(&question.id).finish().assert_code(1).assert_stderr("counter did not grow");
    session.finish().assert_code(137);
    ground.assert_never_ran();
    let decision = ground.decisions().pop().expect("a decision");
    assert!(decision.denies(), "{decision:#?}");
    let tamper = ground.records_of("tamper").pop().expect("a record of it");
    let back = &tamper.payload["detail"]["counter_went_back"];
    assert_eq!((&back["passkey"], &back["stored"]), (&"bob".into(), &seen.into()));
    assert_eq!(back["found"], 5, "4 was for the question whether it holds the passkey: {back}");
    assert!(back["assertion"]["signature"].is_string(), "with the signature that proves it: {back}");

    // The key that counts on is still the one that was enrolled.
    key.set_counter(seen);
    let (session, question) = ground.held("mine");
    ground.approving(&question.id).finish().assert_code(0);
    session.finish().assert_code(0);
    ground.verify();
}

/// The library for the keys gives up after 500 keepalives, with an error that means something else.
#[test]
fn a_touch_after_a_minute_counts() {
    let Some(_port) = keys::port("a_touch_after_a_minute_counts") else { return };
    let key = keys::plug();
    let ground = Ground::with_key("keys-late", "timeout = \"5m\"", &key);
    let (session, question) = ground.held("late");
    let approving = ground.approving(&question.id);
    key.until_blinking();
    // What is promised is about time itself.
    std::thread::sleep(Duration::from_secs(55));
    key.until_blinking();
    key.touch();
    approving.finish().assert_code(0);
    session.finish().assert_code(0).assert_stdout("marker: ran late");
    let asked = key.seen().into_iter().filter(|seen| seen.command == Command::GetAssertion && seen.up);
    assert_eq!(asked.filter(|seen| seen.cancelled).count(), 1, "it was asked anew: {:#?}", key.seen());
    ground.verify();
}

/// The same for a connection: nothing was sent before the touch.
#[test]
fn a_held_connection_goes_on_after_a_touch() {
    use ana_tests::{Net, net::API};
    let Some(_port) = keys::port("a_held_connection_goes_on_after_a_touch") else { return };
    let key = keys::plug();
    let (ground, net) = (Ground::with_key("keys-connect", "", &key), Net::new("keys-connect"));
    ground.policy("version = 1\n[[connect]]\nname = \"api\"\nhost = [\"api.protected.test\"]\n");
    let url = "http://api.protected.test/by-key";
    let mut session = net.start(&ground, &["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", url]);
    let question = net.held(&ground, &mut session, 1, API).remove(0);
    let approving = ground.approving(&question.id);
    key.until_blinking();
    net.assert_untouched(API);
    key.touch();
    approving.finish().assert_code(0);
    session.finish().assert_code(0).assert_stdout("200");
    let decision = ground.connections().pop().expect("a decision");
    assert!(decision.approves() && decision.is_signed(false), "{decision:#?}");
    ground.verify();
}

/// A session that asks nothing leaves the key alone, and does nothing.
#[test]
fn an_idle_session_uses_no_processor() {
    let Some(_port) = keys::port("an_idle_session_uses_no_processor") else { return };
    let key = keys::plug();
    let ground = Ground::with_key("keys-idle", "", &key);
    let session = ground.start(&["sh", "-c", "echo up; exec sleep 1000"]);
    session.until_stdout("up");
    let asked = key.seen().len();
    let used = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", session.pid())).expect("ana-run runs");
        let fields: Vec<u64> = stat.rsplit_once(')').map_or(vec![], |(_, rest)| {
            rest.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse().ok()).collect()
        });
        fields.iter().sum::<u64>()
    };
    let before = used();
    // What is promised is about time itself.
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(used(), before, "clock ticks of ana-run in five seconds");
    assert_eq!(processes::below_named(session.pid(), "ana-key"), [0; 0], "nobody looks for keys");
    assert_eq!(key.seen().len(), asked);
}

/// From the last report of the key's answer to the first instruction of what it approved, as the key and the program see
/// it. Printed past the capture, and not judged: this machine is not the one that people have.
#[test]
fn from_the_touch_to_the_first_instruction() {
    let Some(_port) = keys::port("from_the_touch_to_the_first_instruction") else { return };
    let key = keys::plug();
    let ground = Ground::with_key("keys-latency", "", &key);
    key.person(Person::Touches);
    let script = format!("for i in $(seq 40); do {} $i; done", ground.deploy().display());
    let mut session = ground.start(&["sh", "-c", &script]);
    let mut took = Vec::new();
    for round in 1..=40 {
        let question = ground.question_of(&mut session);
        let approving = ground.approving(&question.id);
        let ran = wait::until("it runs", || ground.markers().into_iter().nth(round - 1));
        let answered = key.answered_at().expect("the key has answered");
        took.push(Duration::from_nanos(ran.at.saturating_sub(answered)));
        approving.finish().assert_code(0);
    }
    session.finish().assert_code(0);
    took.sort();
    let text = format!("touch to first instruction: p50 {:?}, the longest of 40 {:?}\n", took[20], took[39]);
    std::io::stderr().write_all(text.as_bytes()).expect("stderr takes a line");
    assert_eq!(ground.markers().len(), 40);
}
