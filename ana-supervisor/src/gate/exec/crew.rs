//! The threads that share the work of answering: one leads, which means that it waits for the kernel's events; the others
//! follow, and take over the lead from a thread that has to look into an agent's memory, where it may be kept waiting.
//! So there is always somebody who leads, and nobody wakes up who is not needed.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

/// What the threads know of each other.
#[derive(Debug)]
pub struct Crew<Job> {
    state: Mutex<State<Job>>,
    news: Condvar,
}

#[derive(Debug)]
struct State<Job> {
    led: bool,
    /// Threads that have nothing to do.
    idle: usize,
    jobs: VecDeque<Job>,
}

/// What a thread is to do next.
#[derive(Debug)]
pub enum Duty<Job> {
    /// Wait for events, until [`Crew::resign`].
    Lead,
    /// Work that may take a while.
    Work(Job),
}

impl<Job> Default for Crew<Job> {
    fn default() -> Self {
        let state = State { led: false, idle: 0, jobs: VecDeque::new() };
        Self { state: Mutex::new(state), news: Condvar::new() }
    }
}

impl<Job> Crew<Job> {
    /// Waits until there is something to do.
    pub fn duty(&self) -> Duty<Job> {
        let mut state = self.lock();
        loop {
            if !state.led {
                state.led = true;
                return Duty::Lead;
            }
            if let Some(job) = state.jobs.pop_front() {
                return Duty::Work(job);
            }
            state.idle += 1;
            state = self.news.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    /// The leader has work: it goes to an idle thread, one each.
    ///
    /// # Errors
    /// Gives the work back when there are not two idle threads for each piece of it: one has to lead.
    pub fn hand_over(&self, job: Job) -> Result<(), Job> {
        let mut state = self.lock();
        if state.idle < state.jobs.len() + 2 {
            return Err(job);
        }
        state.jobs.push_back(job);
        drop(state);
        self.news.notify_one();
        Ok(())
    }

    /// The leader wants to work itself: true when another thread is free to lead, and is woken for it.
    pub fn resign(&self) -> bool {
        let mut state = self.lock();
        if state.idle < state.jobs.len() + 1 {
            return false;
        }
        state.led = false;
        drop(state);
        self.news.notify_one();
        true
    }

    fn lock(&self) -> MutexGuard<'_, State<Job>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    use super::*;

    #[test]
    fn there_is_always_somebody_who_leads() {
        let crew = Arc::new(Crew::<u32>::default());
        assert!(matches!(crew.duty(), Duty::Lead));
        assert!(!crew.resign(), "nobody else is there");
        assert_eq!(crew.hand_over(1), Err(1));
        let (sender, duties) = mpsc::channel();
        for _ in 0..2 {
            let (crew, sender) = (Arc::clone(&crew), sender.clone());
            std::thread::spawn(move || sender.send(crew.duty()).unwrap());
        }
        // Both wait before anything is handed over: `idle` says so.
        while crew.lock().idle < 2 {
            std::thread::yield_now();
        }
        crew.hand_over(7).unwrap();
        assert!(matches!(duties.recv().unwrap(), Duty::Work(7)));
        while crew.lock().idle > 1 {
            std::thread::yield_now();
        }
        assert_eq!(crew.hand_over(8), Err(8), "the last one has to be able to lead");
        assert!(crew.resign());
        assert!(matches!(duties.recv().unwrap(), Duty::Lead));
        assert!(!crew.resign());
    }
}
