//! The connect gate of a session, if its policy says anything about connections.

use std::{os::fd::AsFd, sync::Arc};

use tokio::sync::{mpsc, watch};

use super::{SupervisorError, door::Door, setup::Prepared};
use crate::{
    gate::connect::{ConnectGate, Parts, Services},
    kernel::{
        self,
        network::{NetworkMaps, NetworkPrograms, Refusal},
    },
    pipeline::Pipeline,
};

/// The gate while it serves.
pub(super) struct Connections {
    pub gate: Arc<ConnectGate>,
    pub maps: NetworkMaps,
    /// What was refused in the kernel.
    pub refused: mpsc::UnboundedReceiver<Refusal>,
    /// Protected names that have no address yet.
    pub unknown: Vec<String>,
    /// How many connections are on their way.
    count: watch::Sender<usize>,
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
        let parts = Parts { policy: Arc::clone(&pipeline.policy), common: Arc::clone(&pipeline.gate.common) };
        let maps = programs.maps();
        let services = ConnectGate::raise(parts, programs, &session, &door.remains().pins).await?;
        Self::serve(services, maps, pipeline, prepared.fatal_sender.clone()).await
    }

    async fn serve(
        services: Services,
        maps: NetworkMaps,
        pipeline: Arc<Pipeline>,
        fatal: mpsc::UnboundedSender<String>,
    ) -> Result<Self, SupervisorError> {
        let gate = Arc::clone(&services.gate);
        let (teller, refused) = mpsc::unbounded_channel();
        let count = watch::Sender::new(0);
        let (serving, counting) = (Arc::clone(&gate), count.clone());
        let arrived = move |arrived| {
            let (pipeline, gate, counted) =
                (Arc::clone(&pipeline), Arc::clone(&serving), Counted::new(&counting));
            tokio::spawn(async move {
                pipeline.connect(gate, arrived).await;
                drop(counted);
            });
        };
        let unknown = services.serve(arrived, teller, fatal).await?;
        Ok(Self { gate, maps, refused, unknown, count })
    }

    /// Ends what still waits, and returns when all of it has been decided and written down.
    pub(super) async fn settle(&self) {
        self.gate.close();
        // The sender is ours.
        drop(self.count.subscribe().wait_for(|count| *count == 0).await);
    }
}

/// The next refusal; without a gate there is none, ever.
pub(super) async fn refused(connections: &mut Option<Connections>) -> Option<Refusal> {
    match connections {
        Some(connections) => connections.refused.recv().await,
        None => std::future::pending().await,
    }
}
