//! Security keys that are programs, plugged into this machine where it has /dev/uhid (the guests of `cargo xtask vm` do).

use std::{
    path::Path,
    process::Stdio,
    sync::{Mutex, MutexGuard, PoisonError},
};

use ana_virtual_key::{Person, VirtualKey};
use serde_json::Value;

use crate::{Finished, Ground, Session, answers::Question, skip::skipped};

/// What the virtual keys are called.
pub const NAME: &str = "ana test key";

/// The one place where keys are plugged in: every helper sees all of them, so one test at a time has any.
pub struct Port(#[expect(dead_code, reason = "it is held")] MutexGuard<'static, ()>);

/// The port, where this machine can have virtual keys; otherwise the test is skipped.
pub fn port(test: &str) -> Option<Port> {
    static TAKEN: Mutex<()> = Mutex::new(());
    if !Path::new("/dev/uhid").exists() {
        skipped(test, "no /dev/uhid here to plug a virtual key in; `cargo xtask vm` has one");
        return None;
    }
    // A test that failed has unplugged its keys all the same.
    Some(Port(TAKEN.lock().unwrap_or_else(PoisonError::into_inner)))
}

/// A key that is touched when the test does it.
#[track_caller]
pub fn plug() -> VirtualKey {
    plug_another(NAME)
}

/// One of another name.
#[track_caller]
pub fn plug_another(name: &str) -> VirtualKey {
    let key = VirtualKey::builder(name).plug().expect("a virtual key can be plugged in");
    key.person(Person::ByHand);
    key
}

impl Ground {
    /// A ground whose policy takes no software passkey; nobody is enrolled. `lines`: of the rule for `deploy`.
    pub fn for_keys(name: &str, lines: &str) -> Self {
        let ground = Self::bare(name);
        ground.policy(&format!("version = 1\n{}", ground.rule(&format!("otherwise = \"approve\"\n{lines}"))));
        ground
    }

    /// A ground where this key is enrolled as bob's.
    #[track_caller]
    pub fn with_key(name: &str, lines: &str, key: &VirtualKey) -> Self {
        let ground = Self::for_keys(name, lines);
        key.person(Person::Touches);
        ground.enroll_key("bob", &[]).assert_code(0);
        key.person(Person::ByHand);
        ground
    }

    /// `ana passkey enroll --name NAME …`, by root at no terminal.
    #[track_caller]
    pub fn enroll_key(&self, name: &str, more: &[&str]) -> Finished {
        self.enrolling(name, more).finish()
    }

    /// The same, while it goes on.
    #[track_caller]
    pub fn enrolling(&self, name: &str, more: &[&str]) -> Session {
        let mut command = self.ana(&["passkey", "enroll", "--name", name]);
        Session::of(command.args(more).stdin(Stdio::null()))
    }

    /// `ana approve ID`, by root at no terminal, while it goes on.
    #[track_caller]
    pub fn approving(&self, id: &str) -> Session {
        Session::of(self.ana(&["approve", id]).stdin(Stdio::null()))
    }

    /// A run of the protected program with this argument, held.
    #[track_caller]
    pub fn held(&self, word: &str) -> (Session, Question) {
        let mut session = self.start(&[self.deploy().as_os_str(), word.as_ref()]);
        let question = self.question_of(&mut session);
        (session, question)
    }

    /// The question is answered by a touch of this key.
    #[track_caller]
    pub fn approve_by_touch(&self, question: &Question, key: &VirtualKey) {
        let approving = self.approving(&question.id);
        key.until_blinking();
        key.touch();
        approving.finish().assert_code(0).assert_stdout("approved: ");
    }

    /// `ana passkey list --json`.
    #[track_caller]
    pub fn passkeys(&self) -> Vec<Value> {
        let output = self.ana(&["passkey", "list", "--json"]).output().expect("ana can be started");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("a JSON array")
    }
}
