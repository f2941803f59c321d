//! The connect gate: what is redirected, what passes, what is refused, and what the session sees of it.

mod cost;
mod dns;
mod full;
mod ground;
mod local;
mod origin;
mod protocols;
mod tcp;
mod udp;
