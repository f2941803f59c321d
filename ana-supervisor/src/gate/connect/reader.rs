//! DNS answers are read by the worker: an agent can choose who sends them.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::oneshot;

use super::{peek::Answer, worker::Worker};

/// Has answers read. Cloneable.
#[derive(Clone)]
pub(super) struct AnswerReader(Arc<Inner>);

struct Inner {
    worker: Worker,
    numbers: AtomicU64,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Option<Answer>>>>,
}

impl AnswerReader {
    pub(super) fn new(worker: Worker) -> Self {
        Self(Arc::new(Inner { worker, numbers: AtomicU64::default(), waiting: Mutex::default() }))
    }

    /// What the message says; `None`: it is no DNS answer, or the worker is lost.
    pub(super) async fn read(&self, message: &[u8]) -> Option<Answer> {
        let number = self.0.numbers.fetch_add(1, Ordering::Relaxed);
        let (teller, told) = oneshot::channel();
        self.lock().insert(number, teller);
        let asked: io::Result<()> = self.0.worker.answer(number, message).await;
        if asked.is_err() {
            self.lock().remove(&number);
            return None;
        }
        told.await.ok().flatten()
    }

    /// The worker has read one.
    pub(super) fn tell(&self, number: u64, answer: Option<Answer>) {
        if let Some(teller) = self.lock().remove(&number) {
            // Whoever asked may have given up.
            drop(teller.send(answer));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Option<Answer>>>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
