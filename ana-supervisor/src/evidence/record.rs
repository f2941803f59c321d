//! What a record says: the payload of one line.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::operation::Operation;

/// What is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// An agent was started: which seal, gates and guards are active.
    SessionStart,
    /// A passkey was added, renamed or removed.
    Enrolment,
    /// An operation was allowed or denied; on disk before the operation goes on.
    Decision,
    /// What became of a decided operation.
    Outcome,
    /// The session's last process is gone.
    SessionEnd,
    /// A policy was loaded, or not.
    PolicyLoad,
    /// An approved operation gave the session root.
    RootReached,
    /// Something of ours was touched by someone else.
    Tamper,
    /// Something was lost: events, or the unfinished line of a writer that was killed.
    Loss,
}

impl Event {
    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::SessionStart => "session-start",
            Self::Enrolment => "enrolment",
            Self::Decision => "decision",
            Self::Outcome => "outcome",
            Self::SessionEnd => "session-end",
            Self::PolicyLoad => "policy-load",
            Self::RootReached => "root-reached",
            Self::Tamper => "tamper",
            Self::Loss => "loss",
        }
    }
}

/// The verdict of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RecordedVerdict {
    Allow,
    Deny,
}

impl RecordedVerdict {
    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// A person's approval, complete: any WebAuthn library can check it from the record. All bytes are base64url.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AssertionRecord {
    pub credential_id: String,
    /// Who owns the passkey, as enrolled.
    pub approver: String,
    /// The credential's COSE key.
    pub public_key: String,
    pub authenticator_data: String,
    pub client_data_json: String,
    /// ASN.1 DER for ES256, 64 bytes for EdDSA.
    pub signature: String,
}

/// What a caller wants recorded; the rest of the [`Payload`] is the store's.
#[derive(Clone, Debug)]
pub struct Entry {
    pub event: Event,
    /// The session's id.
    pub session: Option<String>,
    pub operation: Option<Operation>,
    pub verdict: Option<RecordedVerdict>,
    /// The policy rule's name.
    pub rule: Option<String>,
    /// SHA-256 of the loaded policy, base64url.
    pub policy_sha256: Option<String>,
    pub assertion: Option<AssertionRecord>,
    /// What is particular to the event. A decision has `decided_by`: `rule`, `person`, `timeout`, `system`.
    pub detail: Option<Value>,
}

impl Entry {
    /// An entry that says nothing but what happened.
    pub fn new(event: Event) -> Self {
        Self {
            event,
            session: None,
            operation: None,
            verdict: None,
            rule: None,
            policy_sha256: None,
            assertion: None,
            detail: None,
        }
    }

    /// The same, in a session.
    #[must_use]
    pub fn session(mut self, session: impl Into<String>) -> Self {
        self.session = Some(session.into());
        self
    }

    /// The same, under a policy.
    #[must_use]
    pub fn policy(mut self, sha256: impl Into<String>) -> Self {
        self.policy_sha256 = Some(sha256.into());
        self
    }

    /// The same, with what is particular to it.
    #[must_use]
    pub fn detail(mut self, detail: Value) -> Self {
        self.detail = Some(detail);
        self
    }
}

/// One record, as it is signed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Payload {
    /// [`super::VERSION`].
    pub v: u32,
    /// 1, 2, 3, … over all segments.
    pub seq: u64,
    /// SHA-256 of the previous line's bytes without its newline, base64url; of nothing for the first record.
    pub prev: String,
    /// Seconds since 1970, UTC.
    pub iat: i64,
    pub host: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    pub event: Event,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
    /// SHA-256 of the operation's canonical form, base64url: the challenge that was signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_hash: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<RecordedVerdict>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertion: Option<AssertionRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<Value>,
    /// True: the state could be changed by someone other than root.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub development: bool,
}

/// Who decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecidedBy {
    /// The policy, alone.
    Rule,
    /// A person: an approval is signed, a refusal is not.
    Person,
    /// A person, by signing an earlier operation, which `granted_by` names.
    Grant,
    /// Nobody answered in time.
    Timeout,
    /// ana itself, which can only deny.
    System,
}

