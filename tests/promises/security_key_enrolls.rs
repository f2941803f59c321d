//! A security key is enrolled by root, by touching it, and by touching an enrolled one once there is one; nothing else
//! enrols, and what a key does wrong enrols nothing.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    process::Stdio,
};

use ana_tests::{Ground, Session, keys, keys::NAME, machine::machine, processes, terminal::Terminal, wait};
use ana_virtual_key::{Algorithm, Command, Fault, Person, VirtualKey};

#[test]
fn by_touching_it_twice() {
    let Some(_port) = keys::port("by_touching_it_twice") else { return };
    for (algorithm, number) in [(Algorithm::Es256, -7), (Algorithm::EdDsa, -8)] {
        let key = VirtualKey::builder(NAME).algorithms(&[algorithm]).counter_from(40).plug().expect("a key");
        let ground = Ground::for_keys("keys-enroll", "");
        key.person(Person::ByHand);
        let mut enrolling = ground.enrolling("bob", &[]);
        for step in ["1 of 2", "2 of 2"] {
            enrolling.until_stderr(&format!("{step}, "));
            key.until_blinking();
            assert!(!enrolling.ended() && ground.passkeys().is_empty(), "not before it was touched");
            key.touch();
            key.until_dark();
        }
        enrolling.finish().assert_code(0).assert_stdout("enrolled the security key \"bob\"");

        let all = ground.passkeys();
        assert_eq!(all.len(), 1, "{all:#?}");
        let [passkey] = all.as_slice() else { panic!("{all:#?}") };
        assert_eq!((&passkey["kind"], &passkey["be"]), (&"security-key".into(), &false.into()));
        assert_eq!(passkey["aaguid"], "616e612d-7669-7274-7561-6c2d6b657900");
        assert_eq!(passkey["sign_count"], key.counter(), "{passkey}");
        assert_eq!(passkey["key_file"], serde_json::Value::Null);
        let made = key.seen().into_iter().find(|seen| seen.command == Command::MakeCredential).expect("one");
        assert!(
            made.rp.as_deref().is_some_and(|rp| rp.starts_with("ana:")),
            "no browser asks for it: {made:?}"
        );
        assert!(made.algorithms.contains(&number) && !made.rk, "{made:?}");
        assert!(made.extensions.iter().any(|name| name == "credProtect"), "{made:?}");

        let records = ground.records_of("enrolment");
        assert_eq!(records.len(), 1, "{records:#?}");
        let detail = &records[0].payload["detail"];
        assert_eq!(detail["attested"]["format"], "packed", "{detail}");
        assert_eq!(detail["passkey_kind"], "security-key");
        ground.verify();
    }
}

/// Only where it is asked for: a key has few places for those.
#[test]
fn as_a_resident_one_on_demand() {
    let Some(_port) = keys::port("as_a_resident_one_on_demand") else { return };
    let key = keys::plug();
    key.person(Person::Touches);
    let ground = Ground::for_keys("keys-resident", "");
    ground.enroll_key("bob", &["--resident"]).assert_code(0);
    let made = key.seen().into_iter().find(|seen| seen.command == Command::MakeCredential).expect("one");
    assert!(made.rk, "{made:?}");
}

/// Root alone does not add a second one, nor does a key that nobody enrolled.
#[test]
fn a_further_one_by_touching_an_enrolled_one() {
    let Some(_port) = keys::port("a_further_one_by_touching_an_enrolled_one") else { return };
    let first = keys::plug();
    let ground = Ground::with_key("keys-further", "", &first);
    let second = keys::plug_another("the second");
    // Both blink, to say which one is meant.
    let enrolling = ground.enrolling("carol", &[]);
    first.until_blinking();
    second.until_blinking();
    second.touch();
    first.until_dark();
    for _ in 0..2 {
        second.until_blinking();
        assert!(!first.is_blinking());
        second.touch();
        second.until_dark();
    }
    enrolling.until_stderr("3 of 3, an enrolled key approves");
    first.until_blinking();
    assert!(!second.is_blinking(), "a new key does not approve itself");
    first.deny();
    enrolling.finish().assert_code(1).assert_stderr("denied at the key");
    assert_eq!(ground.passkeys().len(), 1);

    let enrolling = ground.enrolling("carol", &["--approver", "anatest"]);
    first.until_blinking();
    second.until_blinking();
    for _ in 0..3 {
        second.until_blinking();
        second.touch();
        second.until_dark();
    }
    enrolling.until_stderr("3 of 3, an enrolled key approves");
    first.until_blinking();
    first.touch();
    enrolling.finish().assert_code(0).assert_stdout("of anatest, authorised by bob");
    assert_eq!(ground.passkeys().len(), 2);
    let record = ground.records_of("enrolment").pop().expect("one");
    assert_eq!(record.payload["detail"]["authorised_by"], "bob", "{record:#?}");

    ground.verify();
}

