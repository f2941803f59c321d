//! The one way to a ticket: a decision that is on the disk.

use serde_json::{Value, json};

use super::error::EvidenceError;
use super::record::{AssertionRecord, DecidedBy, Entry, Event, RecordedVerdict};
use super::store::{Receipt, Store};
use crate::approval::{Decided, Reason};

/// A decision whose record is on the disk. Only [`Store::record`] makes one.
#[must_use = "a recorded decision has to be carried out"]
#[derive(Debug)]
pub struct Recorded {
    decided: Decided,
    receipt: Receipt,
}

impl Recorded {
    /// What was decided.
    pub fn decided(&self) -> &Decided {
        &self.decided
    }

    /// Where it is recorded.
    pub fn receipt(&self) -> &Receipt {
        &self.receipt
    }

    /// The record of what became of it.
    pub fn outcome(&self, mut detail: Value) -> Entry {
        let operation = self.decided.operation();
        if let Some(members) = detail.as_object_mut() {
            members.insert("operation_id".into(), json!(operation.id));
        } else {
            detail = json!({ "operation_id": operation.id, "outcome": detail });
        }
        Entry {
            rule: Some(operation.rule.clone()),
            ..Entry::new(Event::Outcome)
                .session(&operation.session)
                .policy(&operation.policy_sha256)
                .detail(detail)
        }
    }
}

impl Store {
    /// Records a decision.
    ///
    /// # Errors
    /// As [`Store::append`]; the operation must be denied then.
    pub fn record(&self, decided: Decided) -> Result<Recorded, EvidenceError> {
        let receipt = self.append(entry(&decided))?;
        Ok(Recorded { decided, receipt })
    }
}

pub(super) fn entry(decided: &Decided) -> Entry {
    let operation = decided.operation();
    let (by, assertion, mut detail) = reason(decided.reason());
    if let Some(members) = detail.as_object_mut() {
        members.insert("decided_by".into(), json!(by.name()));
    }
    let verdict = if decided.approved() { RecordedVerdict::Allow } else { RecordedVerdict::Deny };
    Entry {
        operation: Some(operation.as_ref().clone()),
        verdict: Some(verdict),
        rule: Some(operation.rule.clone()),
        assertion,
        ..Entry::new(Event::Decision)
            .session(&operation.session)
            .policy(&operation.policy_sha256)
            .detail(detail)
    }
}

fn reason(reason: &Reason) -> (DecidedBy, Option<AssertionRecord>, Value) {
    let because = reason.to_string();
    match reason {
        Reason::Rule { rule: _, because } => (DecidedBy::Rule, None, json!({ "because": because })),
        Reason::Person { approver, assertion: verified } => {
            let assertion = verified.assertion();
            let record = AssertionRecord {
                credential_id: assertion.credential_id.clone(),
                approver: approver.clone(),
                public_key: verified.public_key().to_owned(),
                authenticator_data: assertion.authenticator_data.clone(),
                client_data_json: assertion.client_data_json.clone(),
                signature: assertion.signature.clone(),
            };
            let detail = json!({
                "because": because,
                "by": approver,
                "passkey": verified.passkey(),
                "passkey_kind": verified.kind(),
                "user_verified": verified.user_verified(),
            });
            (DecidedBy::Person, Some(record), detail)
        }
        Reason::Granted { approver, operation } => {
            let detail = json!({ "because": because, "by": approver, "granted_by": operation });
            (DecidedBy::Grant, None, detail)
        }
        Reason::Refused { by, reason: _ } => {
            let decided_by = if by == "ana" { DecidedBy::System } else { DecidedBy::Person };
            (decided_by, None, json!({ "because": because, "by": by }))
        }
        Reason::CounterWentBack(back) => {
            let detail = json!({
                "because": because, "by": "ana", "passkey": back.passkey, "stored": back.stored, "found": back.found,
            });
            (DecidedBy::System, None, detail)
        }
        Reason::TimedOut { seconds } => {
            (DecidedBy::Timeout, None, json!({ "because": because, "seconds": seconds }))
        }
        Reason::BackedOff { denials, seconds } => {
            (DecidedBy::System, None, json!({ "because": because, "denials": denials, "seconds": seconds }))
        }
        Reason::ProcessEnded | Reason::QueueFull { .. } => {
            (DecidedBy::System, None, json!({ "because": because }))
        }
    }
}