impl DecidedBy {
    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rule => "rule",
            Self::Person => "person",
            Self::Grant => "grant",
            Self::Timeout => "timeout",
            Self::System => "system",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        let all = [Self::Rule, Self::Person, Self::Grant, Self::Timeout, Self::System];
        all.into_iter().find(|by| by.name() == name)
    }
}

impl Payload {
    /// Who decided, from the detail of a decision.
    pub fn decided_by(&self) -> Option<DecidedBy> {
        self.detail.as_ref()?.get("decided_by")?.as_str().and_then(DecidedBy::parse)
    }

    /// The earlier operation whose signature covers this one, if one does.
    pub fn granted_by(&self) -> Option<&str> {
        self.detail.as_ref()?.get("granted_by")?.as_str()
    }

    /// For how many operations this decision stands, if for more than its own.
    pub fn folded(&self) -> Option<u64> {
        self.detail.as_ref()?.get("folded")?.as_u64().filter(|count| *count > 0)
    }

    /// The operation that a decision or an outcome is about.
    pub fn operation_id(&self) -> Option<&str> {
        match &self.operation {
            Some(operation) => Some(&operation.id),
            None => self.detail.as_ref()?.get("operation_id")?.as_str(),
        }
    }

    /// What every record must fulfil by itself; asked before one is written and when it is read back.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let needs_session = match self.event {
            Event::SessionStart
            | Event::Decision
            | Event::Outcome
            | Event::SessionEnd
            | Event::RootReached => true,
            Event::Enrolment | Event::PolicyLoad | Event::Tamper | Event::Loss => false,
        };
        if needs_session && self.session.is_none() {
            return Err("the session is missing");
        }
        if matches!(self.event, Event::SessionStart | Event::Decision) && self.policy_sha256.is_none() {
            return Err("the policy's hash is missing");
        }
        if self.operation.is_some() && self.operation_hash.is_none() {
            return Err("the operation's hash is missing");
        }
        match self.event {
            Event::Decision => self.check_decision(),
            Event::Outcome if self.operation_id().is_none() => Err("the outcome names no operation"),
            Event::SessionStart
            | Event::Enrolment
            | Event::Outcome
            | Event::SessionEnd
            | Event::PolicyLoad
            | Event::RootReached
            | Event::Tamper
            | Event::Loss => {
                if self.verdict.is_some() || self.assertion.is_some() {
                    return Err("only a decision has a verdict or an assertion");
                }
                Ok(())
            }
        }
    }

    fn check_decision(&self) -> Result<(), &'static str> {
        let Some(operation) = &self.operation else {
            return Err("the decision has no operation");
        };
        let Some(verdict) = self.verdict else {
            return Err("the decision has no verdict");
        };
        if self.session.as_ref() != Some(&operation.session) {
            return Err("the operation is another session's");
        }
        if self.rule.as_ref() != Some(&operation.rule) {
            return Err("the operation was asked under another rule");
        }
        if self.policy_sha256.as_ref() != Some(&operation.policy_sha256) {
            return Err("the operation was asked under another policy");
        }
        let folds = self.detail.as_ref().is_some_and(|detail| detail.get("folded").is_some());
        let by_rule = (verdict, self.decided_by()) == (RecordedVerdict::Allow, Some(DecidedBy::Rule));
        if folds && !(by_rule && self.folded().is_some()) {
            return Err("only what a rule allows can be folded, and into a count");
        }
        match (verdict, self.decided_by(), &self.assertion) {
            (_, None, _) => Err("it is missing who decided"),
            (RecordedVerdict::Allow, Some(DecidedBy::Person), None) => {
                Err("a person's approval without an assertion")
            }
            (RecordedVerdict::Allow, Some(DecidedBy::Person), Some(_)) => Ok(()),
            (RecordedVerdict::Allow, Some(DecidedBy::Timeout | DecidedBy::System), _) => {
                Err("only a rule or a person can allow")
            }
            (_, Some(_), Some(_)) => Err("an assertion that approves nothing"),
            (_, Some(DecidedBy::Grant), None) if self.granted_by().is_none() => {
                Err("a grant that names no operation")
            }
            (RecordedVerdict::Allow, Some(DecidedBy::Grant | DecidedBy::Rule), None)
            | (RecordedVerdict::Deny, Some(_), None) => Ok(()),
        }
    }
}
