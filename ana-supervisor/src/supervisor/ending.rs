//! The end of a session: everything is killed, written down, told and taken down, in this order.

use std::{sync::Arc, time::Duration};

use serde_json::json;

use super::{KILL_LIMIT, SupervisorError, owner::Running};
use crate::{
    api::wire::Reply,
    evidence::{Entry, Event, EvidenceError},
    launch::spec::Failure,
};

/// How long the last decisions and records of a dead session may take.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);

/// How a session ends.
pub(super) enum End {
    /// The agent ended by itself, with this wait status.
    Agent(i32),
    /// The agent did not start.
    NotStarted(Failure),
    /// `ana-run` is gone: nobody is left to be asked.
    OwnerGone,
    /// Somebody or something ended it.
    Killed(String),
}

impl Running {
    /// Everything that was on its way is decided and written down before the session's end is: what waited for a person
    /// ends with its process.
    async fn settle(&mut self) {
        self.prepared.arrivals.close();
        let end = tokio::time::Instant::now() + SETTLE_LIMIT;
        if let Some(connections) = &mut self.connections {
            connections.settle(&self.prepared.pipeline, end).await;
        }
        while let Ok(Some(_)) = tokio::time::timeout_at(end, self.tasks.join_next()).await {}
        tokio::time::timeout_at(end, self.prepared.ledger.flush()).await.ok();
        // Once the ring is drained, every end that the guard saw is in the channel.
        self.prepared.pipeline.gate.router.exec_in(0).await;
        while let Ok(report) = self.prepared.reports.try_recv() {
            self.write_down(report);
        }
        while let Ok(news) = self.prepared.watched.news.try_recv() {
            self.tell(news);
        }
        while let Ok(Some(_)) = tokio::time::timeout_at(end, self.tasks.join_next()).await {}
        self.tasks.abort_all();
    }

    /// Kill, record, tell, take down: in this order.
    pub(super) async fn finish(mut self, end: End) -> Result<(), SupervisorError> {
        let cgroup = Arc::clone(&self.prepared.cgroup);
        let killed =
            tokio::task::spawn_blocking(move || crate::launch::cgroup::kill(cgroup.path(), KILL_LIMIT)).await;
        let dead = matches!(killed, Ok(Ok(())));
        self.settle().await;
        if let Some(why) = self.unhealthy() {
            self.prepared.pipeline.note(Event::Loss, json!({ "health": why })).await;
        }
        let recorded = self.record_end(&end).await;
        if let Err(error) = &recorded {
            tracing::error!(
                error = error as &dyn std::error::Error,
                "the end of the session could not be recorded"
            );
        }
        let reply = match end {
            End::Agent(status) => Reply::Exited { status },
            End::NotStarted(failure) => Reply::Failed(failure),
            End::OwnerGone => Reply::Done,
            End::Killed(why) => Reply::Ended { why },
        };
        // Who sees ana-run end finds nothing of the session any more.
        match dead {
            true => self.door.remains().remove(),
            // Something still lives: the guard stays pinned, and the warden goes on when we end.
            false => {
                std::fs::remove_file(&self.door.socket).ok();
            }
        }
        self.owner.send(&reply).await.ok();
        // The leader ends with its socket.
        drop(self.leader);
        self.leader_process.wait().ok();
        if dead {
            self.prepared.warden.relieve();
        }
        Ok(())
    }

    /// What was let go on and is not in the evidence, then the end.
    async fn record_end(&self, end: &End) -> Result<(), EvidenceError> {
        let detail = match end {
            End::Agent(status) => json!({ "cause": "the agent ended", "status": status }),
            End::NotStarted(failure) => {
                json!({ "cause": "the agent could not be started", "doing": failure.doing, "error": failure.error })
            }
            End::OwnerGone => json!({ "cause": "ana-run ended" }),
            End::Killed(why) => json!({ "cause": why }),
        };
        let entry = Entry::new(Event::SessionEnd)
            .session(&self.door.session)
            .policy(self.prepared.pipeline.policy.sha256())
            .detail(detail);
        let (store, session) = (Arc::clone(&self.prepared.pipeline.store), self.door.session.clone());
        let recorded = tokio::task::spawn_blocking(move || {
            // If this fails the notes stay; the end is recorded all the same.
            let settled = store.settle_notes(&session);
            store.append(entry).and(settled)
        });
        recorded.await.unwrap_or(Err(EvidenceError::Stopped))
    }
}
