//! A rule that asks for a PIN: it is typed where the question is, shown nowhere, and checked by the key.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
};

use ana_tests::{
    Ground,
    keys::{self, NAME},
    machine::{has, machine},
    processes,
    skip::skipped,
    sudoers::Sudoers,
    terminal::Terminal,
};
use ana_virtual_key::{Command, Person, VirtualKey};

const RULE: &str = "verify = \"pin\"";
const PIN: &str = "90210";

/// A ground where a key with a PIN is enrolled, and a terminal on it that runs the protected program under ana.
struct Asked {
    key: VirtualKey,
    ground: Ground,
    terminal: Terminal,
}

impl Asked {
    fn new(name: &str) -> Self {
        let key = VirtualKey::builder(NAME).pin(PIN).plug().expect("a key");
        let ground = Ground::with_key(name, RULE, &key);
        let terminal = Terminal::of_root(&ground);
        terminal.line(&terminal.ana_run(&ground, &format!("{} pin", ground.deploy().display())));
        terminal.until_question();
        terminal.answer_yes();
        terminal.until_shows(&format!("PIN of {NAME} (8 tries left"));
        Self { key, ground, terminal }
    }

    /// It ran, the person was verified, and the PIN is nowhere.
    fn ran(&self) {
        self.terminal.until_shows("marker: ran pin");
        let screen = self.terminal.until_prompt();
        assert!(!screen.contains(PIN), "{screen}");
        let decision = self.ground.decisions().pop().expect("a decision");
        assert!(decision.approves() && decision.is_signed(true), "{decision:#?}");
        assert_eq!(decision.payload["detail"]["user_verified"], true);
        for record in self.ground.records() {
            assert!(!record.payload.to_string().contains(PIN), "{record:#?}");
        }
        self.ground.verify();
    }
}

#[test]
fn typed_in_the_terminal() {
    let Some(_port) = keys::port("typed_in_the_terminal") else { return };
    let asked = Asked::new("pin");
    assert!(!asked.key.is_blinking(), "not before the PIN");
    asked.terminal.line(PIN);
    asked.key.until_blinking();
    asked.ground.assert_never_ran();
    asked.key.touch();
    asked.ran();
    let with_pin =
        asked.key.seen().into_iter().rfind(|seen| seen.command == Command::GetAssertion && seen.up);
    assert_eq!(with_pin.and_then(|seen| seen.pin_protocol), Some(2), "protocol two where the key has it");
    assert_eq!(asked.key.pin_retries(), 8);
}

#[test]
fn wrong_and_then_right() {
    let Some(_port) = keys::port("wrong_and_then_right") else { return };
    let asked = Asked::new("pin-wrong");
    // What the key could not take costs no try.
    asked.terminal.line("123");
    asked.terminal.until_shows("a PIN has 4 to 63 characters");
    assert_eq!(asked.key.pin_retries(), 8);
    asked.terminal.line("11111");
    asked.terminal.until_shows("that PIN is wrong");
    asked.terminal.until_shows("7 tries left");
    assert!(!asked.key.is_blinking());
    asked.terminal.line(PIN);
    asked.key.until_blinking();
    asked.key.touch();
    asked.ran();
}

/// Three wrong ones in a row: the key wants to be unplugged; it goes on where it was. Eight in all: it is blocked, and the
/// question still stands.
#[test]
fn locked_and_blocked() {
    let Some(_port) = keys::port("locked_and_blocked") else { return };
    let Asked { mut key, ground, terminal } = Asked::new("pin-locked");
    let mut left = 8;
    while left > 0 {
        terminal.line("11111");
        left -= 1;
        match left {
            0 => {}
            5 | 2 => {
                terminal.until_shows("takes no more PINs before it was unplugged");
                key = key.unplug().plug().expect("it can be plugged in again");
                terminal.until_shows(&format!("{left} tries left"));
            }
            1 => drop(terminal.until_shows("the last try")),
            _ => drop(terminal.until_shows(&format!("{left} tries left"))),
        }
    }
    let screen = terminal.until_shows("is blocked");
    assert!(screen.contains("has to be reset"), "{screen}");
    terminal.until_question();
    assert_eq!(key.pin_retries(), 0);
    ground.assert_never_ran();
    terminal.answer_no();
    terminal.until_prompt();
    ground.assert_never_ran();
    ground.verify();
}