/// A copy of the key that approves: nobody is enrolled, and it is on record.
#[test]
fn not_by_a_key_whose_counter_goes_back() {
    let Some(_port) = keys::port("not_by_a_key_whose_counter_goes_back") else { return };
    let first = VirtualKey::builder(NAME).counter_from(500).plug().expect("a key");
    let ground = Ground::with_key("keys-copied", "", &first);
    let seen = first.counter();
    first.set_counter(3);
    let second = keys::plug_another("the second");
    let enrolling = ground.enrolling("carol", &[]);
    for key in [&second, &second, &second, &first] {
        key.until_blinking();
        key.touch();
        key.until_dark();
    }
    enrolling.finish().assert_code(1).assert_stderr("did not grow");
    assert_eq!(ground.passkeys().len(), 1);
    assert_eq!(ground.records_of("enrolment").len(), 1);
    let tamper = ground.records_of("tamper").pop().expect("a record of it");
    let back = &tamper.payload["detail"]["counter_went_back"];
    assert_eq!((&back["passkey"], &back["stored"]), (&"bob".into(), &seen.into()), "{back}");
    ground.verify();
}

/// People take their time to enroll somebody; approvals go on meanwhile.
#[test]
fn an_enrolment_holds_up_no_approval() {
    let Some(_port) = keys::port("an_enrolment_holds_up_no_approval") else { return };
    let key = keys::plug();
    let ground = Ground::with_key("keys-meanwhile", "", &key);
    let terminal = Terminal::of_root(&ground);
    let (ana, state) = (machine().ana("ana"), ground.state());
    terminal.line(&format!(
        "{} --state {} passkey enroll --name carol --passphrase --software {}",
        ana.display(),
        state.display(),
        ground.key().display()
    ));
    terminal.until_shows("New passphrase");
    let (session, question) = ground.held("meanwhile");
    ground.approve_by_touch(&question, &key);
    session.finish().assert_code(0).assert_stdout("marker: ran meanwhile");
    terminal.press("C-c");
    ground.verify();
}

/// Under sudo only the list is root's business: what talks to the key is the person's, who may open it or not.
#[test]
fn under_sudo_the_person_talks_to_the_key() {
    let Some(_port) = keys::port("under_sudo_the_person_talks_to_the_key") else { return };
    let key = keys::plug();
    let ground = Ground::for_keys("keys-sudo", "");
    let user = machine().uid.to_string();
    let enrolling = || {
        let mut command = ground.ana(&["passkey", "enroll", "--name", "bob", "--approver", "root"]);
        Session::of(command.env("SUDO_UID", &user).stdin(Stdio::null()))
    };
    let refused = enrolling();
    refused.until_stderr("may not be opened by this user");
    drop(refused);
    assert!(key.seen().is_empty(), "{:#?}", key.seen());
    // What the udev rule does.
    chown(key.hidraw(), None, Some(machine().gid.as_raw())).expect("root may");
    fs::set_permissions(key.hidraw(), fs::Permissions::from_mode(0o660)).expect("root may");
    let enrolling = enrolling();
    key.until_blinking();
    let helper =
        wait::until("ana-key runs", || processes::below_named(enrolling.pid(), "ana-key").first().copied());
    assert_eq!(processes::uid(helper), Some(machine().uid.as_raw()));
    for _ in 0..2 {
        key.until_blinking();
        key.touch();
        key.until_dark();
    }
    enrolling.finish().assert_code(0);
    assert_eq!(ground.passkeys().len(), 1);
}

/// Ctrl-C makes the key dark and gives the terminal back.
#[test]
fn it_can_be_taken_back() {
    let Some(_port) = keys::port("it_can_be_taken_back") else { return };
    let key = VirtualKey::builder(NAME).pin("90210").plug().expect("a key");
    key.person(Person::ByHand);
    let ground = Ground::for_keys("keys-back", "");
    let terminal = Terminal::of_root(&ground);
    let before = terminal.settings("before");
    let line =
        format!("{} --state {} passkey enroll", machine().ana("ana").display(), ground.state().display());
    terminal.line(&format!("{line} --name bob --verify pin; echo status=$?"));
    terminal.until_shows("PIN of");
    terminal.keys("902");
    terminal.press("C-c");
    terminal.until_shows("status=1");
    assert_eq!(terminal.settings("after"), before);
    terminal.line("clear");
    terminal.line(&format!("{line} --name bob --verify pin; echo status=$?"));
    terminal.until_shows("PIN of");
    terminal.line("90210");
    key.until_blinking();
    terminal.press("C-c");
    key.until_dark();
    terminal.until_shows("status=1");
    assert_eq!(terminal.settings("again"), before);
    assert!(ground.passkeys().is_empty());
}

