//! The threads that answer the kernel.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{SupervisorError, io as doing};
use crate::{
    gate::exec::{
        answerer::{Answerer, THREADS},
        quick::{self, Slot},
    },
    sys,
};

/// Starts the threads that answer the kernel, and the one that minds those that look into an agent's memory.
pub(super) fn start(
    answerer: Answerer,
    fatal: &mpsc::UnboundedSender<String>,
) -> Result<(), SupervisorError> {
    let slots: Result<Vec<_>, _> = (0..THREADS).map(|_| Slot::new().map(Arc::new)).collect();
    let slots = slots.map_err(doing("make a timer and a thread"))?;
    let answerer = Arc::new(answerer);
    let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
    for slot in &slots {
        let (answerer, slot, fatal) = (Arc::clone(&answerer), Arc::clone(slot), fatal.clone());
        let started = thread("ana-answerer").spawn(move || {
            sys::process::prefer_this_thread();
            let why = match answerer.run(&slot) {
                Ok(()) => "the kernel's events ended".to_owned(),
                Err(error) => format!("the kernel's events cannot be read: {error}"),
            };
            fatal.send(why).ok();
        });
        started.map(drop).map_err(doing("start an answering thread"))?;
    }
    let (onward, fatal) = (answerer.arrivals.clone(), fatal.clone());
    let started = thread("ana-minder").spawn(move || {
        if let Err(error) = quick::mind(&slots, &onward) {
            fatal.send(format!("the timers of the answering threads cannot be read: {error}")).ok();
        }
    });
    started.map(drop).map_err(doing("start the thread that minds them"))
}
