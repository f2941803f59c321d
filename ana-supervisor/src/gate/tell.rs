//! Telling the agent why: one line on the refused process's stderr, so that a model can read it and stop retrying.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use tokio::sync::Semaphore;

use crate::{
    launch::spec::Identity,
    operation::{Bytes, Operation},
    sys,
};

/// The most bytes of the line.
const LINE_MAX: usize = 1024;

/// How long a refusal waits for its explanation.
const LIMIT: Duration = Duration::from_secs(2);

/// Tells of refusals, a few at a time: an agent that does not read its own stderr must not keep others waiting.
#[derive(Debug)]
pub struct Teller {
    user: Identity,
    permits: Arc<Semaphore>,
}

/// Messages that may be on their way at a time; beyond that a refusal is not explained.
const AT_A_TIME: usize = 16;

/// What is told.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub summary: String,
    /// The policy rule's name; empty before there is one.
    pub rule: String,
    pub id: String,
    pub why: String,
}

impl Refusal {
    pub fn of(operation: &Operation, why: String) -> Self {
        Self { summary: operation.summary(), rule: operation.rule.clone(), id: operation.id.clone(), why }
    }

    /// Of what was not judged: it has an id for whoever reads the logs.
    pub fn unjudged(summary: String, why: String) -> Self {
        Self { summary, rule: String::new(), id: ulid::Ulid::generate().to_string(), why }
    }
}

impl Teller {
    pub fn new(user: Identity) -> Self {
        Self { user, permits: Arc::new(Semaphore::new(AT_A_TIME)) }
    }

    /// Tells the process, if there is room; takes two seconds at most.
    pub async fn tell(&self, process: Arc<OwnedFd>, refusal: Refusal) {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else { return };
        let user = self.user.clone();
        let told = tokio::task::spawn_blocking(move || {
            let told = denied(process.as_fd(), &user, &refusal);
            drop(permit);
            told
        });
        // A writer that not even SIGKILL ends (its target is in a file system that does not answer) keeps its permit, but
        // the refusal goes on.
        match tokio::time::timeout(LIMIT, told).await {
            Ok(Ok(Err(error))) => tracing::debug!(?error, "the agent could not be told"),
            Ok(_) => {}
            Err(_elapsed) => tracing::debug!("the agent could not be told in time"),
        }
    }
}

/// Writes `ana: denied: …` to descriptor 2 of the process (alive, frozen or blocked), as the agent's user. Blocks for at
/// most a second, unless the file system of the descriptor does not answer. What cannot be told stays untold: a read-only
/// descriptor is never written.
fn denied(process: BorrowedFd, user: &Identity, refusal: &Refusal) -> io::Result<()> {
    let stderr = sys::process::descriptor_of(process, 2)?;
    sys::tell::write_as(stderr.as_fd(), user.uid, user.gid, line(refusal).as_bytes())
}

/// All parts are printable ASCII already, but for the reason, which a person typed.
fn line(Refusal { summary, rule, id, why }: &Refusal) -> String {
    let why = Bytes::from(why.as_str()).escaped();
    let tail = format!(" (rule \"{rule}\", operation {id}): {why}\n");
    let room = LINE_MAX.saturating_sub(tail.len());
    let summary: String = match summary.len() > room {
        true => summary.chars().take(room.saturating_sub(3)).chain("...".chars()).collect(),
        false => summary.clone(),
    };
    format!("ana: denied: {summary}{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_names_operation_rule_and_reason() {
        let expected = "ana: denied: git push (rule \"git\", operation 01J): refused by bob\n";
        let refusal = |summary: &str, why: &str| Refusal {
            summary: summary.to_owned(),
            rule: "git".to_owned(),
            id: "01J".to_owned(),
            why: why.to_owned(),
        };
        assert_eq!(line(&refusal("git push", "refused by bob")), expected);
        let long = line(&refusal(&"x".repeat(5000), "refused by \x1b[2J"));
        assert!(long.len() < 1100 && long.contains("x...") && !long.contains('\x1b'));
    }
}
