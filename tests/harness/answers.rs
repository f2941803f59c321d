//! The person at another terminal: `ana pending`, `ana approve`, `ana deny`.

use std::{
    process::Output,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use ana_supervisor::{
    api::{
        client::{Client, ClientError},
        wire::{Reply, Request},
    },
    approval::{
        authenticator::{Authenticator, Options},
        software::SoftwarePasskey,
    },
};
use serde::Deserialize;
use serde_json::Value;

use crate::{ground::Ground, records::bytes_of, session::Finished, wait};

/// One line of `ana pending --json`, exactly as it is promised to scripts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    pub id: String,
    pub session: String,
    pub kind: String,
    pub rule: String,
    pub summary: String,
    pub created_at: String,
    pub expires_at: String,
    /// How many operations like this one wait, itself included.
    pub count: usize,
    pub operation: Value,
}

impl Question {
    /// The arguments that the person is asked about, argv\[0\] first.
    pub fn argv(&self) -> Vec<Vec<u8>> {
        argv_of(&self.operation)
    }

    /// The arguments after argv\[0\], as text.
    pub fn args(&self) -> Vec<String> {
        self.argv().iter().skip(1).map(|arg| String::from_utf8_lossy(arg).into_owned()).collect()
    }

    /// The held process.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.operation["requester"]["pid"].as_i64().expect("a requester")).expect("a pid")
    }
}

/// The arguments in an operation.
pub fn argv_of(operation: &Value) -> Vec<Vec<u8>> {
    words(&operation["exec"])
}

/// The arguments, of whatever has some.
pub fn words(of: &Value) -> Vec<Vec<u8>> {
    of["argv"].as_array().expect("an exec has arguments").iter().map(bytes_of).collect()
}

impl Ground {
    /// `ana pending --json --wait SECONDS`.
    #[track_caller]
    pub fn pending(&self, seconds: u32) -> Vec<Question> {
        let output = self
            .ana(&["pending", "--json", "--wait", &seconds.to_string()])
            .output()
            .expect("ana can be started");
        assert!(output.status.success(), "ana pending: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| {
            panic!("ana pending --json: {e}\n{}", String::from_utf8_lossy(&output.stdout))
        })
    }

    /// The one question that is asked now or within the usual limit.
    #[track_caller]
    pub fn question(&self) -> Question {
        let mut all = wait::until("a question is pending", || {
            let all = self.pending(5);
            (!all.is_empty()).then_some(all)
        });
        assert!(all.len() == 1, "one question was expected: {all:#?}");
        all.remove(0)
    }

    /// The one question for so many operations that are alike, waited for.
    #[track_caller]
    pub fn question_for(&self, count: usize) -> Question {
        wait::until("one question for all", || {
            let mut all = self.pending(1);
            assert!(all.len() <= 1, "they are alike: {all:#?}");
            all.pop().filter(|question| question.count == count)
        })
    }

    /// The question of this session; panics with what the session said if it ends or none comes.
    #[track_caller]
    pub fn question_of(&self, session: &mut crate::Session) -> Question {
        self.question_of_within(session, wait::LIMIT)
    }

    /// [`Ground::question_of`] with a limit of one's own.
    #[track_caller]
    pub fn question_of_within(&self, session: &mut crate::Session, limit: Duration) -> Question {
        let deadline = Instant::now() + limit;
        loop {
            let mut all = self.pending(1);
            if all.len() == 1 {
                return all.remove(0);
            }
            assert!(all.is_empty(), "one question was expected: {all:#?}");
            let ended = session.ended();
            assert!(
                !ended && Instant::now() < deadline,
                "no question came (ended: {ended}); stdout:\n{}\nstderr:\n{}",
                session.stdout(),
                session.stderr()
            );
        }
    }

    pub fn try_approve(&self, id: &str) -> Output {
        self.ana(&["approve", id, "--software"]).arg(self.key()).output().expect("ana can be started")
    }

    /// `ana approve ID --software bob's key`.
    #[track_caller]
    pub fn approve(&self, id: &str) {
        let output = self.try_approve(id);
        assert!(output.status.success(), "ana approve: {}", String::from_utf8_lossy(&output.stderr));
    }

    pub fn try_deny(&self, id: &str, reason: &str) -> Output {
        self.ana(&["deny", id, "--reason", reason]).output().expect("ana can be started")
    }

    /// `ana deny ID --reason REASON`.
    #[track_caller]
    pub fn deny(&self, id: &str, reason: &str) {
        let output = self.try_deny(id, reason);
        assert!(output.status.success(), "ana deny: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// A person is shown the question, and thinks about it.
    #[track_caller]
    pub fn show(&self, question: &Question) -> Shown<'_> {
        let socket = self.state().join("run").join(format!("{}.sock", question.session));
        let mut client = Client::connect(&socket).expect("the session answers");
        let reply = client.ask(&Request::Show { id: question.id.clone() }).expect("it is shown");
        let Reply::Question { options, .. } = reply else { panic!("not a question: {reply:?}") };
        Shown { ground: self, client, options }
    }

    /// Nothing is asked right now.
    #[track_caller]
    pub fn assert_nothing_pending(&self) {
        let all = self.pending(0);
        assert!(all.is_empty(), "nothing should be asked: {all:#?}");
    }

    /// A person who answers every question the same way until the session ends.
    pub fn answer_all<'scope>(
        &'scope self,
        scope: &'scope std::thread::Scope<'scope, '_>,
        answer: Answer,
    ) -> Answering<'scope> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = scope.spawn(move || {
            let mut asked: Vec<Question> = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                for question in self.pending_quietly() {
                    if asked.iter().any(|known| known.id == question.id) {
                        continue;
                    }
                    // A question may be withdrawn meanwhile; its record tells how it ended.
                    match answer {
                        Answer::Approve => drop(self.try_approve(&question.id)),
                        Answer::Deny => drop(self.try_deny(&question.id, "the test denies everything")),
                    }
                    asked.push(question);
                }
            }
            asked
        });
        Answering { stop, thread: Some(thread) }
    }

    /// What is pending within a second; nothing when the session is coming or going.
    fn pending_quietly(&self) -> Vec<Question> {
        let output = self.ana(&["pending", "--json", "--wait", "1"]).output().expect("ana can be started");
        if !output.status.success() {
            return Vec::new();
        }
        serde_json::from_slice(&output.stdout).expect("ana pending prints JSON")
    }

    /// Runs a command in a session while a person answers everything the same way; the questions in order.
    #[track_caller]
    pub fn run_answered<S: AsRef<std::ffi::OsStr>>(
        &self,
        command: &[S],
        answer: Answer,
    ) -> (Finished, Vec<Question>) {
        self.answered(self.launch(command).start(), answer, Duration::from_secs(120))
    }

    /// Waits for a running session while a person answers everything the same way.
    #[track_caller]
    pub fn answered(
        &self,
        session: crate::Session,
        answer: Answer,
        limit: Duration,
    ) -> (Finished, Vec<Question>) {
        std::thread::scope(|scope| {
            let answering = self.answer_all(scope, answer);
            let finished = session.finish_within(limit);
            (finished, answering.end())
        })
    }
}

