//! Sorts the guard's reports: to the hold that waits for one, or to whoever writes them down.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{Notify, mpsc, oneshot};

use crate::kernel::{KernelError, Report, Reports};

/// Where holds ask whether their exec has been reported.
#[derive(Clone, Debug)]
pub struct Router {
    drains: mpsc::UnboundedSender<oneshot::Sender<()>>,
    held: Arc<Mutex<HashMap<u64, Report>>>,
    came: Arc<Notify>,
}

/// The router's task: reads the ring until it fails.
pub struct Pump {
    reports: Reports,
    drains: mpsc::UnboundedReceiver<oneshot::Sender<()>>,
    held: Arc<Mutex<HashMap<u64, Report>>>,
    came: Arc<Notify>,
    /// Kills and exits.
    others: mpsc::UnboundedSender<Report>,
}

/// The two ends; `others` gets what no hold waits for.
pub fn router(reports: Reports, others: mpsc::UnboundedSender<Report>) -> (Router, Pump) {
    let held = Arc::new(Mutex::new(HashMap::new()));
    let came = Arc::new(Notify::new());
    let (drains, receiver) = mpsc::unbounded_channel();
    let router = Router { drains, held: Arc::clone(&held), came: Arc::clone(&came) };
    (router, Pump { reports, drains: receiver, held, came, others })
}

impl Router {
    /// The report of the exec in this hold, if there was one before now: the ring is drained first.
    pub async fn exec_in(&self, hold: u64) -> Option<Report> {
        let (sender, drained) = oneshot::channel();
        self.drains.send(sender).ok()?;
        drained.await.ok()?;
        self.take(hold)
    }

    /// Waits for the report of an exec in this hold.
    pub async fn wait_for_exec_in(&self, hold: u64) -> Option<Report> {
        loop {
            let next = self.came.notified();
            tokio::pin!(next);
            // From here on no report is missed.
            next.as_mut().enable();
            if let Some(report) = self.take(hold) {
                return Some(report);
            }
            next.await;
        }
    }

    fn take(&self, hold: u64) -> Option<Report> {
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
                self.came.notify_waiters();
            }
            // The receiver is gone only when the session ends.
            Report::Killed { .. } | Report::Exited { .. } => drop(self.others.send(report)),
        }
    }
}
