//! The connect gate of a session, if its policy says anything about connections.

use std::{os::fd::AsFd, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use super::{SupervisorError, door::Door, setup::Prepared};
use crate::{
    gate::connect::{ConnectGate, Services},
    kernel::{
        self,
        network::{NetworkMaps, NetworkPrograms},
    },
    pipeline::Pipeline,
};

/// How long what is aborted may take to end.
const ABORT_LIMIT: Duration = Duration::from_secs(1);

/// The gate while it serves.
pub(super) struct Connections {
    pub gate: Arc<ConnectGate>,
    pub maps: NetworkMaps,
    /// Writes down what is refused without a question.
    refusals: JoinHandle<()>,
    /// Protected names that have no address yet.
    pub unknown: Vec<String>,
    /// How many connections are on their way.
    count: watch::Sender<usize>,
    /// True once those that are left have to end at once.
    aborted: watch::Sender<bool>,
}

/// One connection on its way; counted until it is dropped.
struct Counted(watch::Sender<usize>);

impl Counted {
    fn new(count: &watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl Connections {
    /// Puts the gate up, and serves it. Nothing of the session runs yet.
    pub(super) async fn raise(
        door: &Door,
        prepared: &Prepared,
        programs: NetworkPrograms,
    ) -> Result<Self, SupervisorError> {
        let (folder, id) = (prepared.cgroup.open()?, prepared.cgroup.id()?);
        let level = prepared.cgroup.level();
        let session = kernel::SessionCgroup { fd: folder.as_fd(), id, level };
        let pipeline = Arc::clone(&prepared.pipeline);
        let (policy, common) = (Arc::clone(&pipeline.policy), Arc::clone(&pipeline.gate.common));
        let maps = programs.maps();
        let services = ConnectGate::raise(policy, common, programs, &session, &door.remains().pins).await?;
        Self::serve(services, maps, pipeline, prepared.fatal_sender.clone()).await
    }

    async fn serve(
        services: Services,
        maps: NetworkMaps,
        pipeline: Arc<Pipeline>,
        fatal: mpsc::UnboundedSender<String>,
    ) -> Result<Self, SupervisorError> {
        let gate = Arc::clone(&services.gate);
        let refusals = gate.refusals().ok_or(SupervisorError::Protocol("the connect gate"))?;
        let refusals = tokio::spawn(Arc::clone(&pipeline).refusals(Arc::clone(&gate), refusals));
        let (count, aborted) = (watch::Sender::new(0), watch::Sender::new(false));
        let (serving, counting, aborting) = (Arc::clone(&gate), count.clone(), aborted.clone());
        let arrived = move |arrived| {
            let (pipeline, gate, counted) =
                (Arc::clone(&pipeline), Arc::clone(&serving), Counted::new(&counting));
            let mut aborted = aborting.subscribe();
            tokio::spawn(async move {
                tokio::select! {
                    () = pipeline.connect(gate, arrived) => {}
                    _ = aborted.wait_for(|aborted| *aborted) => {}
                }
                drop(counted);
            });
        };
        let unknown = services.serve(arrived, fatal).await?;
        Ok(Self { gate, maps, refusals, unknown, count, aborted })
    }

    /// Ends what still waits, and returns when all of it has been decided and written down. What has not been by `end` is
    /// dropped: nothing goes on or writes behind the session's end.
    pub(super) async fn settle(&mut self, pipeline: &Pipeline, end: tokio::time::Instant) {
        self.gate.close();
        let mut count = self.count.subscribe();
        // The sender is ours.
        let mut settled = async || drop(count.wait_for(|count| *count == 0).await);
        if tokio::time::timeout_at(end, settled()).await.is_err() {
            self.aborted.send_replace(true);
            // They end where they wait.
            tokio::time::timeout(ABORT_LIMIT, settled()).await.ok();
        }
        let end = end.max(tokio::time::Instant::now() + ABORT_LIMIT);
        if tokio::time::timeout_at(end, &mut self.refusals).await.is_err() {
            self.refusals.abort();
            pipeline.note_unwritten(&self.gate).await;
        }
    }
}
