//! The key over `/dev/hidraw*`, as root on a machine with `/dev/uhid`: asked by ctap-hid-fido2, which ana uses, and frame
//! by frame.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "the programs of tests panic where a test fails"
)]

mod client;
mod frames;
mod library;
mod skip;
