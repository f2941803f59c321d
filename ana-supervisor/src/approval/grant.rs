//! One signature for more than one operation: a person signed a grant, or an approval whose operation was gone by then.

use std::sync::Arc;

use super::{Decided, Reason};
use crate::operation::Operation;

/// A person's signature that later operations may go on with. What it covers is the gate's affair, and every use is a
/// decision of its own, with a record of its own.
#[derive(Clone, Debug)]
pub struct Grant {
    operation: Arc<Operation>,
    approver: String,
}

impl Grant {
    /// `None`: no person has signed it.
    pub fn of(decided: &Decided) -> Option<Self> {
        match decided.reason() {
            Reason::Person { approver, assertion: _ } => {
                Some(Self { operation: Arc::clone(decided.operation()), approver: approver.clone() })
            }
            Reason::Rule { .. }
            | Reason::Granted { .. }
            | Reason::Refused { .. }
            | Reason::CounterWentBack(_)
            | Reason::TimedOut { .. }
            | Reason::ProcessEnded
            | Reason::QueueFull { .. }
            | Reason::BackedOff { .. } => None,
        }
    }

    /// The operation that was signed.
    pub fn operation(&self) -> &Arc<Operation> {
        &self.operation
    }

    /// Who signed it.
    pub fn approver(&self) -> &str {
        &self.approver
    }
}
