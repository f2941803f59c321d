//! The gates: each stops one kind of operation in the kernel until it is answered.
//!
//! Takes what the kernel reports; gives a [`exec::Held`] operation that goes on only with a [`Ticket`]. Never
//! decides: what is not answered stays stopped, what cannot be handled is refused.

pub mod arguments;
pub mod connect;
pub mod exec;
pub mod files;
pub mod image;
pub mod process;
pub mod recent;
pub mod tell;
mod ticket;

pub use ticket::Ticket;

/// An error with its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
