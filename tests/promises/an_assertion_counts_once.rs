//! Real signatures of the enrolled passkey that were made for something else: another operation, session, host, boot,
//! relying party or origin. Each is refused with its reason, and the question stays open.

use ana_supervisor::{
    api::{
        client::{Client, ClientError},
        wire::{Reply, Request},
    },
    approval::{
        Assertion,
        authenticator::{self, Authenticator, Options},
        software::SoftwarePasskey,
    },
    operation::{Operation, Verify},
};
use ana_tests::{Ground, answers::Question, machine::path_str, records::Record, wait};

/// A client that sends what it likes.
struct Forger<'a> {
    ground: &'a Ground,
    client: Client,
}

impl<'a> Forger<'a> {
    fn of(ground: &'a Ground, question: &Question) -> Self {
        let socket = ground.state().join("run").join(format!("{}.sock", question.session));
        Self { ground, client: Client::connect(&socket).expect("the session answers") }
    }

    fn show(&mut self, id: &str) -> Options {
        let reply = self.client.ask(&Request::Show { id: id.to_owned() }).expect("it is shown");
        let Reply::Question { options, .. } = reply else { panic!("{reply:?}") };
        *options
    }

    /// A signature by bob's own key over this operation, whatever it is.
    fn sign(&self, operation: &Operation, rp_id: &str, origin: &str) -> Assertion {
        let path = self.ground.root().join("keys").join(format!("{}.key", rp_id.replace([':', '/'], "-")));
        let text = std::fs::read_to_string(self.ground.key()).expect("the key");
        let mut file: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        file["rp_id"] = rp_id.into();
        self.ground.write(
            path_str(path.strip_prefix(self.ground.root()).expect("inside")),
            0o600,
            &file.to_string(),
        );
        let ask = Box::new(|| Err(std::io::Error::other("it has no passphrase")));
        let mut key = SoftwarePasskey::open(&path, ask).expect("bob's key");
        let id = key.key_file().credential_id().to_owned();
        let challenge = operation.challenge().expect("a challenge");
        let request =
            authenticator::Request { challenge, rp_id, origin, allowed: vec![&id], verify: Verify::Presence };
        key.sign(&request).expect("it signs")
    }

    #[track_caller]
    fn is_refused(&mut self, id: &str, assertion: &Assertion, why: &str) {
        let request = Request::Sign { id: id.to_owned(), assertion: assertion.clone() };
        match self.client.ask(&request) {
            Err(ClientError::Refused(said)) => assert!(said.contains(why), "{said}"),
            other => panic!("not refused: {other:?}"),
        }
    }
}

/// What an approval leaves in the evidence, for everybody who can read it.
fn recorded(record: &Record) -> Assertion {
    let part = |name: &str| record.payload["assertion"][name].as_str().expect("a part").to_owned();
    Assertion {
        credential_id: part("credential_id"),
        authenticator_data: part("authenticator_data"),
        client_data_json: part("client_data_json"),
        signature: part("signature"),
    }
}

const ANOTHER: &str = "the signed challenge is not this operation's";

#[test]
fn for_one_operation_only() {
    let ground = Ground::new("replay");
    let script = format!("{0} same; {0} same", ground.deploy().display());
    let mut session = ground.start(&["sh", "-c", &script]);
    let first = ground.question_of(&mut session);
    ground.approve(&first.id);
    let second =
        wait::until("the second question", || ground.pending(1).into_iter().find(|q| q.id != first.id));
    let replayed = recorded(&ground.decisions()[0]);
    let mut forger = Forger::of(&ground, &second);
    forger.is_refused(&second.id, &replayed, ANOTHER);
    forger.show(&second.id);
    forger.is_refused(&second.id, &replayed, ANOTHER);
    forger.is_refused(&first.id, &replayed, "already decided");
    assert_eq!(ground.markers().len(), 1);
    ground.approve(&second.id);
    session.finish().assert_code(0);
    ground.assert_every_run_was_decided();
    ground.verify();
}

#[test]
fn in_one_session_only() {
    let ground = Ground::new("replay-session");
    let mut sessions = [(); 2].map(|()| ground.start(&[ground.deploy().as_os_str(), "same".as_ref()]));
    let all = wait::until("both questions", || {
        assert!(!sessions.iter_mut().any(ana_tests::Session::ended), "one ended early");
        Some(ground.pending(1)).filter(|all| all.len() == 2)
    });
    let mut forgers = [Forger::of(&ground, &all[0]), Forger::of(&ground, &all[1])];
    let options = [forgers[0].show(&all[0].id), forgers[1].show(&all[1].id)];
    let for_first = forgers[0].sign(&options[0].operation, &options[0].rp_id, &options[0].origin);
    forgers[1].is_refused(&all[1].id, &for_first, ANOTHER);
    forgers[1].is_refused(&all[0].id, &for_first, "no operation");
    ground.assert_never_ran();
    // It was a good one: where it belongs, it counts.
    let request = Request::Sign { id: all[0].id.clone(), assertion: for_first };
    assert!(matches!(forgers[0].client.ask(&request), Ok(Reply::Done)));
    wait::until("it runs", || (ground.markers().len() == 1).then_some(()));
    ground.approve(&all[1].id);
    for session in sessions {
        session.finish().assert_code(0);
    }
    ground.assert_every_run_was_decided();
    ground.verify();
}

#[test]
fn on_one_host_and_boot_only() {
    let ground = Ground::new("replay-host");
    let mut session = ground.start(&[ground.deploy()]);
    let question = ground.question_of(&mut session);
    let mut forger = Forger::of(&ground, &question);
    let Options { operation, rp_id, origin, .. } = forger.show(&question.id);
    let changes: [fn(&mut Operation); 4] = [
        |operation| operation.boot_id = "5a0b6c1e-1f0e-4b7a-9a55-0c1d2e3f4a5b".into(),
        |operation| operation.host.push_str("-elsewhere"),
        |operation| operation.session = "01J8ZQ4T00000000000000000S".into(),
        |operation| operation.expires_at = "2099-01-01T00:00:00.000Z".into(),
    ];
    for change in changes {
        let mut other = operation.clone();
        change(&mut other);
        let assertion = forger.sign(&other, &rp_id, &origin);
        forger.is_refused(&question.id, &assertion, ANOTHER);
    }
    for elsewhere in ["ana:elsewhere", "ana:localhost"] {
        let assertion = forger.sign(&operation, elsewhere, &origin);
        forger.is_refused(&question.id, &assertion, "the authenticator signed for another relying party");
    }
    for elsewhere in ["ana:elsewhere", "http://localhost"] {
        let assertion = forger.sign(&operation, &rp_id, elsewhere);
        forger.is_refused(&question.id, &assertion, "the client data's origin is");
    }
    ground.assert_never_ran();
    assert_eq!(ground.pending(0).len(), 1, "the question is still open");
    let assertion = forger.sign(&operation, &rp_id, &origin);
    let request = Request::Sign { id: question.id.clone(), assertion };
    assert!(matches!(forger.client.ask(&request), Ok(Reply::Done)));
    session.finish().assert_code(0);
    ground.assert_every_run_was_decided();
    ground.verify();
}
