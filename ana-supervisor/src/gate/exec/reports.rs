//! Sorts the guard's reports: to the hold that waits for one, or to whoever writes them down.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{mpsc, oneshot};

use crate::kernel::{KernelError, Report, Reports};

/// Where holds ask whether their exec has been reported.
#[derive(Clone, Debug)]
pub struct Router {
    drains: mpsc::UnboundedSender<oneshot::Sender<()>>,
    held: Arc<Mutex<HashMap<u64, Report>>>,
}

/// The router's task: reads the ring until it fails.
pub struct Pump {
    reports: Reports,
    drains: mpsc::UnboundedReceiver<oneshot::Sender<()>>,
    held: Arc<Mutex<HashMap<u64, Report>>>,
    /// Kills and exits.
    others: mpsc::UnboundedSender<Report>,
}

/// The two ends; `others` gets what no hold waits for.
pub fn router(reports: Reports, others: mpsc::UnboundedSender<Report>) -> (Router, Pump) {
    let held = Arc::new(Mutex::new(HashMap::new()));
    let (drains, receiver) = mpsc::unbounded_channel();
    let router = Router { drains, held: Arc::clone(&held) };
    (router, Pump { reports, drains: receiver, held, others })
}

impl Router {
    /// The report of the exec in this hold, if there was one before now: the ring is drained first.
    pub async fn exec_in(&self, hold: u64) -> Option<Report> {
        let (sender, drained) = oneshot::channel();
        self.drains.send(sender).ok()?;
        drained.await.ok()?;
        self.held.lock().unwrap_or_else(PoisonError::into_inner).remove(&hold)
    }
}

impl Pump {
    /// # Errors
    /// When the ring cannot be read any more: the session has to end.
    pub async fn run(mut self) -> Result<(), KernelError> {
        loop {
            tokio::select! {
                report = self.reports.next() => self.sort(report?),
                request = self.drains.recv() => {
                    let Some(request) = request else { return Ok(()) };
                    while let Some(report) = self.reports.try_next()? {
                        self.sort(report);
                    }
                    // Who asked may have given up.
                    request.send(()).ok();
                }
            }
        }
    }

    fn sort(&self, report: Report) {
        match report {
            Report::ExecHeld { hold, .. } => {
                self.held.lock().unwrap_or_else(PoisonError::into_inner).insert(hold, report);
            }
            // The receiver is gone only when the session ends.
            Report::Killed { .. } | Report::Exited { .. } => drop(self.others.send(report)),
        }
    }
}