#[test]
fn one_key_has_one_passkey_of_a_host() {
    let Some(_port) = keys::port("one_key_has_one_passkey_of_a_host") else { return };
    let key = keys::plug();
    let ground = Ground::with_key("keys-twice", "", &key);
    let touches = key.seen().len();
    ground.enroll_key("again", &[]).assert_code(1).assert_stderr("holds a passkey of this host already");
    let asked: Vec<_> = key.seen().split_off(touches).into_iter().filter(|seen| seen.up).collect();
    assert!(asked.iter().all(|seen| seen.command != Command::MakeCredential), "{asked:#?}");
    assert_eq!(ground.passkeys().len(), 1);
}

/// Plugged in when it is asked for, and pulled out in between.
#[test]
fn whenever_it_is_plugged_in() {
    let Some(_port) = keys::port("whenever_it_is_plugged_in") else { return };
    let ground = Ground::for_keys("keys-plug", "");
    let enrolling = ground.enrolling("bob", &[]);
    enrolling.until_stderr("plug in the security key");
    let key = keys::plug();
    key.person(Person::ByHand);
    key.until_blinking();
    let key = key.unplug();
    enrolling.until_stderr("plug in the security key");
    let key = key.plug().expect("it can be plugged in again");
    key.person(Person::Touches);
    enrolling.finish().assert_code(0);
    assert_eq!(ground.passkeys().len(), 1);
}

/// What makes an answer to authenticatorMakeCredential none.
const FAULTS: [Fault; 16] = [
    Fault::WrongRp,
    Fault::NotPresent,
    Fault::ShortAuthenticatorData,
    Fault::TruncatedCbor,
    Fault::RandomCbor(1),
    Fault::RandomCbor(2),
    Fault::DeepNesting,
    Fault::StatusByte(0xe0),
    Fault::StatusByte(0x2f),
    Fault::Garbage,
    Fault::HugeLength,
    Fault::ShortReport,
    Fault::WrongCommand,
    Fault::ErrorFrame(0x7f),
    Fault::WrongCredentialId,
    Fault::Silence,
];

/// It ends with an error, or waits for a key that works; nobody is enrolled, nothing hangs.
#[test]
fn not_by_a_key_that_misbehaves() {
    let Some(_port) = keys::port("not_by_a_key_that_misbehaves") else { return };
    let ground = Ground::for_keys("keys-hostile", "");
    for fault in FAULTS {
        let key = keys::plug();
        key.person(Person::Touches);
        key.misbehaves(fault.on(Command::MakeCredential));
        let mut enrolling = ground.enrolling("bob", &[]);
        key.until_seen("makes a credential", |seen| {
            seen.iter().any(|seen| seen.command == Command::MakeCredential)
        });
        let ended = wait::poll(wait::SOON, || enrolling.ended().then_some(())).is_some();
        drop(key);
        if !ended {
            enrolling.until_stderr("plug in the security key");
            drop(enrolling);
        } else {
            assert_ne!(enrolling.finish().code(), 0, "{fault:?}");
        }
        assert!(ground.passkeys().is_empty(), "{fault:?} was enrolled: {:#?}", ground.passkeys());
    }
    // And one that works, as if nothing had been.
    let key = keys::plug();
    key.person(Person::Touches);
    ground.enroll_key("bob", &[]).assert_code(0);
}

/// Neither the session's user nor the session has anything to do with it.
#[test]
fn never_by_an_agent() {
    let Some(_port) = keys::port("never_by_an_agent") else { return };
    let key = keys::plug();
    let ground = Ground::with_key("keys-agent", "", &key);
    key.person(Person::Touches);
    let node = key.hidraw();
    let open_to_all = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(&node, open_to_all).expect("root may");
    let asked = key.seen().len();
    let ana = ana_tests::machine::machine().ana("ana");
    let script = format!(
        "{} passkey enroll --name eve; echo enroll=$?; exec 3<>{} && echo opened || echo refused",
        ana.display(),
        node.display()
    );
    let finished = ground.run(&["bash", "-c", &script]);
    assert!(finished.stdout().contains("enroll=1"), "{}", finished.stdout());
    assert!(
        finished.stdout().contains("refused") && !finished.stdout().contains("opened"),
        "{}",
        finished.stdout()
    );
    assert_eq!(key.seen().len(), asked, "the key was asked: {:#?}", key.seen());
    assert_eq!(ground.passkeys().len(), 1);
}
