//! The whole story of one connection: arrived, judged, decided, recorded, dialled, over.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use serde_json::json;
use tokio::sync::oneshot;

use super::{Pipeline, chain, now, time_text};
use crate::{
    approval::{Decided, Grant, Judged, Likeness},
    evidence::Recorded,
    gate::{
        Ticket,
        connect::{
            Arrived, Asked, ConnectError, ConnectGate, Held, Passed, grants::Target, peek::Protocol,
            requester::Asker,
        },
        tell::Refusal,
    },
    operation::{self, Kind},
    policy::{Action, By, ConnectVerdict, NETWORK_RULE, Policy, Scope},
    sys,
};

/// What is to be done with a connection after one of its questions.
enum Way {
    /// Nothing protects it, or a rule allows it.
    Free,
    /// It was decided that it may go on, and that is on the disk.
    Ticket(Ticket),
    /// The client is to be told why not.
    Refused(String),
    /// Nobody is left to be told.
    Gone,
}

/// A question about a connection, with everything that a decision on it depends on.
struct Question {
    judged: Judged,
    /// What a grant has to be for to cover it. `None`: none does.
    target: Option<Target>,
    /// A grant that is signed now covers it until then, on CLOCK_BOOTTIME.
    grants_until: Option<u64>,
    /// How long an approval is kept for a client that has hung up.
    grace: Duration,
}

/// A decision, and whether somebody still waits for it.
struct Answer {
    decided: Decided,
    hung_up: bool,
}

impl Pipeline {
    /// One connection, from its arrival to its end.
    pub async fn connect(self: Arc<Self>, gate: Arc<ConnectGate>, arrived: Arrived) {
        let (mut waits, mut tickets) = (arrived.shows().await, Vec::new());
        while let Some(held) = waits {
            waits = match self.connection(&gate, held, &mut tickets).await {
                Ok(again) => again,
                Err(error) => {
                    let why = chain(&error);
                    tracing::debug!(why, "a connection has ended");
                    self.ended_with(&mut tickets, &json!({ "outcome": why })).await;
                    None
                }
            };
        }
    }

    /// Decides about what waits and lets it go on; gives back what has to be looked at once more.
    async fn connection(
        &self,
        gate: &Arc<ConnectGate>,
        mut held: Held,
        tickets: &mut Vec<Ticket>,
    ) -> Result<Option<Held>, ConnectError> {
        let before = tickets.len();
        for asked in gate.asked(&held).await {
            match self.way(gate, &mut held, asked, tickets).await? {
                Way::Free => {}
                Way::Ticket(ticket) => tickets.push(ticket),
                Way::Refused(why) => {
                    held.refuse(&why).await;
                    self.ended_with(tickets, &json!({ "outcome": "refused", "because": why })).await;
                    return Ok(None);
                }
                Way::Gone => {
                    self.ended_with(tickets, &json!({ "outcome": "the client has hung up" })).await;
                    return Ok(None);
                }
            }
        }
        let flow = match tickets.get(before..).and_then(<[Ticket]>::last) {
            Some(ticket) => held.resume(ticket).await?,
            None => held.pass().await?,
        };
        match flow.passed().await {
            Passed::Again(held) => Ok(Some(*held)),
            Passed::Over { sent, received, time } => {
                let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
                let detail =
                    json!({ "bytes_sent": sent, "bytes_received": received, "milliseconds": milliseconds });
                self.ended_with(tickets, &detail).await;
                Ok(None)
            }
            Passed::Lost => {
                self.ended_with(tickets, &json!({ "outcome": "lost" })).await;
                Ok(None)
            }
        }
    }

    /// Writes down what became of the connections that were decided.
    async fn ended_with(&self, tickets: &mut Vec<Ticket>, detail: &serde_json::Value) {
        for ticket in tickets.drain(..) {
            // What is to be done about an error has been done: the session ends.
            drop(self.append(ticket.into_recorded().outcome(detail.clone())).await);
        }
    }

    async fn way(
        &self,
        gate: &Arc<ConnectGate>,
        held: &mut Held,
        asked: Asked,
        earlier: &[Ticket],
    ) -> Result<Way, ConnectError> {
        let verdict = judge(&asked, held, &self.policy);
        let action = verdict.verdict.action;
        if action == Action::Approve && earlier.iter().any(|ticket| is_the_same(ticket, &asked, &verdict)) {
            // It had said nothing when it was approved, or is inside of what was.
            return Ok(Way::Free);
        }
        if action == Action::Allow && matches!(verdict.by, By::Default | By::Local) {
            return Ok(Way::Free);
        }
        let agent = gate.common.baseline.borrow().clone().ok_or(ConnectError::Ended)?.agent;
        let asker = gate.askers.describe(held.origin(), &gate.common, agent, action != Action::Allow).await;
        let process = asker.process.clone();
        let question = self.question(&asked, asker, verdict)?;
        if action == Action::Allow {
            return self.allowed(question.judged).await;
        }
        let Question { target, grants_until, grace, .. } = &question;
        let (target, grants_until, grace) = (target.clone(), *grants_until, *grace);
        let alike = question.judged.alike;
        let Answer { decided, hung_up } = self.answer(gate, held, question).await?;
        let recorded = match self.record(decided).await {
            Ok(recorded) => recorded,
            Err((operation, why)) => {
                tracing::error!(why, "a decision could not be recorded: the connection is denied");
                self.fail(&why);
                return Ok(Way::Refused(explained(&operation, &why)));
            }
        };
        match Ticket::from_recorded(recorded) {
            Ok(ticket) => {
                keep(gate, &ticket, target, grants_until, (hung_up, alike, grace));
                Ok(if hung_up { self.unused(ticket).await } else { Way::Ticket(ticket) })
            }
            Err(recorded) => Ok(self.refused(recorded, process, hung_up).await),
        }
    }

