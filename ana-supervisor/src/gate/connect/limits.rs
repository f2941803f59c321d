//! How much of everything one session may keep busy at a time: an agent can open connections faster than anybody can answer.

use std::{io, sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// Connections that wait or are being joined. Beyond it they are reset.
const CONNECTIONS: usize = 4096;
/// DNS connections over TCP. Beyond it they are reset.
const RELAYS: usize = 64;
/// Look-ups of names that connections show.
const LOOK_UPS: usize = 64;
/// How long such a look-up may wait for its turn.
const LOOK_UP_WAIT: Duration = Duration::from_secs(2);
/// Reads of proc's tables of sockets, which are as long as the agent makes them.
const TABLES: usize = 4;
/// Large DNS answers that are taken in.
const LARGE_ANSWERS: usize = 2;

/// The limits of one session.
#[derive(Debug)]
pub(super) struct Limits {
    connections: Arc<Semaphore>,
    relays: Arc<Semaphore>,
    look_ups: Semaphore,
    tables: Arc<Semaphore>,
    large_answers: Semaphore,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
            relays: Arc::new(Semaphore::new(RELAYS)),
            look_ups: Semaphore::new(LOOK_UPS),
            tables: Arc::new(Semaphore::new(TABLES)),
            large_answers: Semaphore::new(LARGE_ANSWERS),
        }
    }
}

impl Limits {
    /// For as long as a connection waits or is being joined.
    pub(super) fn connection(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.connections).try_acquire_owned().ok()
    }

    /// For as long as a DNS connection is relayed.
    pub(super) fn relay(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.relays).try_acquire_owned().ok()
    }

    /// `None`: there are too many, and none has ended in time.
    pub(super) async fn look_up(&self) -> Option<SemaphorePermit<'_>> {
        tokio::time::timeout(LOOK_UP_WAIT, self.look_ups.acquire()).await.ok()?.ok()
    }

    /// Waits for its turn.
    pub(super) async fn large_answer(&self) -> io::Result<SemaphorePermit<'_>> {
        self.large_answers.acquire().await.map_err(io::Error::other)
    }

    /// What reads proc's tables of sockets, in its turn and on a thread that may wait. Its turn is over when it has ended, even
    /// if nobody waits for it any more.
    pub(super) async fn in_tables<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let permit = Arc::clone(&self.tables).acquire_owned().await.map_err(io::Error::other)?;
        let reading = tokio::task::spawn_blocking(move || {
            let found = read();
            drop(permit);
            found
        });
        reading.await?
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn beyond_the_limit_there_is_nothing_until_one_ends() {
        let limits = Limits::default();
        let mut held: Vec<_> = std::iter::from_fn(|| limits.connection()).collect();
        let relayed: Vec<_> = std::iter::from_fn(|| limits.relay()).collect();
        assert_eq!((held.len(), relayed.len()), (CONNECTIONS, RELAYS));
        held.pop();
        assert!(limits.connection().is_some());
    }

    #[tokio::test]
    async fn a_look_up_waits_for_its_turn_but_not_for_long() {
        let limits = Limits::default();
        let mut held = Vec::new();
        for _ in 0..LOOK_UPS {
            held.extend(limits.look_up().await);
        }
        assert_eq!((held.len(), limits.look_up().await.is_none()), (LOOK_UPS, true));
        held.pop();
        assert!(limits.look_up().await.is_some());
    }

    #[tokio::test]
    async fn tables_are_read_a_few_at_a_time() {
        let (limits, now, most) =
            (Limits::default(), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut reading = tokio::task::JoinSet::new();
        let limits = Arc::new(limits);
        for _ in 0..50 {
            let (limits, now, most) = (Arc::clone(&limits), Arc::clone(&now), Arc::clone(&most));
            reading.spawn(async move {
                let read = move || {
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::yield_now();
                    now.fetch_sub(1, Ordering::SeqCst);
                    Ok(())
                };
                limits.in_tables(read).await
            });
        }
        reading.join_all().await.into_iter().for_each(Result::unwrap);
        assert!((1..=TABLES).contains(&most.load(Ordering::SeqCst)));
    }
}
