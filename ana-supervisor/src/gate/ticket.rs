//! The end of the way: from the evidence to the release.

use crate::evidence::Recorded;

/// The permission for exactly one held operation to go on: made only of a decision that is on the disk.
#[derive(Debug)]
pub struct Ticket(Recorded);

impl Ticket {
    /// # Errors
    /// Gives the decision back when it is a refusal.
    pub fn from_recorded(recorded: Recorded) -> Result<Self, Recorded> {
        if recorded.decided().approved() { Ok(Self(recorded)) } else { Err(recorded) }
    }

    pub fn recorded(&self) -> &Recorded {
        &self.0
    }

    /// For the record of the outcome.
    pub fn into_recorded(self) -> Recorded {
        self.0
    }
}
