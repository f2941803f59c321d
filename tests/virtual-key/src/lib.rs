//! A FIDO2 security key that is a program: a CTAP2 authenticator behind `/dev/uhid`, with a person who touches it and
//! faults to order. Real programs talk to its `/dev/hidraw*` as to hardware.
//!
//! For tests and for trying things in a virtual machine: it keeps its secrets in memory and protects nothing.
//!
//! ```no_run
//! use ana_virtual_key::{Algorithm, Command, Fault, Person, VirtualKey};
//!
//! # fn main() -> std::io::Result<()> {
//! let key = VirtualKey::builder("test key").pin("1234").algorithms(&[Algorithm::EdDsa]).counter_from(7).plug()?;
//! key.person(Person::ByHand);
//! key.misbehaves(Fault::BadSignature.on(Command::GetAssertion));
//! // A client opens key.hidraw() and asks for an assertion.
//! key.until_blinking();
//! key.touch();
//! key.misbehaves(None);
//! let key = key.unplug().plug()?;
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod algorithm;
mod builder;
mod ctap;
mod fault;
mod handle;
mod hid;
mod live;
mod person;
mod seen;
mod store;

pub use algorithm::Algorithm;
pub use builder::{Attestation, Backup, Builder, Version};
pub use ctap::Status;
pub use fault::{Fault, Misbehaviour};
pub use handle::{Unplugged, VirtualKey};
pub use person::Person;
pub use seen::{Command, Request};
