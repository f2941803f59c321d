//! The threads that answer the kernel.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{SupervisorError, io as doing};
use crate::{
    gate::exec::{
        answerer::{Answerer, THREADS},
        look::Looker,
    },
    sys,
};

/// Starts the threads that answer the kernel, each with one that looks into agents' memories for it.
pub(super) fn start(
    answerer: Answerer,
    fatal: &mpsc::UnboundedSender<String>,
) -> Result<(), SupervisorError> {
    let answerer = Arc::new(answerer);
    for _ in 0..THREADS {
        let mut looker = Looker::start().map_err(doing("start a thread that looks"))?;
        let (answerer, fatal) = (Arc::clone(&answerer), fatal.clone());
        let started = std::thread::Builder::new().name("ana-answerer".to_owned()).spawn(move || {
            sys::process::prefer_this_thread();
            let why = match answerer.run(&mut looker) {
                Ok(()) => "the kernel's events ended".to_owned(),
                Err(error) => format!("the kernel's events cannot be read: {error}"),
            };
            fatal.send(why).ok();
        });
        started.map(drop).map_err(doing("start an answering thread"))?;
    }
    Ok(())
}