/// Escape takes the request back: the key goes dark, the question stands.
#[test]
fn taken_back_it_is_asked_again() {
    let Some(_port) = keys::port("taken_back_it_is_asked_again") else { return };
    let asked = Asked::new("pin-back");
    asked.terminal.press("Escape");
    asked.terminal.until_question();
    asked.terminal.answer_yes();
    asked.terminal.until_shows(&format!("PIN of {NAME}"));
    asked.terminal.line(PIN);
    asked.key.until_blinking();
    asked.terminal.press("Escape");
    asked.key.until_dark();
    asked.terminal.until_question();
    asked.ground.assert_never_ran();
    asked.terminal.answer_yes();
    asked.terminal.until_shows(&format!("PIN of {NAME}"));
    asked.terminal.line(PIN);
    asked.key.until_blinking();
    asked.key.touch();
    asked.ran();
}

/// A key without a PIN gets one where that is asked for.
#[test]
fn set_at_the_enrolment() {
    let Some(_port) = keys::port("set_at_the_enrolment") else { return };
    let key = keys::plug();
    let ground = Ground::for_keys("pin-set", RULE);
    key.person(Person::Touches);
    let terminal = Terminal::of_root(&ground);
    let ana = machine().ana("ana");
    let state = ground.state();
    let enroll =
        format!("{} --state {} passkey enroll --name bob --verify pin", ana.display(), state.display());
    terminal.line(&enroll);
    terminal.until_shows("has no PIN; choose one of at least 4 characters");
    terminal.line(PIN);
    terminal.until_shows("the new PIN once more");
    terminal.line("90211");
    terminal.until_shows("the two differ");
    terminal.line(PIN);
    terminal.until_shows("the new PIN once more");
    terminal.line(PIN);
    terminal.until_shows("enrolled the security key");
    let screen = terminal.until_prompt();
    assert!(!screen.contains(PIN) && !screen.contains("90211"), "{screen}");
    let made = key.seen().into_iter().find(|seen| seen.command == Command::MakeCredential).expect("one");
    assert!(made.pin, "{made:?}");
    ground.verify();
}

/// A finger on the key does what a PIN does.
#[test]
fn a_key_that_knows_fingers_wants_none() {
    let Some(_port) = keys::port("a_key_that_knows_fingers_wants_none") else { return };
    let key = VirtualKey::builder(NAME).uv(true).plug().expect("a key");
    let ground = Ground::with_key("pin-finger", RULE, &key);
    let (session, question) = ground.held("it");
    let approving = ground.approving(&question.id);
    approving.until_stderr("put your finger on");
    key.until_blinking();
    key.touch();
    approving.finish().assert_code(0);
    session.finish().assert_code(0);
    let decision = ground.decisions().pop().expect("a decision");
    assert!(decision.is_signed(true), "{decision:#?}");
    ground.verify();
}

#[test]
fn a_key_without_one_does_not_do() {
    let Some(_port) = keys::port("a_key_without_one_does_not_do") else { return };
    let key = keys::plug();
    let ground = Ground::with_key("pin-none", RULE, &key);
    let (session, question) = ground.held("it");
    ground.approving(&question.id).finish().assert_code(1).assert_stderr("ana passkey enroll --verify pin");
    assert!(!key.is_blinking());
    ground.deny(&question.id, "no PIN");
    session.finish().assert_code(137);
    ground.assert_never_ran();
}

/// The main job as people have it: `ana-run` and what talks to the key are the person's, who may open it by the udev rule.
#[test]
fn touched_by_a_person_in_a_terminal() {
    let Some(_port) = keys::port("touched_by_a_person_in_a_terminal") else { return };
    if !has("sudo") {
        skipped("touched_by_a_person_in_a_terminal", "no sudo");
        return;
    }
    let key = keys::plug();
    let ground = Ground::with_key("key-person", "", &key);
    let node = key.hidraw();
    // What the udev rule does.
    chown(&node, None, Some(machine().gid.as_raw())).expect("root may");
    fs::set_permissions(&node, fs::Permissions::from_mode(0o660)).expect("root may");
    let _leave = Sudoers::new();
    let terminal = Terminal::of_person(&ground);
    let before = terminal.settings("before");
    let run = format!("{} --state {}", machine().ana("ana-run").display(), ground.state().display());
    terminal.line(&format!("{run} -- {} by-hand", ground.deploy().display()));
    terminal.until_question();
    terminal.answer_yes();
    terminal.until_shows(&format!("touch {NAME}"));
    key.until_blinking();
    let helpers: Vec<i32> = processes::all()
        .into_iter()
        .filter(|pid| processes::name(*pid).as_deref() == Some("ana-key"))
        .collect();
    let [helper] = helpers.as_slice() else { panic!("{helpers:?}") };
    assert_eq!(processes::uid(*helper), Some(machine().uid.as_raw()), "it is the person's");
    ground.assert_never_ran();
    key.touch();
    terminal.until_shows("marker: ran by-hand");
    terminal.until_prompt();
    assert_eq!(terminal.settings("after"), before);
    assert!(ground.decisions().pop().is_some_and(|decision| decision.is_signed(false)));
    ground.verify();
}
