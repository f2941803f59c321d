//! The thread that answers the kernel.

use tokio::sync::mpsc;

use super::{SupervisorError, io as doing};
use crate::{gate::exec::answerer::Answerer, sys};

/// Starts it.
pub(super) fn start(
    answerer: Answerer,
    fatal: &mpsc::UnboundedSender<String>,
) -> Result<(), SupervisorError> {
    let fatal = fatal.clone();
    let started = std::thread::Builder::new().name("ana-answerer".to_owned()).spawn(move || {
        sys::process::prefer_this_thread();
        let why = match answerer.run() {
            Ok(()) => "the kernel's events ended".to_owned(),
            Err(error) => format!("the kernel's events cannot be read: {error}"),
        };
        fatal.send(why).ok();
    });
    started.map(drop).map_err(doing("start the answering thread"))
}
