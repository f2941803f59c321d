//! Messages of CTAP2 against the authenticator, without a device.

mod credentials;
mod faults;
mod info;
mod pin;
mod platform;
mod presence;
