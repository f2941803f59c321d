//! What is written down beside decisions: refusals, kills, ends, replacements.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{Pipeline, Running, chain};
use crate::{
    approval::Decided,
    evidence::{Entry, Event, EvidenceError, Store},
    gate::exec::replaced::News,
    kernel::Report,
};

/// Refused opens of the same file by the same program are written down once in this time.
pub(super) const FOLD: Duration = Duration::from_secs(10);

impl Pipeline {
    /// False for what was written down a moment ago: an agent that tries again and again does not fill the disk.
    pub(super) fn is_news(&self, what: &str) -> bool {
        self.lock(&self.folded).put(what.to_owned(), Instant::now())
    }

    /// What the guard reports beside holds: kills, and the ends of approved processes.
    pub async fn report(&self, report: Report) {
        match report {
            Report::Killed { tgid, file, reason, still_alive, .. } => {
                let detail = json!({
                    "pid": tgid, "killed": reason.text(), "dev": format!("{}:{}", file.major(), file.minor()),
                    "inode": file.ino.to_string(), "still_alive": still_alive,
                });
                self.note(Event::Tamper, detail).await;
                if still_alive {
                    self.fail("the guard could not kill a process");
                }
            }
            Report::Exited { tgid, status, .. } => {
                let approved = {
                    let mut running = self.lock(&self.running);
                    match running.remove(&tgid) {
                        Some(Running::Approved(recorded)) => recorded,
                        // It ended before we noted that it runs.
                        Some(Running::Ended(_)) | None => {
                            running.insert(tgid, Running::Ended(status));
                            return;
                        }
                    }
                };
                drop(self.append(approved.outcome(outcome(status))).await);
            }
            Report::ExecHeld { .. } => {}
        }
    }

    /// What became of the protected files.
    ///
    /// A replaced file is a `tamper` record whoever replaced it, an upgrade of a package included: what the policy's words
    /// stand for has changed, and who did it is only known as long as that process can still be looked at.
    pub async fn tell(&self, news: News) {
        match news {
            News::Replaced(replaced) => {
                let gate = Arc::clone(&self.gate);
                let detail = tokio::task::spawn_blocking(move || replaced.detail(&gate.common.hashes)).await;
                if let Ok(detail) = detail {
                    self.note(Event::Tamper, detail).await;
                }
            }
            News::Overflow if self.is_news("overflow") => {
                let text =
                    "more files appeared than the kernel can tell; every listed path was followed again";
                self.note(Event::Loss, json!({ "notifications": text })).await;
            }
            News::Overflow => {}
            News::Unprotected(error) => {
                self.note(Event::Loss, json!({ "unprotected": chain(&error) })).await;
            }
        }
    }

    /// Writes a record that is no decision. Without evidence there is no session.
    pub async fn note(&self, event: Event, detail: serde_json::Value) {
        // What is to be done about it has been done: the session ends.
        drop(self.try_note(event, detail).await);
    }

    /// The same, for what must not happen without its record.
    pub(super) async fn try_note(&self, event: Event, detail: serde_json::Value) -> Result<(), String> {
        let entry = Entry::new(event).session(&self.session.id).policy(self.policy.sha256()).detail(detail);
        self.append(entry).await
    }

    /// The error is told to the session as well: without evidence there is none.
    pub(super) async fn append(&self, entry: Entry) -> Result<(), String> {
        self.written(|store| store.append(entry)).await.map(drop).inspect_err(|why| self.fail(why))
    }

    /// Hands over what a rule allows to whoever writes it down behind the operation. The error is for people.
    pub(super) async fn later(&self, decided: Decided) -> Result<(), String> {
        let writer = Arc::clone(&self.writer);
        match tokio::task::spawn_blocking(move || writer.later(decided, None)).await {
            Ok(written) => written.map_err(|error| unwritten(&error)),
            Err(panicked) => Err(unwritten(&panicked)),
        }
    }

    /// What became of writing to the store; the error is for people.
    pub(super) async fn written<T: Send + 'static>(
        &self,
        write: impl FnOnce(&Store) -> Result<T, EvidenceError> + Send + 'static,
    ) -> Result<T, String> {
        let store = Arc::clone(&self.store);
        match tokio::task::spawn_blocking(move || write(&store)).await {
            Ok(written) => written.map_err(|error| unwritten(&error)),
            Err(panicked) => Err(unwritten(&panicked)),
        }
    }
}

/// The wait status of an approved process, for its outcome record.
pub(super) fn outcome(status: i32) -> serde_json::Value {
    match status & 0x7f {
        0 => json!({ "exit_code": (status >> 8) & 0xff }),
        signal => json!({ "signal": signal }),
    }
}

/// Without evidence there is no session: this is why it ends.
pub fn unwritten(error: &dyn std::error::Error) -> String {
    format!("the evidence cannot be written: {}", chain(error))
}
