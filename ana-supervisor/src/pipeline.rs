//! The whole story of one operation, top to bottom: held, judged, decided, recorded, resumed.
//!
//! Each stage takes the last one's answer by value, so that none can be skipped: `Held → Judged → Decided → Recorded →
//! Ticket`. Only what is on the disk can become a ticket.

mod connect;
mod passed;
mod records;
mod refusals;

use std::{
    collections::HashMap,
    os::fd::AsFd,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::json;

use self::records::outcome;
pub use self::records::unwritten;
pub use crate::gate::chain;
use crate::{
    approval::{Decided, Desk, Judged, Likeness, Reason},
    evidence::{Event, Recorded, Store, Writer},
    gate::{
        Ticket,
        exec::{Arrival, ExecGate, GateError, Held, Subject, answerer::Blocked},
        process,
        recent::Recent,
        tell::Refusal,
    },
    operation::{self, Kind, Operation, Requester},
    policy::{Action, Policy, Verdict},
    sys,
};

/// The largest operation (its canonical form, in bytes) that is put before a person. Nobody can read more, and what
/// cannot be read cannot be approved.
const SHOWN_MAX: usize = 256 << 10;
/// The largest operation that is recorded, asked about or not: some 2 MiB of arguments, the kernel's usual limit.
const RECORDED_MAX: usize = 16 << 20;

/// Everything a session's operations pass through.
pub struct Pipeline {
    pub session: Session,
    pub policy: Arc<Policy>,
    pub gate: Arc<ExecGate>,
    pub desk: Arc<Desk>,
    pub store: Arc<Store>,
    /// For what is let through without a hold.
    writer: Arc<Writer>,
    /// Approved processes whose end will be reported, by pid.
    running: Mutex<HashMap<u32, Running>>,
    /// The refused opens that were written down a moment ago.
    folded: Mutex<Recent<String>>,
    /// Says that the session has to end, and why.
    fatal: tokio::sync::mpsc::UnboundedSender<String>,
}

/// A process that was approved, or its end when that was reported first.
enum Running {
    Approved(Recorded),
    Ended(i32),
}

/// What is the same in every operation of a session.
#[derive(Clone, Debug)]
pub struct Session {
    pub id: String,
    pub host: String,
    pub boot_id: String,
    pub uid: u32,
}

impl Pipeline {
    pub fn new(
        session: Session,
        policy: Arc<Policy>,
        gate: Arc<ExecGate>,
        desk: Arc<Desk>,
        writer: Writer,
        store: Arc<Store>,
        fatal: tokio::sync::mpsc::UnboundedSender<String>,
    ) -> Self {
        let (running, writer) = (Mutex::default(), Arc::new(writer));
        let folded = Mutex::new(Recent::new(records::FOLD));
        Self { session, policy, gate, desk, writer, store, running, folded, fatal }
    }

    /// One event of the gate, from the kernel's stop to the end of it.
    pub async fn run(self: Arc<Self>, blocked: Blocked) {
        let pid = blocked.pid;
        if let Err(error) = self.handle(blocked).await {
            // The operation has been denied by now: by the kernel's answer, or by a kill.
            tracing::warn!(%pid, error = &error as &dyn std::error::Error, "an operation was refused");
            let why = chain(&error);
            if self.is_news(&why) {
                self.note(Event::Tamper, json!({ "pid": pid.as_raw(), "refused": why })).await;
            }
        }
    }

    async fn handle(self: &Arc<Self>, blocked: Blocked) -> Result<(), GateError> {
        let blocked = match self.deny_at_once(blocked).await? {
            Some(blocked) => blocked,
            None => return Ok(()),
        };
        let arrival =
            if blocked.exec { self.gate.hold(blocked).await? } else { self.gate.open(blocked).await? };
        let mut held = match arrival {
            Arrival::Held(held) => *held,
            Arrival::Refused(blocked, error) => return self.refuse_open(blocked, &error).await,
            Arrival::Passed => return Ok(()),
        };
        let judged = match self.judge(&mut held).await {
            Ok(judged) => judged,
            Err(error) => {
                held.refuse(Refusal::unjudged("exec".to_owned(), error.to_string())).await;
                return Err(error);
            }
        };
        let decided = self.decide(judged, &held).await?;
        let recorded = match self.record(decided).await {
            Ok(recorded) => recorded,
            Err((operation, why)) => {
                held.refuse(Refusal::of(&operation, why.clone())).await;
                // What cannot be proven does not happen; and a session that cannot write evidence does nothing more.
                tracing::error!(why, "a decision could not be recorded: the operation is denied");
                return Ok(());
            }
        };
        match Ticket::from_recorded(recorded) {
            Ok(ticket) => self.resume(held, ticket).await,
            Err(recorded) => {
                let decided = recorded.decided();
                held.refuse(Refusal::of(decided.operation(), decided.reason().to_string())).await;
                Ok(())
            }
        }
    }

    async fn resume(&self, held: Held, ticket: Ticket) -> Result<(), GateError> {
        let pid = held.pid.as_raw().unsigned_abs();
        let operation = Arc::clone(ticket.recorded().decided().operation());
        if let Some(gain) = held.gain.as_ref().filter(|gain| gain.reaches_root()) {
            let detail = json!({
                "operation_id": operation.id, "pid": pid, "euid": gain.euid(), "egid": gain.egid(),
                "capabilities": gain.capabilities(),
            });
            if let Err(why) = self.try_note(Event::RootReached, detail).await {
                held.refuse(Refusal::of(&operation, why)).await;
                return Ok(());
            }
        }
        match held.resume(ticket).await {
            Ok(None) => Ok(()),
            Ok(Some(recorded)) => {
                let earlier = self.lock(&self.running).remove(&pid);
                match earlier {
                    Some(Running::Ended(status)) => {
                        drop(self.append(recorded.outcome(outcome(status))).await)
                    }
                    Some(Running::Approved(before)) => {
                        // The process executed another protected program: its end will be that one's.
                        let detail = json!({ "replaced_by": operation.id });
                        self.lock(&self.running).insert(pid, Running::Approved(recorded));
                        drop(self.append(before.outcome(detail)).await);
                    }
                    None => {
                        self.lock(&self.running).insert(pid, Running::Approved(recorded));
                    }
                }
                Ok(())
            }
            Err(error) => {
                let detail = json!({ "operation_id": operation.id, "outcome": chain(&error) });
                self.note(Event::Outcome, detail).await;
                Err(error)
            }
        }
    }

    /// An exec that is denied whatever its arguments are never happens: the caller's execve(2) fails with EPERM. Gives the
    /// event back if it is none.
    async fn deny_at_once(&self, blocked: Blocked) -> Result<Option<Blocked>, GateError> {
        let denied = match self.gate.common.protected.find(&blocked.file) {
            Some((_, file)) if blocked.exec && !file.listed.is_empty() => {
                self.policy.denies_always(&file.paths())
            }
            _ => None,
        };
        let Some(verdict) = denied else { return Ok(Some(blocked)) };
        let caller = self.gate.describe(&blocked).await?;
        let judged = self.judged(verdict, &caller)?;
        let Ok(decided) = Decided::by_rule(judged) else { return Ok(Some(blocked)) };
        let (operation, why) = match self.record(decided).await {
            Ok(recorded) => {
                (Arc::clone(recorded.decided().operation()), recorded.decided().reason().to_string())
            }
            Err(unrecorded) => unrecorded,
        };
        self.gate.teller.tell(Arc::clone(&blocked.process), Refusal::of(&operation, why)).await;
        drop(blocked);
        Ok(None)
    }

    /// The policy's verdict on a held operation, and the operation as it will be shown, signed and recorded.
    async fn judge(&self, held: &mut Held) -> Result<Judged, GateError> {
        let baseline = self.gate.common.baseline.borrow().clone().ok_or(GateError::Ended)?;
        let mut verdict = self.verdict(held);
        let hooks = process::changed_hooks(&held.subject.image.environment, &baseline);
        let apart = &held.subject.image.foreign_namespaces;
        let but = match (hooks.is_empty(), apart.is_empty()) {
            (true, true) => None,
            (false, _) => Some(format!("the environment sets {}", hooks.join(", "))),
            (true, false) => Some(format!("it is in another namespace ({})", apart.join(", "))),
        };
        if let (Action::Allow, Some(but)) = (verdict.action, but) {
            // Harmless arguments mean nothing to a program that the environment makes run other code, or that finds
            // other files where it looks for its own.
            let rule = self.policy.exec_rules().iter().find(|rule| rule.name() == verdict.rule);
            verdict.action = match rule.map(crate::policy::ExecRule::otherwise) {
                Some(Action::Deny) => Action::Deny,
                Some(Action::Allow | Action::Approve) | None => Action::Approve,
            };
            verdict.because = format!("{}, but {but}", verdict.because);
        }
        if verdict.exclusive && verdict.action != Action::Deny {
            held.stand_alone().await?;
        }
        if verdict.action == Action::Approve {
            held.look_up_arguments().await?;
        }
        self.judged(verdict, &held.subject)
    }

    fn judged(&self, verdict: Verdict, subject: &Subject) -> Result<Judged, GateError> {
        let baseline = self.gate.common.baseline.borrow().clone().ok_or(GateError::Ended)?;
        let requester = subject.image.requester.clone();
        self.judged_at(jiff::Timestamp::now(), verdict, requester, |nonce| subject.exec(nonce, &baseline))
    }

    fn judged_at(
        &self,
        now: jiff::Timestamp,
        verdict: Verdict,
        requester: Requester,
        exec: impl Fn(&str) -> operation::Exec,
    ) -> Result<Judged, GateError> {
        let kind = |nonce: &str| Kind::Exec(Box::new(exec(nonce)));
        // Salted alike for the whole session, or no two environments would be the same.
        self.judged_as(now, verdict, requester, kind, || kind(&self.session.id)).map_err(GateError::Read)
    }

    /// The operation around `kind`, which is given the nonce. `alike` is the same for those that are one question.
    fn judged_as(
        &self,
        now: jiff::Timestamp,
        mut verdict: Verdict,
        requester: Requester,
        kind: impl Fn(&str) -> Kind,
        alike: impl FnOnce() -> Kind,
    ) -> std::io::Result<Judged> {
        let nonce = nonce()?;
        let timeout = jiff::SignedDuration::try_from(verdict.timeout).unwrap_or_default();
        let operation = Operation {
            v: operation::VERSION,
            id: ulid::Ulid::generate().to_string(),
            host: self.session.host.clone(),
            boot_id: self.session.boot_id.clone(),
            session: self.session.id.clone(),
            uid: self.session.uid,
            rule: verdict.rule.clone(),
            policy_sha256: self.policy.sha256().to_owned(),
            issued_at: time_text(now),
            expires_at: time_text(now.saturating_add(timeout).unwrap_or(now)),
            verify: verdict.verify,
            requester,
            kind: kind(&nonce),
            nonce,
        };
        let size = operation.canonical().map(|bytes| bytes.len()).unwrap_or(usize::MAX);
        let limit = if verdict.action == Action::Approve { SHOWN_MAX } else { RECORDED_MAX };
        if size > limit {
            verdict.action = Action::Deny;
            verdict.because =
                format!("it is too large to be shown or recorded: {size} bytes, the limit is {limit}");
            return Ok(Judged { operation: Arc::new(shortened(operation)), verdict, alike: None });
        }
        let alike = match verdict.action {
            Action::Approve => Likeness::of(&verdict.rule, &alike()),
            Action::Allow | Action::Deny => None,
        };
        Ok(Judged { operation: Arc::new(operation), verdict, alike })
    }

    /// The strictest verdict on the protected files of this exec: a script may come with a protected interpreter.
    fn verdict(&self, held: &Held) -> Verdict {
        let subject = &held.subject;
        let verdicts =
            held.protected.iter().enumerate().map(|(index, file)| match (&subject.script, index) {
                (Some(script), 0) if script.opened => self.policy.judge_script(&file.paths(), None),
                (Some(_), 0) => self.policy.judge_script(&file.paths(), held.script_arguments.as_deref()),
                _ if file.listed.is_empty() => self.policy.judge_privilege(),
                _ => self.policy.judge_exec(&file.paths(), &subject.image.argv),
            });
        let strictness = |verdict: &Verdict| match verdict.action {
            Action::Allow => 0,
            Action::Approve => 1,
            Action::Deny => 2,
        };
        let verdicts: Vec<Verdict> = verdicts.collect();
        let exclusive = verdicts.iter().any(|verdict| verdict.exclusive);
        let strictest = verdicts.into_iter().max_by_key(strictness);
        let verdict = strictest.unwrap_or_else(|| self.policy.judge_exec(&[], &subject.image.argv));
        Verdict { exclusive, ..verdict }
    }

    /// What the policy decides alone, or a person does. Ends with the process, and at the deadline at the latest.
    ///
    /// # Errors
    /// There is no clock, or the desk has gone: the operation is killed.
    async fn decide(&self, judged: Judged, held: &Held) -> Result<Decided, GateError> {
        let judged = match Decided::by_rule(judged) {
            Ok(decided) => return Ok(decided),
            Err(judged) => judged,
        };
        let deadline = sys::boottime::after(judged.verdict.timeout)?;
        let id = judged.operation.id.clone();
        let mut answer = match self.desk.ask(judged, now(), deadline) {
            Ok(answer) => answer,
            Err(full) => return Ok(full),
        };
        tokio::select! {
            decided = &mut answer => return decided.map_err(|_gone| GateError::Ended),
            () = ended(held) => drop(self.desk.withdraw(&id, now())),
            _ = sys::boottime::sleep_until(deadline) => self.desk.expire(now().max(deadline)),
        }
        // Withdrawn or expired: the desk has answered, or was just being answered.
        answer.await.map_err(|_gone| GateError::Ended)
    }

    /// Puts the decision on the disk. The error carries what is needed to refuse the operation.
    async fn record(&self, decided: Decided) -> Result<Recorded, (Arc<Operation>, String)> {
        let operation = Arc::clone(decided.operation());
        if let Reason::CounterWentBack(back) = decided.reason() {
            let detail = json!({ "operation_id": operation.id, "counter_went_back": back });
            if let Err(why) = self.try_note(Event::Tamper, detail).await {
                return Err((operation, why));
            }
        }
        self.written(|store| store.record(decided)).await.map_err(|why| (operation, why))
    }

    /// Tells the process why its open fails, and writes it down (once in a while, if it is tried again and again).
    async fn refuse_open(&self, blocked: Blocked, error: &GateError) -> Result<(), GateError> {
        let path = crate::gate::files::path_of(blocked.file.as_fd())?;
        let path = operation::Bytes::from(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str())).escaped();
        let pid = blocked.pid;
        let attempt = if blocked.exec { "exec" } else { "open" };
        let mut refusal = Refusal::unjudged(format!("{attempt} {path}"), error.to_string());
        let rule = self
            .gate
            .common
            .protected
            .find(&blocked.file)
            .map(|(_, file)| self.policy.judge_exec(&file.paths(), &[]).rule);
        refusal.rule = rule.clone().unwrap_or_default();
        let id = refusal.id.clone();
        self.gate.teller.tell(Arc::clone(&blocked.process), refusal).await;
        let exe = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        let exe = operation::Bytes::from(std::os::unix::ffi::OsStrExt::as_bytes(exe.as_os_str()));
        if self.is_news(&format!("{} {path}", exe.escaped())) {
            let detail = json!({
                "operation_id": id, "attempt": attempt, "file": path, "rule": rule, "pid": pid.as_raw(),
                "exe": exe.escaped(), "refused": chain(error),
            });
            self.note(Event::Tamper, detail).await;
        }
        drop(blocked);
        Ok(())
    }

    fn fail(&self, why: &str) {
        // The receiver is gone only when the session is ending anyway.
        drop(self.fatal.send(why.to_owned()));
    }

    fn lock<'a, T>(&self, mutex: &'a Mutex<T>) -> std::sync::MutexGuard<'a, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn ended(held: &Held) {
    let waited = match held.process.try_clone() {
        Ok(process) => sys::readiness::ended(process).await,
        Err(error) => Err(error),
    };
    if let Err(error) = waited {
        tracing::warn!(?error, "the end of a held process cannot be waited for");
        std::future::pending::<()>().await;
    }
}

/// A clock that cannot be read is one that has run out.
fn now() -> u64 {
    sys::boottime::now().unwrap_or(u64::MAX)
}

fn time_text(time: jiff::Timestamp) -> String {
    format!("{time:.3}")
}

/// 128 random bits, base64url.
fn nonce() -> std::io::Result<String> {
    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
    let mut bytes = [0; 16];
    sys::process::random(&mut bytes)?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

/// An operation that is refused for its size is recorded by what identifies it, not by what makes it large.
fn shortened(mut operation: Operation) -> Operation {
    match &mut operation.kind {
        Kind::Exec(exec) => {
            exec.argv.truncate(1);
            exec.environment.changed.clear();
            exec.argument_files.clear();
            for argument in &mut exec.argv {
                argument.0.truncate(4096);
            }
        }
        Kind::Connect(connect) => shorten(connect),
        Kind::ConnectGrant(grant) => shorten(&mut grant.connect),
    }
    operation
}

fn shorten(connect: &mut operation::Connect) {
    connect.argv.truncate(1);
    for argument in &mut connect.argv {
        argument.0.truncate(4096);
    }
    connect.names.truncate(1);
    connect.alpn.clear();
}