    /// An approval whose client has gone: what it is worth now, [`keep`] has seen to.
    async fn unused(&self, ticket: Ticket) -> Way {
        let detail = json!({ "outcome": "the client had hung up" });
        drop(self.append(ticket.into_recorded().outcome(detail)).await);
        Way::Gone
    }

    async fn refused(
        &self,
        recorded: Recorded,
        process: Option<Arc<std::os::fd::OwnedFd>>,
        hung_up: bool,
    ) -> Way {
        let decided = recorded.decided();
        let why = decided.reason().to_string();
        if let Some(process) = process {
            // First: it may end as soon as its connection does.
            self.gate.teller.tell(process, Refusal::of(decided.operation(), why.clone())).await;
        }
        match hung_up {
            true => Way::Gone,
            false => Way::Refused(explained(decided.operation(), &why)),
        }
    }

    /// What a rule allows is written down behind it, as with programs.
    async fn allowed(&self, judged: Judged) -> Result<Way, ConnectError> {
        let Ok(decided) = Decided::by_rule(judged) else { return Err(ConnectError::Ended) };
        if let Err(error) = self.later(decided).await {
            self.fail(&error);
            return Ok(Way::Refused(error));
        }
        Ok(Way::Free)
    }

    fn question(
        &self,
        asked: &Asked,
        asker: Asker,
        verdict: ConnectVerdict,
    ) -> Result<Question, ConnectError> {
        let ConnectVerdict { verdict, scope, grace, name, by, confirmed } = verdict;
        let by_name = name.as_deref();
        let target = asked.granted_target(by_name, confirmed);
        let scope = match (&target, by) {
            // Who it would be the next time is not known.
            (None, _) => Scope::Once,
            // One answer for each listener and session.
            (Some(_), By::Local) => Scope::Session,
            (Some(_), By::Shown | By::Address | By::Cidr | By::Default) => scope,
        };
        let Asker { requester, process: _, program, argv, cwd } = asker;
        let connect = operation::Connect { program, argv, cwd, ..asked.connect(by_name, confirmed) };
        let issued = jiff::Timestamp::now();
        let until = match (verdict.action, scope) {
            (Action::Allow | Action::Deny, _) | (Action::Approve, Scope::Once) => None,
            (Action::Approve, Scope::For(time)) => {
                let end = jiff::SignedDuration::try_from(time).unwrap_or_default();
                let boottime = sys::boottime::after(time).map_err(ConnectError::System)?;
                Some((time_text(issued.saturating_add(end).unwrap_or(issued)), boottime))
            }
            (Action::Approve, Scope::Session) => Some(("session".to_owned(), u64::MAX)),
        };
        let like = Kind::Connect(Box::new(connect.clone()));
        let kind = match (&until, &target) {
            (None, _) | (_, None) => like.clone(),
            (Some((until, _)), Some(target)) => Kind::ConnectGrant(Box::new(operation::ConnectGrant {
                scope: scope_of(target, &verdict.rule),
                connect,
                until: until.clone(),
            })),
        };
        let judged = self
            .judged_as(issued, verdict, requester, |_nonce| kind.clone(), || like.clone())
            .map_err(ConnectError::System)?;
        Ok(Question { judged, target, grants_until: until.map(|(_, boottime)| boottime), grace })
    }

    /// What the policy decides alone, an earlier signature covers, or a person answers.
    async fn answer(
        &self,
        gate: &Arc<ConnectGate>,
        held: &mut Held,
        question: Question,
    ) -> Result<Answer, ConnectError> {
        let Question { judged, target, grace, .. } = question;
        let answered = |decided| Answer { decided, hung_up: false };
        let judged = match Decided::by_rule(judged) {
            Ok(decided) => return Ok(answered(decided)),
            Err(judged) => judged,
        };
        let mut grants = gate.grants.changed();
        let judged = match granted(gate, judged, target.as_ref()) {
            Ok(decided) => return Ok(answered(decided)),
            Err(judged) => judged,
        };
        let deadline = sys::boottime::after(judged.verdict.timeout).map_err(ConnectError::System)?;
        let id = judged.operation.id.clone();
        let mut answer = match self.desk.ask(judged.clone(), now(), deadline) {
            Ok(answer) => answer,
            Err(full) => return Ok(answered(full)),
        };
        let (mut limit, mut hung_up) = (deadline, false);
        loop {
            tokio::select! {
                decided = &mut answer => {
                    let decided = decided.map_err(|_gone| ConnectError::Ended)?;
                    return Ok(Answer { decided, hung_up });
                }
                () = held.gone(), if !hung_up => {
                    hung_up = true;
                    // Somebody may be answering it just now: that answer helps the client's next try.
                    match self.desk.is_shown(&id) && !gate.is_closed() {
                        true => limit = deadline.min(sys::boottime::after(grace).map_err(ConnectError::System)?),
                        false => drop(self.desk.withdraw(&id, now())),
                    }
                }
                Ok(()) = grants.changed(), if !hung_up => {
                    if let Some(grant) = covering(gate, &judged, target.as_ref()) {
                        return Ok(answered(self.withdraw_for(&id, judged, &grant, answer).await?));
                    }
                }
                () = gate.ended(), if hung_up => drop(self.desk.withdraw(&id, now())),
                _ = sys::boottime::sleep_until(limit) => match hung_up {
                    true => drop(self.desk.withdraw(&id, now())),
                    false => self.desk.expire(now().max(deadline)),
                },
            }
        }
    }

