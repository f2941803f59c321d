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