/// A question before somebody's eyes.
pub struct Shown<'a> {
    ground: &'a Ground,
    client: Client,
    options: Box<Options>,
}

impl Shown<'_> {
    /// Signs it with bob's key.
    #[track_caller]
    pub fn approve(&mut self) {
        let done = self.try_approve();
        assert!(matches!(done, Ok(Reply::Done)), "{done:?}");
    }

    /// # Errors
    /// It is over, and why.
    #[track_caller]
    pub fn try_approve(&mut self) -> Result<Reply, ClientError> {
        let key = self.ground.key();
        let no_passphrase = Box::new(|| Err(std::io::Error::other("bob's key has no passphrase")));
        let mut passkey = SoftwarePasskey::open(&key, no_passphrase).expect("bob's key");
        let assertion = passkey.assert(&self.options).expect("bob's key signs");
        let id = self.options.operation.id.clone();
        self.client.ask(&Request::Sign { id, assertion })
    }
}

/// What [`Ground::answer_all`] says to everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Approve,
    Deny,
}

/// A person answering in the background. Stops when dropped.
pub struct Answering<'scope> {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::ScopedJoinHandle<'scope, Vec<Question>>>,
}

impl Answering<'_> {
    /// Stops answering and tells what was asked.
    pub fn end(mut self) -> Vec<Question> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("ended once").join().expect("the answering thread does not panic")
    }
}

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Another order in every run; the seed is told, for whoever has to repeat it.
pub fn shuffle(questions: &mut [Question]) {
    let mut state = u64::from(std::process::id()) | 1;
    println!("seed {state}");
    for last in (1..questions.len()).rev() {
        // Marsaglia's xorshift64.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        questions.swap(last, usize::try_from(state % (last as u64 + 1)).expect("an index"));
    }
}
