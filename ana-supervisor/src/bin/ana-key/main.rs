//! Talks to FIDO2 security keys, and to nobody else: `ana-run`, `ana approve` and `ana passkey` start it, one for each
//! signature or enrolment, and speak to it over its stdin (`ana_supervisor::approval::security_key::wire`).
//!
//! What comes from a key is what some USB device sends. The library that takes it apart panics and blocks where it does
//! not like it; here that ends nothing but this process.

mod choose;
mod confine;
mod keys;
mod make;
mod pending;
mod pin;
mod sign;
mod talk;
mod trouble;

use std::{os::unix::net::UnixStream, process::ExitCode, thread};

use ana_supervisor::{
    approval::security_key::wire::{self, Fault, News, Order},
    sys,
};

use talk::Talk;

fn main() -> ExitCode {
    // A panic is told over the pipe, and nowhere else.
    std::panic::set_hook(Box::new(|_| {}));
    let Ok(pipe) = sys::process::inherited(0).map(UnixStream::from) else { return ExitCode::FAILURE };
    // Before there is a second thread, which would keep its rights.
    let ids: Result<Vec<u32>, _> = std::env::args().skip(1).map(|id| id.parse()).collect();
    let Ok(ids) = ids else { return ExitCode::FAILURE };
    if let Err(error) = confine::confine(&ids) {
        let why = format!("cannot give up its rights: {error}");
        // Our end tells as much.
        wire::send(&pipe, &News::Failed(Fault::Other { why })).ok();
        return ExitCode::FAILURE;
    }
    let talk = Talk::new(pipe);
    while let Some(order) = talk.next_order() {
        let talk = talk.clone();
        // In a thread of its own, so that its panic is an answer.
        let news = thread::spawn({
            let talk = talk.clone();
            move || obey(&talk, order)
        });
        let news = news.join().unwrap_or_else(|panic| {
            News::Failed(Fault::Other { why: format!("a panic: {}", trouble::panic_text(&*panic)) })
        });
        talk.done(&news);
    }
    ExitCode::SUCCESS
}

fn obey(talk: &Talk, order: Order) -> News {
    let done = match order {
        Order::List => Ok(News::Keys(keys::list())),
        Order::Make(wish) => make::make(talk, &wish),
        Order::Assert(wish) => sign::sign(talk, &wish),
        // Of something that is over already.
        Order::Pin(_) | Order::Cancel => Err(Fault::Cancelled),
    };
    done.unwrap_or_else(News::Failed)
}