    /// Takes a question back because a grant covers it, unless it was answered at the same moment.
    async fn withdraw_for(
        &self,
        id: &str,
        judged: Judged,
        grant: &Grant,
        answer: oneshot::Receiver<Decided>,
    ) -> Result<Decided, ConnectError> {
        match self.desk.withdraw(id, now()) {
            true => Decided::by_grant(judged, grant).map_err(|_by_rule| ConnectError::Ended),
            false => answer.await.map_err(|_gone| ConnectError::Ended),
        }
    }
}

/// The policy's verdict; but what shows nothing that can be relied on does not pass because of what it shows.
fn judge(asked: &Asked, held: &Held, policy: &Policy) -> ConnectVerdict {
    let mut judged = asked.judge(policy);
    let unreliable = held.shown().protocol == Protocol::Garbage;
    if unreliable && judged.verdict.action == Action::Allow && matches!(judged.by, By::Default | By::Shown) {
        judged.verdict.action = Action::Deny;
        judged.verdict.rule = NETWORK_RULE.to_owned();
        judged.verdict.because = "what it shows of its destination is broken, or says two things".to_owned();
    }
    judged
}

/// Whether what a connection shows now is what it was approved for before it showed anything: the same rule, and no name but
/// one that the person was told.
fn is_the_same(ticket: &Ticket, asked: &Asked, verdict: &ConnectVerdict) -> bool {
    let operation = ticket.recorded().decided().operation();
    let Some(before) = operation.kind.connect() else { return false };
    let told =
        |name: &str| before.name.as_deref() == Some(name) || before.names.iter().any(|known| known == name);
    operation.rule == verdict.verdict.rule
        && before.address == asked.target.address.ip().to_string()
        && before.port == asked.target.address.port()
        && before.through == asked.target.through.map(|proxy| proxy.to_string())
        && asked.shown.name.as_deref().is_none_or(told)
}

/// The grant that covers a question, if there is one. One that is for a single try is used up.
fn covering(gate: &ConnectGate, judged: &Judged, target: Option<&Target>) -> Option<Grant> {
    let standing = target.and_then(|target| gate.grants.standing(&judged.verdict.rule, target, now()));
    standing.or_else(|| gate.grants.take(judged.alike?, now()))
}

fn granted(gate: &ConnectGate, judged: Judged, target: Option<&Target>) -> Result<Decided, Judged> {
    match covering(gate, &judged, target) {
        Some(grant) => Decided::by_grant(judged, &grant),
        None => Err(judged),
    }
}

/// Keeps what a signature covers beyond this connection: a grant, or the one try of a client that has hung up.
fn keep(
    gate: &ConnectGate,
    ticket: &Ticket,
    target: Option<Target>,
    until: Option<u64>,
    (hung_up, alike, grace): (bool, Option<Likeness>, Duration),
) {
    let Some(grant) = Grant::of(ticket.recorded().decided()) else { return };
    match (until.zip(target), alike) {
        (Some((until, target)), _) => gate.grants.stand(grant, target, until),
        (None, Some(alike)) if hung_up => {
            // Without a clock nothing is kept.
            if let Ok(until) = sys::boottime::after(grace) {
                gate.grants.keep(alike, grant, until);
            }
        }
        (None, _) => {}
    }
}

fn scope_of(target: &Target, rule: &str) -> operation::GrantScope {
    let (name, address) = match target {
        Target::Name(name, port) => (Some(name.clone()), SocketAddr::from(([0, 0, 0, 0], *port))),
        Target::Address(address) | Target::Listener(address, _) => (None, *address),
    };
    let unnamed = name.is_none();
    operation::GrantScope {
        name,
        address: unnamed.then(|| address.ip().to_string()),
        port: address.port(),
        rule: rule.to_owned(),
    }
}

/// What the client is told, in its own protocol.
fn explained(operation: &operation::Operation, why: &str) -> String {
    format!(
        "ana: denied: {} (rule \"{}\", operation {}): {why}",
        operation.summary(),
        operation.rule,
        operation.id
    )
}
